"""Calibration samples on disk: read once from whoever gives them, run through many child processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.errors import InputError
from edgequant.tensors import TensorSpec

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Samples:
    """Samples in `folder`: 0.npz, 1.npz, ..., each with arrays 0, 1, ... in the order of `inputs`."""

    folder: Path
    inputs: tuple[str, ...]
    count: int


def spool(samples: Iterable[Mapping[str, np.ndarray]], inputs: Sequence[TensorSpec], folder: Path) -> Samples:
    """Write all samples to a folder, one at a time: only one is in memory.

    Args:
        samples: arrays by input name; shapes may differ from sample to sample where the model allows it.
        inputs: the model's inputs.
        folder: is made; its owner removes it.

    Raises:
        InputError: CALIBRATION_EMPTY, CALIBRATION_NAMES, CALIBRATION_SHAPE, CALIBRATION_DTYPE, CALIBRATION_NOT_FINITE,
            each naming the sample by its number, from 0.
    """
    folder.mkdir()
    names = tuple(spec.name for spec in inputs)
    count = 0
    for number, sample in enumerate(samples):
        _check_names(number, sample, names)
        arrays = [_checked(number, np.asarray(sample[spec.name]), spec) for spec in inputs]
        np.savez(folder / f"{number}.npz", **{str(place): array for place, array in enumerate(arrays)})  # type: ignore[arg-type]
        count += 1
    if not count:
        raise InputError(
            "CALIBRATION_EMPTY",
            "there are no calibration samples",
            hint="Give at least a few real inputs; ranges are measured on them.",
        )
    return Samples(folder, names, count)


def _check_names(number: int, sample: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in sample]
    extra = [name for name in sample if name not in names]
    if missing or extra:
        said = [f"no array for input {', '.join(missing)}"] if missing else []
        said += [f"unknown input {', '.join(map(str, extra))}"] if extra else []
        raise InputError(
            "CALIBRATION_NAMES",
            f"calibration sample {number}: {' and '.join(said)}",
            hint=f"The model's inputs are {', '.join(names)}.",
        )


def _checked(number: int, array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    where = f"calibration sample {number}, input '{spec.name}'"
    if array.dtype.kind not in "fiub" or (array.dtype.name in _FLOATS) != (spec.dtype in _FLOATS):
        raise InputError("CALIBRATION_DTYPE", f"{where}: it is {array.dtype}, the model takes {spec.dtype}")
    fits = spec.shape is None or (
        len(spec.shape) == array.ndim
        and all(want is None or want == have for want, have in zip(spec.shape, array.shape, strict=True))
    )
    if not fits or not array.size:
        wanted = "any" if spec.shape is None else str([size or "?" for size in spec.shape])
        raise InputError("CALIBRATION_SHAPE", f"{where}: its shape is {list(array.shape)}, the model takes {wanted}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("CALIBRATION_NOT_FINITE", f"{where}: it holds NaN or Inf")
    return array
