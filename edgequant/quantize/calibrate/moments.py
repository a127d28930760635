"""What a quantizer does to a whole histogram, without looping over values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgequant.quantize.calibrate.histogram import BINS, Histogram


class Levels(NamedTuple):
    """What falls on each level of a quantizer: float64 arrays of one length.

    q: the levels less the zero point.  mass: how many values become it.  moment: their sum.
    """

    q: np.ndarray
    mass: np.ndarray
    moment: np.ndarray


class Moments:
    """A histogram as a density that is even inside each bin, with exact zeros as a lump of their own.

    Sums over it change smoothly with the scale; over the middles of the bins they would jump, and an alternating
    method would get stuck on the jumps.
    """

    def __init__(self, histogram: Histogram) -> None:
        edges = np.arange(-BINS, BINS + 1) * histogram.width
        self._edges = np.clip(edges, histogram.low, histogram.high)
        counts = histogram.counts.astype(np.float64)
        widths = np.diff(self._edges)
        middles = self._edges[:-1] + widths / 2
        self._widths = np.where(widths > 0, widths, 1.0)
        self._counts = counts
        self._mass = np.concatenate([[0.0], np.cumsum(counts)])
        self._moment = np.concatenate([[0.0], np.cumsum(counts * middles)])
        self.zeros = float(histogram.zeros)
        self.square = float(np.sum(counts * (middles**2 + widths**2 / 12)))
        """Sum of the squares of all values."""

    def levels(self, scale: float, zero_point: int, clamp_min: int, clamp_max: int) -> Levels:
        """What falls on each level of q = clamp(round(x / scale) + zero_point, clamp_min, clamp_max)."""
        q = np.arange(clamp_min - zero_point, clamp_max - zero_point + 1, dtype=np.float64)
        points = (q[:-1] + 0.5) * scale
        number = np.clip(np.searchsorted(self._edges, points, side="right") - 1, 0, 2 * BINS - 1)
        start = self._edges[number]
        share = np.clip((points - start) / self._widths[number], 0.0, 1.0)
        inside = share * self._counts[number]
        mass = self._mass[number] + inside
        moment = self._moment[number] + inside * (start + share * self._widths[number] / 2)
        mass = np.diff(mass, prepend=0.0, append=self._mass[-1])
        moment = np.diff(moment, prepend=0.0, append=self._moment[-1])
        mass[-(clamp_min - zero_point)] += self.zeros
        return Levels(q, mass, moment)

    def error(self, scale: float, zero_point: int, clamp_min: int, clamp_max: int) -> float:
        """Sum of (x - x')^2 over all values, clipping included."""
        q, mass, moment = self.levels(scale, zero_point, clamp_min, clamp_max)
        return self.square - 2 * scale * float(q @ moment) + scale**2 * float(q**2 @ mass)
