"""The whole job against the sum of the steps nobody can leave out.

Timed: wall time of the command `edgequant verify` for enc (a GRU model, random cases), from starting the process to
its end, with this host as the device and with a real sshd on loopback.

The peer is a user's own scripts (bare.py), run one after the other in the same minute, which make the same files and
the same inferences: convert to float MNN, and again on another heap; convert to quantized MNN; ONNX Runtime on every
case, and on the usual ones with a copy that rounds activations, which is made before; float MNN on every case;
quantized MNN on every case, twice, with the same warm-up, number and duration of timed inferences as edgequant's; every
case with memory normal.  Over SSH also quantized MNN on this host, as it is and with memory normal, and again with the
cases moved, which is what a device is held against.  The cases are those that verify drew, moved as verify moves them;
that is done before.  Each script is a process and pays for its own imports, as it would in real life.  None of them
compares, judges, hashes, draws, checks that the converter's output loads, or writes anything: that is what is above 1.
Ours and the steps alternate.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import CannotRun, Pairs, Result, Settings, median
from bench.material import bare, quantized, ssh_server

MODEL = "enc"
BOUND = 1.3


def run(settings: Settings) -> list[Result]:
    model = quantized(MODEL, settings.folder)
    cases = _cases(model.source, settings.folder)
    count = settings.pairs(7, 1)
    with ssh_server() as server:
        home = settings.folder / "home"
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        shutil.copy(server.config, home / ".ssh" / "config")
        return [
            _one("local", ["--device", "local:"], model.source, cases, settings, count, None),
            _one(
                "ssh", ["--device", "ssh://bed", "--python", sys.executable], model.source, cases, settings, count, home
            ),
        ]


@dataclass(frozen=True)
class _Cases:
    """Files of the cases that verify runs; those of them that are no strain, and the source with rounded activations
    that computes these; and of all, moved as it does for memory low and for memory normal."""

    all: list[Path]
    usual: list[Path]
    rounded: Path
    moved: list[Path]
    moved_normal: list[Path]


def _cases(source: Path, folder: Path) -> _Cases:
    """What one run of verify, which is not timed, has drawn; the one that it times in the middle."""
    import numpy as np

    from edgequant.archive.open import open_run
    from edgequant.cases.case import Case
    from edgequant.lab.probes.rounding import moved
    from edgequant.models.onnx_cut import OnnxFile
    from edgequant.models.onnx_rounding import round_activations

    rounded = folder / "rounded.onnx"
    with OnnxFile(source) as file:
        round_activations(file, rounded)
    _verify(source, ["--device", "local:"], folder, None)
    facts = open_run(folder / "run").source.cases
    regular = [case.name for case in facts if case.kind == "usual"]
    timed = regular[len(regular) // 2]
    names = [case.name for case in facts if case.name != timed]
    names.insert((len(names) + 1) // 2, timed)
    kinds = {case.name: case.kind for case in facts}
    paths: list[Path] = []
    usual: list[Path] = []
    low: list[Path] = []
    normal: list[Path] = []
    for name in names:
        with np.load(folder / "run" / "cases" / f"{name}.npz") as arrays:
            case = Case(name=name, inputs=dict(arrays), source="bench", kind=kinds[name])
        paths.append(_saved(case.inputs, folder / f"case-{name}.npz"))
        half = case.kind == "strain"
        usual += [] if half else paths[-1:]
        for files, several in (
            (low, moved(case, int8=True, half=half)),
            (normal, moved(case, int8=False, half=True)),
        ):
            for _, other in several:
                files.append(_saved(other.inputs, folder / f"moved-{len(low)}-{len(normal)}.npz"))
    return _Cases(paths, usual, rounded, low, normal)


def _saved(inputs: Mapping[str, Any], path: Path) -> Path:
    import numpy as np

    np.savez(path, **inputs)
    return path


def _one(
    name: str, device: list[str], source: Path, cases: _Cases, settings: Settings, count: int, home: Path | None
) -> Result:
    phases: list[dict[str, float]] = []
    steps: list[dict[str, float]] = []

    def ours() -> float:
        seconds, found = _verify(source, device, settings.folder, home)
        phases.append(found)
        return seconds

    def peer() -> float:
        found = _steps(source, cases, settings.folder, on_host_too=home is not None)
        steps.append(found)
        return sum(found.values())

    pairs = Pairs()
    pairs.take(ours, peer, count)
    rest = {key: median([found.get(key, 0.0) for found in phases]) for key in phases[0]}
    step = {key: median([found[key] for found in steps]) for key in steps[0]}
    notes = f"{median(pairs.ours):.2f} s, steps {median(pairs.peer):.2f} s"
    more = [f"ours: {_table(rest)}", f"steps: {_table(step)}"]
    detail = {**pairs.detail(), "phases": phases, "steps": steps}
    return Result(f"verify {name}", pairs.ratios, BOUND, notes=notes, more=more, unit="x", detail=detail)


def _table(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def _verify(source: Path, device: list[str], folder: Path, home: Path | None) -> tuple[float, dict[str, float]]:
    run_dir, work_dir = folder / "run", folder / "device"
    shutil.rmtree(run_dir, ignore_errors=True)
    shutil.rmtree(work_dir, ignore_errors=True)  # a first push each time, as after making a new model
    command = [
        sys.executable, "-c", "from edgequant.cli.app import main; main()", "verify", str(source), *device,
        "--run-dir", str(run_dir), "--work-dir", str(work_dir), "--quiet",
    ]  # fmt: skip
    # Compiled files are what an installed package has; the libraries of the bare steps have theirs from pip.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["EDGEQUANT_NO_CACHE"] = "1"  # the bare steps convert, too
    if home is not None:
        environment["HOME"] = str(home)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1) or not (run_dir / "report.json").exists():
        raise CannotRun(f"verify ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads((run_dir / "report.json").read_text())
    if any(run["error"] for run in report["runs"]):
        raise CannotRun(f"verify could not run: {report['runs'][0]['error']}")
    found = {key: float(value) for key, value in report["timing_s"].items()}
    found["outside"] = seconds - sum(found.values())
    return seconds, found


def _steps(source: Path, cases: _Cases, folder: Path, *, on_host_too: bool) -> dict[str, float]:
    from edgequant.lab.probes.latency import TIMING_MIN_SECONDS
    from edgequant.runner.client import DEFAULT_THREADS
    from edgequant.spec import RunOptions

    options = RunOptions()
    threads = min(DEFAULT_THREADS, os.cpu_count() or 1)
    plain, small = folder / "bare-float.mnn", folder / "bare-w8.mnn"
    flags = ["--weightQuantBits", "8", "--weightQuantAsymmetric=0"]
    timing = [options.warmup, options.repeat, TIMING_MIN_SECONDS]
    jobs: dict[str, list[object]] = {
        "convert float": ["convert", source, plain],
        "convert again": ["convert", source, plain],
        "convert quantized": ["convert", source, small, *flags],
        "reference": ["ort", source, *cases.all],
        "reference rounded": ["ort", cases.rounded, *cases.usual],
        "float on host": ["mnn", plain, "normal", threads, 0, 0, 0, *cases.all],
        # Every case twice; with as many before the timed one as behind it.
        "device and timing": ["mnn", small, "low", threads, *timing, *_twice(cases.all)],
        "device, memory normal": ["mnn", small, "normal", threads, 0, 0, 0, *cases.all],
    }
    if on_host_too:
        jobs["quantized on host"] = ["mnn", small, "low", threads, 0, 0, 0, *cases.all, *cases.moved]
        jobs["host, memory normal"] = ["mnn", small, "normal", threads, 0, 0, 0, *cases.all, *cases.moved_normal]
    seconds = {}
    for name, arguments in jobs.items():
        start = time.perf_counter()
        bare(*arguments)
        seconds[name] = time.perf_counter() - start
    return seconds


def _twice(cases: list[Path]) -> list[Path]:
    """Each twice, with the same one in the middle."""
    half = len(cases) // 2
    return [*cases[:half], *cases[:half], cases[half], cases[half], *cases[half + 1 :], *cases[half + 1 :]]
