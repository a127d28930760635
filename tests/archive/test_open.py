"""A run's folder is opened again, elsewhere and later, and judged again; what is wrong with it has a name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive import open as opening
from edgequant.archive.open import open_run
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.jobs.rejudge import judge
from edgequant.report.write import to_json
from edgequant.spec.file import VerifySpec
from tests import generated
from tests.jobs.support import check_folder, do


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, not to be changed."""
    where = tmp_path_factory.mktemp("made")
    do(generated.conv_cnn(where / "conv_cnn.onnx"), where / "run", "dynamic:8", "fp16", latency=True)
    return where / "run"


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    """A copy of it, somewhere else."""
    return Path(shutil.copytree(made, tmp_path / "elsewhere" / "moved"))


def records(run_dir: Path) -> list[Path]:
    return sorted(path for path in run_dir.rglob("*.json") if path.name not in ("report.json", "manifest.json"))


def said(path: Path) -> str:
    """The report that judging comes to, but for its date."""
    document = json.loads(path.read_text() if path.is_file() else to_json(judge(path).report))
    del document["created"]
    return json.dumps(document)


def refused(run_dir: Path) -> EdgequantError:
    """How a folder is refused, at the latest when all of it is read."""
    with pytest.raises(EdgequantError) as caught:
        read(run_dir)
    assert caught.value.hint
    return caught.value


def read(run_dir: Path) -> None:
    """Judge it, and read what judging does not need."""
    judge(run_dir)
    run = open_run(run_dir)
    for case in run.source.cases:
        run.inputs(case.name)
    for name in ("float-host", "host/fp16", "host/dynamic_8-52d58071"):
        capture = run.capture(name)
        for each in capture.cases if capture is not None else ():
            run.arrays_of(each)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_opened_again_and_moved(made: Path, run_dir: Path) -> None:
    here, there = open_run(made), open_run(run_dir)
    assert there.plan == here.plan
    assert there.source == here.source
    for case in there.source.cases:
        kept = there.inputs(case.name)
        with np.load(run_dir / "cases" / f"{case.name}.npz") as saved:
            assert {name: array.tobytes() for name, array in saved.items()} == {
                name: array.tobytes() for name, array in kept.items()
            }
    for variant in there.plan.variants:
        capture = there.on_device("local:", variant)
        assert capture is not None
        assert capture == here.on_device("local:", variant)
        outputs = there.outputs(capture, "first")
        assert outputs is not None
        assert outputs["y"].shape == (1, 10)
    assert str(made) not in "".join(path.read_text() for path in [*records(run_dir), run_dir / "journal.jsonl"])


def test_judged_again_it_says_the_same(made: Path, run_dir: Path) -> None:
    """Byte for byte but for its date, wherever it is."""
    again = judge(run_dir)
    assert again.changes == ()
    stored = (made / "report.json").read_text().splitlines()
    now = to_json(again.report).splitlines()
    assert [line for line in stored if '"created"' not in line] == [line for line in now if '"created"' not in line]
    check_folder(run_dir)


def test_other_limits_other_verdicts(run_dir: Path) -> None:
    before = judge(run_dir)
    assert [run.verdict for run in before.report.runs] == ["PASS", "PASS"]
    strict = judge(run_dir, ["sqnr_db>=60"])
    assert [run.verdict for run in strict.report.runs] == ["FAIL", "PASS"]
    assert strict.report.verdict == "FAIL"
    assert any("PASS -> FAIL" in change for change in strict.changes)
    assert any("sqnr_db >= 60, was 20" in change for change in strict.changes)
    by_file = judge(run_dir, spec=VerifySpec(limits=["y:cosine>=0.9999999"]))
    assert [run.verdict for run in by_file.report.runs] == ["FAIL", "PASS"]
    assert judge(run_dir).report.verdict == "PASS"
    with pytest.raises(InputError) as caught:
        judge(run_dir, ["nothing:cosine>=0.5"])
    assert caught.value.code == "LIMIT_UNKNOWN_OUTPUT"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"plan"', "{}", '{"schema": 1}', "\xff", "[" * 100_000])
