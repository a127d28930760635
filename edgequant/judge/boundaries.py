"""What an operator made of inputs at its limits, against its definition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["nan_swallowed", "nan_made", "not_infinite", "infinite", "off"]
ORDINARY = 10.0
"""Magnitudes up to it count for the worst error."""
FINE, COARSE = (1e-3, 1e-5), (1e-2, 1e-3)
"""Relative and absolute error beyond which an answer is wrong; the latter with precision low."""


@dataclass(frozen=True)
class Wrong:
    """An input, what its answer should be, and what it was."""

    label: str
    kind: Kind
    expected: float
    got: float


@dataclass(frozen=True)
class Behaviour:
    """Of one operator as it ran in one way.

    Attributes:
        worst: largest error at ordinary inputs, of the value (or, for what is smaller than 1, in all), and at which.
        low, high: it is right for all finite inputs that were tried from `low` to `high`; None where not even for 1.
        wrong: every answer that is not what it should be.
    """

    worst: float
    worst_at: str
    low: float | None
    high: float | None
    wrong: tuple[Wrong, ...]

    @property
    def swallows_nan(self) -> bool:
        return any(each.kind == "nan_swallowed" for each in self.wrong)

    def at(self, label: str) -> Wrong | None:
        return next((each for each in self.wrong if each.label == label), None)


def behaviour(
    labels: Sequence[str],
    inputs: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
    got: npt.NDArray[np.float32],
    *,
    halves: npt.NDArray[np.float64] | None = None,
) -> Behaviour:
    """Hold answers against what they should be.

    Args:
        labels: of each row.
        inputs, expected, known, got: all [rows, columns].
        halves: where it ran with precision low: what is as right, as the inputs may have been rounded to fp16.
    """
    wrong: list[Wrong] = []
    right: dict[float, bool] = {}
    worst, worst_at = 0.0, ""
    for row, label in enumerate(labels):
        found = _row(label, expected[row], known[row], got[row], FINE if halves is None else COARSE)
        if found and halves is not None and not _row(label, halves[row], known[row], got[row], COARSE):
            found = []
        wrong += found
        sizes = np.abs(inputs[row])
        if np.isfinite(sizes).all():
            value = float(inputs[row, 0])
            right[value] = right.get(value, True) and not found
            if sizes.max() <= ORDINARY and not found:
                error = float((_error(expected[row], got[row]) * known[row]).max())
                if error > worst:
                    worst, worst_at = error, label
    return Behaviour(worst, worst_at, *_span(right), tuple(wrong))


def _span(right: dict[float, bool]) -> tuple[float | None, float | None]:
    """From where to where all are right, around 1."""
    ordered = sorted(right)
    if not right.get(1.0):
        return None, None
    middle = low = high = ordered.index(1.0)
    while low > 0 and right[ordered[low - 1]]:
        low -= 1
    high = middle
    while high + 1 < len(ordered) and right[ordered[high + 1]]:
        high += 1
    return ordered[low], ordered[high]


def _error(expected: npt.NDArray[np.float64], got: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):
        found: npt.NDArray[np.float64] = np.abs(got - expected) / np.maximum(np.abs(expected), 1.0)
    return np.nan_to_num(found, nan=0.0, posinf=0.0)


def _row(
    label: str,
    expected: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
    got: npt.NDArray[np.float32],
    tolerance: tuple[float, float],
) -> list[Wrong]:
    """The worst of what is wrong in a row, at most one of it."""
    for e64, g32 in zip(expected[known], got[known], strict=True):
        with np.errstate(over="ignore"):
            e, g = float(np.float32(e64)), float(g32)
        kind = _kind(e, g, tolerance)
        if kind is not None:
            return [Wrong(label, kind, e, g)]
    return []


def _kind(expected: float, got: float, tolerance: tuple[float, float]) -> Kind | None:
    if math.isnan(expected):
        return None if math.isnan(got) else "nan_swallowed"
    if math.isnan(got):
        return "nan_made"
    if math.isinf(expected):
        return None if got == expected else "not_infinite"
    if math.isinf(got):
        return "infinite"
    relative, absolute = tolerance
    return None if abs(got - expected) <= relative * abs(expected) + absolute else "off"
