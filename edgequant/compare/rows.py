"""Rows that may stand in another order, or be one more or less: matched before they are compared.

A list that is sorted by a score changes its order where two scores are nearly equal, and its end where one is near the
threshold.  Neither is an error of the size that a comparison place by place makes of it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

NEAR = 0.25
"""Rows match where no element is farther off than this share of its column's largest value."""
_MOST_ROWS = 2048


@dataclass(frozen=True)
class Matched:
    """Two arrays with their rows in the same order.

    Attributes:
        expected, got: the rows that are in both, shape (rows, elements of one).
        rows: how many there are in the reference, and in the other.
        moved: matched rows that do not stand in the order of the reference: all but the longest run that does.
    """

    expected: np.ndarray
    got: np.ndarray
    rows: tuple[int, int]
    moved: int

    @property
    def share(self) -> float:
        """Matched rows among all there are in either, 0..1 (the Jaccard index)."""
        both = self.expected.shape[0]
        return float(both / max(sum(self.rows) - both, 1))


def match_rows(expected: np.ndarray, got: np.ndarray, *, last: bool = False) -> Matched | None:
    """Match the rows of a list; None where the arrays cannot be lists of the same kind.

    Its axis is the one whose size differs; else the last but one, or the last where that has but one element.  Rows are
    matched one to one, the nearest first, in the order of the reference.

    Args:
        last: rows go along the last axis, as those of ONNX's NonZero do.
    """
    if expected.ndim != got.ndim or not expected.ndim or expected.dtype.kind != got.dtype.kind:
        return None
    differing = [axis for axis, size in enumerate(expected.shape) if size != got.shape[axis]]
    if len(differing) > 1:
        return None
    inner = expected.ndim == 1 or last or expected.shape[-2] == 1
    axis = differing[0] if differing else expected.ndim - (1 if inner else 2)
    if not 2 <= max(expected.shape[axis], got.shape[axis]) <= _MOST_ROWS:
        return None
    return _along(expected, got, axis)


def _along(expected: np.ndarray, got: np.ndarray, axis: int) -> Matched:
    wide = math.prod(size for place, size in enumerate(expected.shape) if place != axis)
    r = np.moveaxis(expected, axis, 0).reshape(expected.shape[axis], wide)
    g = np.moveaxis(got, axis, 0).reshape(got.shape[axis], wide)
    number = np.float64 if expected.dtype.kind == "f" else np.int64
    scale = np.abs(r.astype(np.float64)).max(axis=0) if r.size else np.zeros(r.shape[1])
    free = np.ones(len(g), bool)
    pairs: list[tuple[int, int]] = []
    unit = np.where(scale > 0, NEAR * scale, 1.0)
    limit = 1.0 if expected.dtype.kind == "f" else 0.0
    for place, row in enumerate(r.astype(number)):
        with np.errstate(invalid="ignore"):
            off = np.abs(g.astype(number) - row) / unit
        worst = np.where(free & np.isfinite(off).all(axis=1), off.max(axis=1, initial=0.0), np.inf)
        if not worst.size:
            break
        # Of equally near ones, the one in the same place.
        nearest = int(worst.argmin())
        if place < len(worst) and worst[place] <= worst[nearest]:
            nearest = place
        if worst[nearest] <= limit:
            free[nearest] = False
            pairs.append((place, nearest))
    left, right = [p for p, _ in pairs], [q for _, q in pairs]
    return Matched(r[left], g[right], (len(r), len(g)), len(right) - _in_order(right))


def _in_order(places: list[int]) -> int:
    """Length of the longest increasing subsequence (Fredman 1975)."""
    ends: list[int] = []
    for place in places:
        at = bisect_left(ends, place)
        ends[at : at + 1] = [place]
    return len(ends)
