"""What the end-to-end tests share: running the job, reading a run's folder, and metrics computed a second time."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import psutil
import pytest

from edgequant.archive.folder import device_capture
from edgequant.archive.open import open_run
from edgequant.cases.load import save_npz
from edgequant.jobs.verify import verify
from edgequant.lab.session import DeviceOptions, Session
from edgequant.lab.take import ModelFile, Place
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.report.model import Report, Run
from edgequant.report.write import json_schema
from edgequant.runner.client import Loaded, MnnRunner, RunResult
from edgequant.spec import Limit, RunOptions, Variant
from tests.beds.sshd import SshServer
from tools import check_run

Arrays = dict[str, np.ndarray]
ONE_THREAD = RunOptions(threads=1)
"""MNN's threads spin while they wait: with two tests at once on two cores, more of them take ten times as long."""


def do(
    model: Path,
    run_dir: Path,
    *variants: str,
    devices: tuple[str, ...] = ("local:",),
    limits: tuple[str, ...] = (),
    progress: Progress | None = None,
    latency: bool = False,
    access: DeviceOptions | None = None,
    options: RunOptions | None = None,
    **more: Any,
) -> Report:
    """Verify in this process and check the report as a file too."""
    request = Request(
        model,
        devices=devices,
        variants=tuple(Variant.parse(text) for text in variants or ("dynamic:8",)),
        limits=tuple(Limit.parse(text) for text in limits),
        run_dir=run_dir,
        latency=latency,
        access=access or DeviceOptions(),
        options=options or ONE_THREAD,
        **more,
    )
    report, found = verify(request, progress)
    assert found.path == run_dir
    check_file(run_dir / "report.json", report)
    return report


@cache
def schema() -> jsonschema.Draft202012Validator:
    """Of reports; looked at once, for that takes longer than many a run."""
    found = json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def check_file(path: Path, report: Report | None = None) -> dict[str, Any]:
    """The report as it is on disk: valid by its own schema, strict JSON, the one that was returned, and what the rest
    of its folder comes to."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"), parse_constant=lambda name: 1 / 0)
    schema().validate(document)
    if report is not None:
        assert document["verdict"] == report.verdict.value
        assert [run["verdict"] for run in document["runs"]] == [run.verdict.value for run in report.runs]
    leftovers = [file.name for file in path.parent.rglob("*") if file.name.endswith(".tmp")]
    assert not leftovers
    assert not list(path.parent.glob("models/.*"))
    check_folder(path.parent)
    return document


def check_folder(run_dir: Path) -> None:
    """The independent checker has nothing to say of it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = check_run.main(run_dir)
    assert code == 0, said.getvalue()


def ssh_home(sshd: SshServer, tmp_path: Path, *, config: str | None = None) -> dict[str, str]:
    """The environment of a user whose ~/.ssh/config names the test server."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "config").write_text(sshd.config.read_text() if config is None else config)
    return {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}


def arrays(run_dir: Path, name: str) -> dict[str, Arrays]:
    """Case -> outputs, of a capture."""
    run = open_run(run_dir)
    found = run.capture(name)
    if found is None:
        return {}
    cases = sorted(found.cases, key=lambda case: case.case)
    return {case.case: outputs for case in cases if (outputs := run.arrays_of(case)) is not None}


def held(run_dir: Path, name: str) -> dict[str, Arrays]:
    """The same, of the cases that are held against limits."""
    kept = open_run(run_dir).source.held
    return {case: outputs for case, outputs in arrays(run_dir, name).items() if case in kept}


def saved(run_dir: Path, name: str) -> Path:
    """The outputs of a capture as a folder of .npz files, which --reference takes."""
    folder = run_dir.with_name(f"{run_dir.name}-{name}")
    folder.mkdir()
    for case, outputs in arrays(run_dir, name).items():
        save_npz(folder / f"{case}.npz", outputs)
    return folder


def capture(run_dir: Path, run: Run) -> dict[str, Arrays]:
    return arrays(run_dir, device_capture(run.device.uri, run.variant))


def metrics(reference: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """Written anew from the definitions, in float64."""
    assert reference.shape == got.shape
    r, g = reference.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    error = r - g
    noise = float(error @ error)
    return {
        "cosine": float(r @ g) / float(np.sqrt(r @ r) * np.sqrt(g @ g)),
        "sqnr_db": 200.0 if not noise else min(200.0, 10 * float(np.log10(float(r @ r) / noise))),
        "max_abs": float(np.abs(error).max()),
        "rel_max": float(np.abs(error).max() / np.abs(r).max()),
    }


WORST: dict[str, Callable[..., float]] = {"cosine": min, "sqnr_db": min, "max_abs": max, "rel_max": max}


def recompute(reference: Mapping[str, Arrays], got: Mapping[str, Arrays]) -> dict[str, dict[str, Any]]:
    """Output -> the worst of each metric over the cases, and the case with the lowest SQNR."""
    assert reference.keys() == got.keys()
    found: dict[str, dict[str, Any]] = {}
    for name in next(iter(reference.values())):
        cases = {case: metrics(reference[case][name], got[case][name]) for case in sorted(reference)}
        found[name] = {metric: pick(case[metric] for case in cases.values()) for metric, pick in WORST.items()}
        found[name]["worst_case"] = min(cases, key=lambda case: cases[case]["sqnr_db"])
    return found


def check_numbers(run_dir: Path, run: Run) -> None:
    """The report's numbers follow from the files beside it, and its verdicts from the numbers."""
    assert arrays(run_dir, "reference").keys() == capture(run_dir, run).keys()
    expected = recompute(held(run_dir, "reference"), held(run_dir, device_capture(run.device.uri, run.variant)))
    assert expected.keys() == run.outputs.keys()
    for name, output in run.outputs.items():
        for metric in WORST:
            np.testing.assert_allclose(
                getattr(output, metric), expected[name][metric], rtol=1e-6, atol=1e-9, err_msg=f"{name} {metric}"
            )
        assert output.worst_case == expected[name]["worst_case"]
        broken = [
            limit.metric
            for limit in output.limits
            if (expected[name][limit.metric] < limit.bound) == (limit.op == ">=")
            and expected[name][limit.metric] != limit.bound
        ]
        assert (output.verdict == "FAIL") == bool(broken), (name, broken)
        assert [limit.metric for limit in output.limits if limit.verdict == "FAIL"] == broken
    assert (run.verdict == "FAIL") == any(output.verdict == "FAIL" for output in run.outputs.values())


