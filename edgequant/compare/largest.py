"""The largest of a stream of numbers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_ENOUGH = 1 << 18
"""Numbers that may wait before the largest are picked out of them."""


class Largest:
    """Keeps the `count` largest of a stream: an exact high percentile without keeping or sorting everything."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: _Floats = np.empty(0)
        self._waiting: list[_Floats] = []
        self._size = 0
        self._floor = -math.inf

    def add(self, values: _Floats) -> None:
        values = values[values > self._floor]
        self._waiting.append(values)
        self._size += values.size
        if self._size > max(self._count, _ENOUGH):
            self._settle()

    def _settle(self) -> None:
        kept = np.concatenate([self._kept, *self._waiting])
        self._waiting, self._size = [], 0
        if kept.size > 16 * self._count:
            # np.partition is slow, above all where many values are equal (0.1 s per million zeros).  What is below
            # the top of a sample cannot be among the largest if enough is above it.
            sample = kept[::32]
            wanted = min(sample.size, 2 * sample.size * self._count // kept.size + 1)
            above = kept[kept >= np.sort(sample)[-wanted]]
            if above.size >= self._count:
                kept = above
        if kept.size > self._count:
            kept = np.partition(kept, kept.size - self._count)[-self._count :]
        if kept.size == self._count:
            self._floor = float(kept.min())
        self._kept = kept

    def at(self, position: float, total: int) -> float:
        """The value at a fractional place in the sorted stream of `total` values (type 7)."""
        self._settle()
        ordered = np.sort(self._kept)
        offset = total - ordered.size
        below = math.floor(position)
        low = float(ordered[below - offset])
        high = float(ordered[min(below + 1, total - 1) - offset])
        return low + (high - low) * (position - below)
