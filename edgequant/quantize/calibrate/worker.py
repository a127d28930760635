"""Runs a model over calibration samples, in a process of its own that MNN may crash.

Its job is a JSON file, its answers are files beside it; what it prints is the log.  A line before each step tells,
after a death, where it was.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_LINE = "[edgequant] sample "
_OPTIONS = {"threads": 1, "memory": "normal", "precision": "high"}


def _samples(job: dict[str, Any]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for number in range(job["first"], job["first"] + job["count"]):
        os.write(1, f"{SAMPLE_LINE}{number}\n".encode())
        with np.load(Path(job["samples"]) / f"{number}.npz", allow_pickle=False) as arrays:
            yield number, {name: arrays[str(place)] for place, name in enumerate(job["inputs"])}


def _values(job: dict[str, Any]) -> Iterator[tuple[int, str, np.ndarray]]:
    """(sample, tensor, its values) for `tensors` over all samples."""
    from edgequant.device_scripts.engine import Loaded

    inner = [name for name in job["tensors"] if name not in job["inputs"]]
    model = Loaded(job["model"], _OPTIONS, inner or None)
    for number, sample in _samples(job):
        values = model.read(model.forward(model.feed(sample)))
        for name in job["tensors"]:
            yield number, name, sample[name] if name in job["inputs"] else values[name]


def _not_float(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"error": "TENSOR_NOT_FLOAT", "tensor": name, "message": f"'{name}' is {array.dtype}"}


def _unusable(number: int, name: str, array: np.ndarray) -> dict[str, Any] | None:
    """The answer where a tensor's values in a sample are no finite floats."""
    if array.dtype.kind != "f":
        return _not_float(name, array)
    if not np.isfinite(array).all():
        nans, infs = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        return {"error": "NOT_FINITE", "tensor": name, "sample": number, "message": f"{nans} NaN, {infs} Inf"}
    return None


def ranges(job: dict[str, Any]) -> dict[str, Any]:
    """Write the smallest and the largest value of `tensors` in each sample to `out`: float64 [tensors, samples, 2].

    An empty tensor has the range 0, 0.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in job["tensors"]}
    for number, name, array in _values(job):
        if (unusable := _unusable(number, name, array)) is not None:
            return unusable
        found[name].append((float(array.min()), float(array.max())) if array.size else (0.0, 0.0))
    np.savez(job["out"], ranges=np.array(list(found.values()), np.float64).reshape(len(found), job["count"], 2))
    return {}


def channels(job: dict[str, Any]) -> dict[str, Any]:
    """Write the largest magnitude of each channel (axis 1) of `tensors` over all samples to `out`.

    As arrays 0, 1, ..., float32 [channels].
    """
    found: dict[str, np.ndarray] = {}
    for number, name, array in _values(job):
        if (unusable := _unusable(number, name, array)) is not None:
            return unusable
        if array.ndim < 2:
            return {"error": "TENSOR_NO_CHANNELS", "tensor": name, "message": f"'{name}' has shape {array.shape}"}
        here = np.abs(array).max(axis=(0, *range(2, array.ndim)), initial=0).astype(np.float32)
        before = found.setdefault(name, here)
        if before.shape != here.shape:
            message = f"'{name}' has {len(before)} channels in one sample and {len(here)} in another"
            return {"error": "TENSOR_NO_CHANNELS", "tensor": name, "message": message}
        found[name] = np.maximum(before, here)
    np.savez(job["out"], **{str(place): found[name] for place, name in enumerate(job["tensors"])})  # type: ignore[arg-type]
    return {}


def histograms(job: dict[str, Any]) -> dict[str, Any]:
    """Feed the values of `tensors` over all samples to histograms, and write those to `out`."""
    from edgequant.quantize.calibrate.histogram import Histogram, NotFiniteError, pack

    found = {name: Histogram(job["decay"]) for name in job["tensors"]}
    for number, name, array in _values(job):
        if array.dtype.kind != "f":
            return _not_float(name, array)
        try:
            found[name].add(array)
        except NotFiniteError as error:
            return {"error": "NOT_FINITE", "tensor": name, "sample": number, "message": str(error)}
    np.savez(job["out"], **pack(list(found.values())))  # type: ignore[arg-type]
    return {}


def outputs(job: dict[str, Any]) -> dict[str, Any]:
    """Write the model's outputs for each sample to `out`/NUMBER.npz, as arrays 0, 1, ...; answers their names."""
    from edgequant.device_scripts.engine import Loaded

    model = Loaded(job["model"], _OPTIONS, None)
    for number, sample in _samples(job):
        values = model.read(model.forward(model.feed(sample)))
        arrays = {str(place): values[name] for place, name in enumerate(model.output_names)}
        np.savez(Path(job["out"]) / f"{number}.npz", **arrays)  # type: ignore[arg-type]
    return {"outputs": model.output_names}


_JOBS = {"channels": channels, "histograms": histograms, "outputs": outputs, "ranges": ranges}


def main(path: str) -> int:
    """Do the job in the file; its answer goes to FILE.answer, whole or not at all."""
    from edgequant.device_scripts.server import JobError

    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        answer = _JOBS[job["job"]](job)
    except JobError as error:
        answer = {"error": error.code, "message": str(error)}
    written = Path(path + ".tmp")
    written.write_text(json.dumps(answer), encoding="utf-8")
    written.replace(path + ".answer")
    # MNN's destructors have nothing to say any more, and some crash.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