def test_a_record_that_is_none(text: str, run_dir: Path) -> None:
    for path in records(run_dir):
        whole = path.read_bytes()
        if path.name == "closing.json" and text.startswith("{") and text != "{":
            continue  # all of it may be left out: a run that has not ended
        path.write_bytes(text.encode("latin-1"))
        error = refused(run_dir)
        assert error.code == "RUN_INVALID"
        assert path.name in error.message
        path.write_bytes(whole)


def test_a_truncated_record(run_dir: Path) -> None:
    for path in records(run_dir):
        whole = path.read_bytes()
        for size in (1, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:size])
            assert refused(run_dir).code == "RUN_INVALID", path
        path.write_bytes(whole)


def test_a_missing_record(run_dir: Path) -> None:
    """A trial that ended badly must not disappear with its record."""
    optional = ("closing.json", "host/dynamic_8-52d58071.json", "host/fp16.json")
    for path in records(run_dir):
        if path.relative_to(run_dir / "captures" if "captures" in path.parts else run_dir).as_posix() in optional:
            continue  # without it the run has not ended; this host's twin of a local trial is for other devices
        whole = path.read_bytes()
        path.unlink()
        error = refused(run_dir)
        assert error.code == "RUN_INVALID", path
        assert path.name in error.message or "is missing" in error.message
        path.write_bytes(whole)
    (run_dir / "closing.json").unlink()
    report = judge(run_dir).report
    assert report.verdict == "ERROR"
    assert [finding.code for finding in report.findings][-1] == "INTERRUPTED"


def test_a_changed_array(run_dir: Path) -> None:
    for path in (run_dir / "arrays").iterdir():
        whole = path.read_bytes()
        for data in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"", None):
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            if path.stem not in used(run_dir):
                continue
            error = refused(run_dir)
            assert isinstance(error, ToolError)
            assert error.code == "CAPTURE_UNREADABLE", path
            path.write_bytes(whole)


def used(run_dir: Path) -> str:
    """The records in which arrays are named that judging, or a look at the cases, reads."""
    names = ("source.json", "captures/reference.json", "captures/float-host.json", "captures/host/fp16.json")
    return "".join((run_dir / name).read_text() for name in names)


def test_of_a_later_version(run_dir: Path) -> None:
    for path in records(run_dir):
        whole = path.read_text()
        if "schema" not in json.loads(whole):
            continue
        kind = json.loads(whole)["schema"].partition("/")[0]
        rewrite(path, lambda document, kind=kind: document.update(schema=f"{kind}/2"))  # type: ignore[misc]
        error = refused(run_dir)
        assert error.code == "RUN_INVALID"
        assert f"schema '{kind}/2'" in error.message
        assert f"reads '{kind}/1'" in error.message
        path.write_text(whole)
    rewrite(run_dir / "plan.json", lambda document: document.update(added_later=[1]))
    assert judge(run_dir).changes == ()


def test_of_an_older_version(made: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if two versions ago a plan had said `target`, and `devices` as one word a version ago."""

    def first(document: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in document.items() if k != "target"}, "schema": "edgequant.plan/0b",
                "devices": document["target"]}  # fmt: skip

    def second(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "schema": "edgequant.plan/1", "devices": [document["devices"]]}

    def age(document: dict[str, Any]) -> None:
        document.update(schema="edgequant.plan/0a", target=document.pop("devices")[0])

    rewrite(run_dir / "plan.json", age)
    assert "schema 'edgequant.plan/0a'" in refused(run_dir).message
    monkeypatch.setattr(opening, "MIGRATIONS", {"edgequant.plan/0a": first, "edgequant.plan/0b": second})
    assert open_run(run_dir).plan == open_run(made).plan
    assert said(run_dir) == said(made / "report.json")
    loop = {"edgequant.plan/0a": lambda document: document}
    monkeypatch.setattr(opening, "MIGRATIONS", loop)
    assert refused(run_dir).code == "RUN_INVALID"


def test_no_folder_of_a_run(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_run(tmp_path / "nowhere")
    assert caught.value.code == "RUN_NOT_FOUND"
    assert caught.value.hint
    (tmp_path / "old").mkdir()
    shutil.copy(made / "report.json", tmp_path / "old" / "report.json")
    error = refused(tmp_path / "old")
    assert error.code == "RUN_INVALID"
    assert "it has no plan.json" in error.message
    assert "`edgequant report` shows a report.json of any version." in (error.hint or "")
