"""What is kept of a tensor's values over any number of samples: exact ends, a histogram, and moving averages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BINS = 4096
"""Bins on each side of zero.  A power of two, so that growing merges whole bins."""
_PART = 1 << 20
"""Values looked at in one go: bounds the memory for any tensor size."""
_LEAST_EXPONENT, _MOST_EXPONENT = -149, 128
"""Exponents of the smallest and the largest float32, as `math.frexp` counts them."""


class NotFiniteError(ValueError):
    """Values that no range can hold.  `nans` and `infs` count them."""

    def __init__(self, nans: int, infs: int) -> None:
        super().__init__(f"{nans} NaN, {infs} Inf")
        self.nans = nans
        self.infs = infs


class Histogram:
    """Streaming histogram of one tensor, in memory that does not grow (64 KiB).

    The bins cover [-2**exponent, 2**exponent) in `2 * BINS` equal parts.  A value outside doubles the range as often
    as needed and merges neighbours.  Widths are powers of two and edges multiples of them, so a value lands in the same
    bin whether it came before the growth or after: the histogram does not depend on the order of the samples.

    Exact zeros are counted apart: after a ReLU they are most of a tensor, and no scale makes an error on them.

    Attributes:
        counts: int64 [2 * BINS]; bin i holds values in [(i - BINS) * width, (i - BINS + 1) * width).
        exponent: None until something other than zero was seen.
        count: all values; zeros: those that were exactly 0.
        low, high: smallest and largest value of all.
        samples: calls of `add` with at least one value.
        ema_low, ema_high: moving averages over the samples of their smallest and largest value, starting with the
            first sample's: ema = decay * ema + (1 - decay) * new.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.counts = np.zeros(2 * BINS, np.int64)
        self.exponent: int | None = None
        self.count = self.zeros = self.samples = 0
        self.low = self.high = self.ema_low = self.ema_high = 0.0
        self.decay = decay

    @property
    def width(self) -> float:
        """Width of a bin; 0 while there are none."""
        return 0.0 if self.exponent is None else math.ldexp(1.0 / BINS, self.exponent)

    def add(self, values: np.ndarray) -> None:
        """Take in one sample's values, float of any shape.  Raises NotFiniteError, and then takes in none of them."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())  # NaN and Inf come through both
        if not (math.isfinite(low) and math.isfinite(high)):
            raise NotFiniteError(int(np.isnan(flat).sum()), int(np.isinf(flat).sum()))
        if low or high:
            self._grow(max(-low, high))
        for start in range(0, flat.size, _PART):
            self._count(flat[start : start + _PART])
        if self.samples:
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.ema_low += (1 - self.decay) * (low - self.ema_low)
            self.ema_high += (1 - self.decay) * (high - self.ema_high)
        else:
            self.low, self.high, self.ema_low, self.ema_high = low, high, low, high
        self.samples += 1
        self.count += flat.size

    def _grow(self, largest: float) -> None:
        needed = max(math.frexp(largest)[1], _LEAST_EXPONENT)
        if self.exponent is None:
            self.exponent = needed
        elif needed > self.exponent:
            target = (np.arange(-BINS, BINS) >> min(needed - self.exponent, 62)) + BINS
            grown = np.zeros_like(self.counts)
            np.add.at(grown, target, self.counts)
            self.counts, self.exponent = grown, needed

    def _count(self, part: np.ndarray) -> None:
        other = part[part != 0].astype(np.float64)
        self.zeros += part.size - other.size
        if other.size and self.exponent is not None:
            bins = np.floor(np.ldexp(other, -self.exponent) * BINS).astype(np.int64) + BINS
            self.counts += np.bincount(bins, minlength=2 * BINS)

    def magnitudes(self) -> np.ndarray:
        """Counts of |value|, zeros left out: float64 [BINS], bin i holds [i * width, (i + 1) * width]."""
        return (self.counts[BINS:] + self.counts[BINS - 1 :: -1]).astype(np.float64)


def pack(histograms: Sequence[Histogram]) -> dict[str, np.ndarray]:
    """Histograms as plain arrays, for a file without pickles."""
    return {
        "counts": np.stack([each.counts for each in histograms]) if histograms else np.zeros((0, 2 * BINS), np.int64),
        "whole": np.array(
            [
                (_LEAST_EXPONENT - 1 if each.exponent is None else each.exponent, each.count, each.zeros, each.samples)
                for each in histograms
            ],
            np.int64,
        ).reshape(-1, 4),
        "real": np.array(
            [(each.low, each.high, each.ema_low, each.ema_high, each.decay) for each in histograms], np.float64
        ).reshape(-1, 5),
    }


def unpack(arrays: dict[str, np.ndarray], number: int) -> list[Histogram]:
    """The histograms of `pack`.  Raises ValueError where they are not `number` sound ones."""
    try:
        counts, whole, real = arrays["counts"], arrays["whole"], arrays["real"]
    except KeyError as error:
        raise ValueError(f"no array {error}") from None
    shapes = (counts.shape, whole.shape, real.shape)
    kinds = [str(array.dtype) for array in (counts, whole, real)]
    if shapes != ((number, 2 * BINS), (number, 4), (number, 5)) or kinds != ["int64", "int64", "float64"]:
        raise ValueError(f"arrays of shapes {shapes} and types {kinds}")
    found = []
    for bins, (exponent, count, zeros, samples), reals in zip(counts, whole.tolist(), real.tolist(), strict=True):
        each = Histogram(reals[4])
        each.counts, each.count, each.zeros, each.samples = bins.copy(), count, zeros, samples
        each.exponent = None if exponent < _LEAST_EXPONENT else exponent
        each.low, each.high, each.ema_low, each.ema_high = reals[:4]
        if (
            not all(map(math.isfinite, reals))
            or exponent > _MOST_EXPONENT
            or min(count, zeros, samples, int(bins.min())) < 0
            or int(bins.sum()) + zeros != count
            or not each.low <= each.high
        ):
            raise ValueError("a histogram contradicts itself")
        found.append(each)
    return found
