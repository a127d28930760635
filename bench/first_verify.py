"""How long the first `verify` takes on a bare phone, how long the second one does, and where the time goes.

Timed: the whole command, `edgequant verify enc.onnx --device adb://... --variant dynamic:8`, as a process, on the
virtual ARM64 phone: one with Android's adbd and a shell, and neither Python nor a C library.  The first one finds an
empty disk, so that it pushes the pack (24 MB), unpacks it and starts its Python; the second one finds it there.  The
pack is built on this host before, which happens once in a lifetime.  There is no peer; the phases are the report's own
`timing_s`, `outside` is what comes before and after: start of Python, imports, printing.

The phone is emulated on this host's cores: what is computed there takes 10 to 30 times what a real one takes, and
its storage and link are faster than real ones.  The shares say where to look; only a phone says how long.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.beds import adb_bed, phone_vm
from bench.harness import CannotRun, Result, Settings, median

MODEL = "enc"


def run(settings: Settings) -> list[Result]:
    from edgequant.errors import EdgequantError
    from edgequant.pack import build_pack
    from edgequant.zoo import fetch

    try:
        source, pack = fetch(MODEL), build_pack()
    except EdgequantError as error:
        raise CannotRun(f"{error.code}: {error}") from None
    rounds = settings.pairs(3, 1)
    took: dict[str, list[float]] = {"first": [], "second": []}
    phases: dict[str, list[dict[str, float]]] = {"first": [], "second": []}
    with adb_bed() as bed, phone_vm(bed, settings.folder) as phone:
        for turn in range(rounds):
            if turn:
                phone.reset()
            for which in took:
                seconds, found = _verify(source, phone.uri, settings.folder)
                took[which].append(seconds)
                phases[which].append(found)
    notes = {"first": f"{MODEL} dynamic:8, pack of {pack.size / 1e6:.0f} MB pushed", "second": "pack there"}
    return [
        Result(
            f"first_verify {which}",
            seconds,
            unit=" s",
            notes=notes[which],
            more=[", ".join(f"{name} {value:.2f}" for name, value in _medians(phases[which]).items())],
            detail={"phases": phases[which]},
        )
        for which, seconds in took.items()
    ]


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: median([phases.get(name, 0.0) for phases in found]) for name in found[0]}


def _verify(source: Path, uri: str, folder: Path) -> tuple[float, dict[str, float]]:
    run_dir = folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [
        sys.executable, "-c", "from edgequant.cli.app import main; main()", "verify", str(source),
        "--device", uri, "--variant", "dynamic:8", "--run-dir", str(run_dir), "--quiet",
    ]  # fmt: skip
    start = time.perf_counter()
    environment = {**os.environ, "EDGEQUANT_NO_CACHE": "1"}  # each time is the first
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1) or not (run_dir / "report.json").exists():
        raise CannotRun(f"verify ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    report: dict[str, Any] = json.loads((run_dir / "report.json").read_text())
    if any(run["error"] for run in report["runs"]):
        raise CannotRun(f"verify could not run: {report['runs'][0]['error']}")
    found = {key: float(value) for key, value in report["timing_s"].items()}
    found["outside"] = seconds - sum(found.values())
    return seconds, found
