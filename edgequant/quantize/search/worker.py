"""Runs mixtures of a model over the cases, in a process of its own that MNN may crash.

Its job is a JSON file.  Each trial's result is a line of a file, written as soon as it is known: what an interrupted
or crashed process measured is not lost, and where the lines end tells which trial it died of.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np


def _cases(job: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    found = []
    for number in range(job["cases"]):
        with np.load(Path(job["folder"]) / f"case-{number}.npz", allow_pickle=False) as arrays:
            found.append({name: arrays[str(place)] for place, name in enumerate(job["inputs"])})
    return found


def reference(job: dict[str, Any]) -> None:
    """Write the model's outputs of each case, as arrays 0, 1, ...; the line written names them."""
    from edgequant.device_scripts.engine import Loaded

    model = Loaded(job["model"], job["options"], None)
    for number, case in enumerate(_cases(job)):
        values = model.read(model.forward(model.feed(case)))
        arrays = {str(place): values[name] for place, name in enumerate(model.output_names)}
        np.savez(Path(job["folder"]) / f"reference-{number}.npz", **arrays)  # type: ignore[arg-type]
    _say(job, {"outputs": model.output_names})


def trials(job: dict[str, Any]) -> None:
    """For each trial, make its model, run it, and write a line: the noise of each case and output.

    A trial is a list of pieces to put into the model (see `mixture.assemble`).  Noise is sum (reference - output)^2, in
    the order of cases, then outputs; null where the output is missing, of another shape, or NaN or Inf where the
    reference is not.
    """
    from edgequant.device_scripts.engine import Loaded
    from edgequant.device_scripts.server import JobError
    from edgequant.quantize.search.mixture import assemble

    cases = _cases(job)
    wanted = []
    for number in range(job["cases"]):
        with np.load(Path(job["folder"]) / f"reference-{number}.npz", allow_pickle=False) as arrays:
            wanted.append({name: arrays[str(place)] for place, name in enumerate(job["outputs"])})
    base = Path(job["model"]).read_bytes()
    made = Path(job["out"] + ".mnn")
    with open(job["library"], "rb") as library:
        for pieces in job["trials"]:
            made.write_bytes(assemble(base, library, pieces))
            # A model that hangs in native code ends the process here, and costs no other its result.
            signal.setitimer(signal.ITIMER_REAL, job["timeout"] * (1 + len(cases)))
            try:
                model = Loaded(str(made), job["options"], None)
                noise: list[float | None] = []
                for case, want in zip(cases, wanted, strict=True):
                    values = model.read(model.forward(model.feed(case)))
                    noise += [_noise(want[name], values.get(name)) for name in job["outputs"]]
            except JobError as error:
                _say(job, {"error": str(error)})
            else:
                _say(job, {"noise": noise})
    made.unlink(missing_ok=True)


def _noise(want: np.ndarray, have: np.ndarray | None) -> float | None:
    if have is None or have.shape != want.shape:
        return None
    a, b = want.astype(np.float64), have.astype(np.float64)
    sound = np.isfinite(a)
    if not np.isfinite(b[sound]).all():
        return None
    return float(((a[sound] - b[sound]) ** 2).sum())


def _say(job: dict[str, Any], line: dict[str, Any]) -> None:
    with open(job["out"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def main(path: str) -> int:
    """Do the job in the file."""
    from edgequant.device_scripts.server import JobError

    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        {"reference": reference, "trials": trials}[job["job"]](job)
    except JobError as error:
        _say(job, {"refused": str(error)})
    # MNN's destructors have nothing to say any more, and some crash.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