def witnessed(run_dir: Path, run: Run, *, sent: bool) -> None:
    """A shell on the device saw the runner, and the library of MNN that it runs; sent: that of a pack we sent."""
    found = open_run(run_dir).capture(device_capture(run.device.uri, run.variant))
    assert found is not None
    assert found.witness is not None
    assert found.witness.why is None
    (library,) = found.witness.libraries
    assert library.machine == 183
    assert library.has_version
    assert library.sent is sent
    if sent:
        assert library.recorded == (library.sha256,)
    assert found.witness.cores


def codes(found: Run | Report) -> set[str]:
    return {finding.code for finding in found.findings}


class Listener(Progress):
    """Calls `heard` with each line, and `sent` with each piece of a transfer."""

    def __init__(
        self, heard: Callable[[str], None] = lambda text: None, sent: Callable[[str, int], None] = lambda *_: None
    ) -> None:
        self.lines: list[str] = []
        self._heard, self._sent = heard, sent

    def say(self, text: str) -> None:
        self.lines.append(text)
        self._heard(text)

    def transfer(self, label: str, total: int) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def counting() -> Any:
            yield lambda size: self._sent(label, size)

        return counting()


def runners(parent: int | None = None) -> list[psutil.Process]:
    """Runner processes below `parent`, by their command line: Python on runner-*.pyz or on a pushed object."""
    found = []
    for child in psutil.Process(parent or os.getpid()).children(recursive=True):
        try:
            if any("/objects/" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@contextlib.contextmanager
def once_run(cases: int, act: Callable[[psutil.Process], object], *, on_host: bool = False) -> Iterator[None]:
    """Do `act`, once, with the runner that runs them, as soon as so many cases have been run on the device, or by float
    MNN on this host.

    In the thread that runs them: however fast the machine, no further case is begun before `act` is over.
    """
    load, run, counted, done = Place.load.__func__, MnnRunner.run, {}, []  # type: ignore[attr-defined]

    def loading(cls: type[Place], session: Session, model: ModelFile, path: str | None = None) -> Place:
        found: Place = load(cls, session, model, path)
        if (path is None) == on_host:
            counted[found.loaded.handle, session.device.uri, id(found.runner)] = 0
        return found

    def running(self: MnnRunner, model: Loaded, inputs: Mapping[str, np.ndarray]) -> RunResult:
        found = run(self, model, inputs)
        key = (model.handle, self.uri, id(self))
        if key in counted and not done:
            counted[key] += 1
            if counted[key] == cases:
                done.append(key)
                act(psutil.Process(self.hello.pid))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "load", classmethod(loading))
        patch.setattr(MnnRunner, "run", running)
        yield
    assert done, "it never came to that"
