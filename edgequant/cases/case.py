"""A case: named input tensors of one shape set, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgequant.errors import InputError
from edgequant.tensors import TensorSpec

MAX_CASE_BYTES = 2 << 30
"""Larger cases are refused: they would not fit a device either, and the file is somebody else's."""

CaseKind = Literal["usual", "size", "strain"]
"""What a case is for: "usual" ones are what the model is for; "size" are other sizes of the same; "strain" are values
it may never see (silence, ten times as loud), which say whether MNN computes the same, not how good the model is."""

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Case:
    """One set of inputs.

    Attributes:
        name: unique within a run; a safe file name.
        inputs: arrays by input name, in the element types of the source model.
        source: for people and the report, such as "random, seed 0" or a file's name.
        generated: true where edgequant made it up; such a case may be dropped when the reference refuses its shapes.
        kind: of those the user gave always "usual".
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    source: str
    generated: bool = False
    kind: CaseKind = "usual"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(array.shape) for name, array in self.inputs.items()}


def usual(cases: Sequence[Case]) -> list[Case]:
    """Those that say how good a model is; all of them where none is meant to."""
    return [case for case in cases if case.kind == "usual"] or list(cases)


def fit(name: str, arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec], source: str) -> Case:
    """Make a case of `arrays`, checked against the model's inputs.

    Element types of the same kind are converted where no value changes; rank-0 inputs may be given as (1,).

    Raises InputError: INPUT_UNKNOWN, INPUT_MISSING, INPUT_SHAPE, INPUT_DTYPE, INPUT_VALUE, INPUT_NAN, each
    naming the file and the input.
    """
    known = [spec.name for spec in inputs]
    for given in arrays:
        if given not in known:
            raise InputError(
                "INPUT_UNKNOWN",
                f"{source}: the model has no input '{given}'",
                hint=f"Its inputs are {', '.join(known)}.",
            )
    missing = [wanted for wanted in known if wanted not in arrays]
    if missing:
        raise InputError("INPUT_MISSING", f"{source}: no data for input {', '.join(missing)}")
    if sum(array.nbytes for array in arrays.values()) > MAX_CASE_BYTES:
        raise InputError("INPUT_TOO_LARGE", f"{source}: a case may hold at most {MAX_CASE_BYTES >> 20} MiB")
    symbols: dict[str, tuple[int, str]] = {}
    fitted = {}
    for spec in inputs:
        array = _typed(arrays[spec.name], spec, source)
        fitted[spec.name] = _shaped(array, spec, source, symbols)
    return Case(name, fitted, source)


def _typed(array: np.ndarray, spec: TensorSpec, source: str) -> np.ndarray:
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return np.ascontiguousarray(array).reshape(array.shape)
    problem = InputError(
        "INPUT_DTYPE",
        f"{source}: input '{spec.name}' is {array.dtype}, the model takes {spec.dtype}",
        hint=f"Save it as {spec.dtype}, for example with array.astype('{spec.dtype}').",
    )
    floats = (array.dtype.name in _FLOATS, spec.dtype in _FLOATS)
    if array.dtype.kind not in "fiub" or floats[0] != floats[1]:
        raise problem
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array.astype(wanted, order="C"))
    if wanted.kind == "f":
        # Rounding float64 to float32 is what every user does; turning a number into an infinity is not.
        changed = bool((np.isfinite(array) & ~np.isfinite(converted)).any())
    else:
        changed = bool((converted.astype(array.dtype) != array).any()) or bool(
            ((converted < 0) != (array < 0)).any() if wanted.kind != "b" else (array.astype(np.int64) > 1).any()
        )
    if changed:
        raise InputError(
            "INPUT_VALUE",
            f"{source}: input '{spec.name}' holds values that {spec.dtype} cannot hold",
            hint=problem.hint,
        )
    return converted


def _shaped(array: np.ndarray, spec: TensorSpec, source: str, symbols: dict[str, tuple[int, str]]) -> np.ndarray:
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(
            "INPUT_NAN",
            f"{source}: input '{spec.name}' holds {int(np.isnan(array).sum())} NaN",
            hint="MNN turns NaN into plausible numbers on its way, so nothing could be said about the outputs.",
        )
    if spec.shape is None:
        return array
    if spec.shape == () and array.shape == (1,):
        array = array.reshape(())
    ok = len(array.shape) == len(spec.shape) and all(
        want is None or have == want for have, want in zip(array.shape, spec.shape, strict=True)
    )
    wanted = shape_text(spec)
    if not ok:
        raise InputError(
            "INPUT_SHAPE",
            f"{source}: input '{spec.name}' has shape {list(array.shape)}, the model takes {wanted}",
        )
    # A past that is empty is how streaming starts; a batch of nothing is a mistake.
    if 0 in array.shape[:1] or any(
        size == 0 for size, want in zip(array.shape, spec.shape, strict=True) if want is not None
    ):
        raise InputError("INPUT_SHAPE", f"{source}: input '{spec.name}' is empty: {list(array.shape)}")
    for size, symbol in zip(array.shape, spec.dims or (), strict=False):
        if symbol is None:
            continue
        before, where = symbols.setdefault(symbol, (size, spec.name))
        if before != size:
            raise InputError(
                "INPUT_SHAPE",
                f"{source}: '{symbol}' is {before} in input '{where}' and {size} in '{spec.name}'; it is one size",
            )
    return array


def shape_text(spec: TensorSpec) -> str:
    """A shape for people: ``[1, 3, height, ?]``."""
    if spec.shape is None:
        return "any shape"
    names = spec.dims or (None,) * len(spec.shape)
    return "[" + ", ".join(str(size or name or "?") for size, name in zip(spec.shape, names, strict=True)) + "]"
