"""Calibrators: from a histogram to a scale and a zero point.  Pure functions.

A value x is stored as q = clamp(round(x / scale) + zero_point, clamp_min, clamp_max) and read as
(q - zero_point) * scale (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 2.1).  Symmetric: zero point 0, q in [-127, 127], scale = T / 127 where T
is the largest magnitude kept.  Asymmetric: q in [-128, 127], scale = (hi - lo) / 255, and the range always holds 0, so
that padding and ReLU's zero are exact.

Each calibrator chooses the range; `calibrate` calls one by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np

from edgequant.quantize.calibrate.histogram import BINS, Histogram
from edgequant.quantize.calibrate.moments import Levels, Moments

Calib = Literal["minmax", "ema", "percentile", "kl", "mse", "admm"]
CALIBRATORS: tuple[str, ...] = get_args(Calib)
LEVELS = 128
"""Levels the magnitudes of a symmetric int8 tensor have, zero included."""
_LEAST_SCALE = 1e-12
"""MNN takes a scale of 0 for "none", and what follows from a denormal one overflows."""
_ADMM_STEPS = 300
_SMOOTH = 1e-4
_GRID, _GRID_2D = 200, 24


class Quantizer(NamedTuple):
    """How one tensor is stored as int8; see the module's formula."""

    scale: float
    zero_point: int
    clamp_min: int
    clamp_max: int

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """Integers as float64.  Halves round away from zero, as MNN's kernels do."""
        scaled = np.asarray(values, np.float64) / self.scale
        rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
        clamped: np.ndarray = np.clip(rounded + self.zero_point, self.clamp_min, self.clamp_max)
        return clamped

    def restored(self, values: np.ndarray) -> np.ndarray:
        """What is left of values that went through int8: float64."""
        return (self.quantized(values) - self.zero_point) * self.scale


def symmetric(threshold: float) -> Quantizer:
    """Values of magnitude up to `threshold` kept.  A tensor that is always 0 gets a range of 1."""
    scale = threshold / 127 if threshold > 0 else 1 / 127
    return Quantizer(_float32(scale), 0, -127, 127)


def asymmetric(low: float, high: float) -> Quantizer:
    """Values from `low` to `high` kept; the range is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return symmetric(0.0)
    scale = _float32((high - low) / 255)
    zero = math.floor(-128 - low / scale + 0.5)
    return Quantizer(scale, min(max(zero, -128), 127), -128, 127)


def _float32(scale: float) -> float:
    return float(np.float32(max(scale, _LEAST_SCALE)))


def from_range(low: float, high: float, sym: bool) -> Quantizer:
    return symmetric(max(-low, high)) if sym else asymmetric(low, high)


def minmax(histogram: Histogram, sym: bool) -> Quantizer:
    """The whole range seen: nothing is clipped, one outlier widens every step (Jacob et al. 2018, section 3)."""
    return from_range(histogram.low, histogram.high, sym)


def ema(histogram: Histogram, sym: bool) -> Quantizer:
    """The moving average of the samples' own ranges, ema = d * ema + (1 - d) * new, started with the first sample.

    Source: Jacob et al. 2018, section 3.1.  d is the histogram's `decay`.
    """
    return from_range(histogram.ema_low, histogram.ema_high, sym)


def percentile(histogram: Histogram, sym: bool, percent: float = 99.99) -> Quantizer:
    """The range that holds `percent` of all values, zeros included.

    Symmetric: T with P(|x| <= T) = percent.  Asymmetric: half of the rest is clipped at each end.  Values are taken
    as spread evenly in their bin.  Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference:
    Principles and Empirical Evaluation", section 4.
    """
    if histogram.exponent is None:
        return from_range(0.0, 0.0, sym)
    wanted = percent / 100
    if sym:
        edges = np.arange(BINS + 1) * histogram.width
        threshold = _quantile(histogram.magnitudes(), edges, histogram.zeros, wanted)
        return symmetric(min(threshold, max(-histogram.low, histogram.high)))
    edges = np.arange(-BINS, BINS + 1) * histogram.width
    counts = histogram.counts.astype(np.float64)
    tail = (1 - wanted) / 2
    low = _quantile(counts, edges, histogram.zeros, tail)
    high = _quantile(counts, edges, histogram.zeros, 1 - tail)
    return asymmetric(max(low, histogram.low), min(high, histogram.high))


def _quantile(counts: np.ndarray, edges: np.ndarray, zeros: int, share: float) -> float:
    """The value below which `share` of the mass lies; `zeros` lie at exactly 0."""
    total = counts.sum() + zeros
    below = np.concatenate([[0.0], np.cumsum(counts)])
    at_zero = int(np.flatnonzero(edges == 0)[0])
    target = share * total
    if target <= below[at_zero]:
        return float(np.interp(target, below, edges))
    if target <= below[at_zero] + zeros:
        return 0.0
    return float(np.interp(target - zeros, below, edges))


def kl(histogram: Histogram, sym: bool) -> Quantizer:
    """The threshold whose 128 levels lose the least information: min over T of KL(P || Q).

    For each number i of bins kept (at least 128, at most 2048 of them in use): P is the distribution of |x| with all
    beyond bin i added to its last bin; Q is that of the kept bins put into 128 levels and spread again over those of
    their bins that are not empty.  T is the middle of the bin behind the kept ones: (i + 0.5) * width, at most the
    largest magnitude.  Bin j belongs to level floor(j * 128 / i).  Source: Migacz 2017, "8-bit Inference with
    TensorRT", GTC.  Where the last kept bin is empty, P has the outliers there and Q has nothing, which would make
    the divergence infinite however few they are: Q then counts as having 1e-4 of a value there (MXNet's calibrator
    smooths by the same amount).

    Exact zeros are left out (every T keeps them).  With fewer values than 2048 the histogram says nothing: the whole
    range is kept.  Asymmetric: the range is clipped to [-T, T].
    """
    counts = histogram.magnitudes()
    largest = max(-histogram.low, histogram.high)
    threshold = largest
    if histogram.exponent is not None and histogram.count - histogram.zeros >= 2048:
        merged = counts.reshape(-1, 2).sum(axis=1)
        kept = int(np.flatnonzero(merged)[-1]) + 1
        best = best_kl(merged[:kept])
        if best < kept:
            threshold = min((best + 0.5) * 2 * histogram.width, largest)
    return from_range(max(histogram.low, -threshold), min(histogram.high, threshold), sym)


def best_kl(counts: np.ndarray) -> int:
    """How many of the bins to keep, by the divergence described at `kl`; all of them where there are 128 or fewer.

    counts: float64 [n], the last one not 0.
    """
    size = len(counts)
    if size <= LEVELS:
        return size
    filled = counts > 0
    beyond = np.concatenate([np.cumsum(counts[::-1])[::-1], [0.0]])
    total = counts.sum()
    best, least = int(size), math.inf
    for kept in range(LEVELS, size + 1):
        starts = -(-np.arange(LEVELS) * kept // LEVELS)  # ceil: the first bin of each level
        inside = counts[:kept]
        mass = np.add.reduceat(inside, starts)
        parts = np.add.reduceat(filled[:kept], starts, dtype=np.int64)
        each = np.divide(mass, parts, out=np.zeros(LEVELS), where=parts > 0)
        spread = np.repeat(each, np.diff(np.append(starts, kept)))
        p, q = inside.copy(), np.where(filled[:kept], spread, 0.0)
        p[-1] += beyond[kept]
        if p[-1] and not q[-1]:
            q[-1] = _SMOOTH
        used = q > 0
        p, q = p[used] / total, q[used] / q.sum()
        divergence = float(np.sum(p * np.log(p / q)))
        if divergence < least:
            best, least = kept, divergence
    return best


def mse(histogram: Histogram, sym: bool) -> Quantizer:
    """The range with the least expected squared error, clipping included: min over the range of E[(x - x')^2].

    A grid search.  Symmetric: T = i / 200 of the largest magnitude, i = 1 to 200.  Asymmetric: each end by itself,
    i / 24 of it.  Source: the L2 objective of Sung, Shin and Hwang 2015, "Resiliency of Deep Neural Networks under
    Quantization", as in Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1.
    """
    if histogram.exponent is None:
        return from_range(0.0, 0.0, sym)
    if sym:
        largest = max(-histogram.low, histogram.high)
        tried = [symmetric(largest * step / _GRID) for step in range(1, _GRID + 1)]
    else:
        lows = [histogram.low * step / _GRID_2D for step in range(1, _GRID_2D + 1)] if histogram.low < 0 else [0.0]
        highs = [histogram.high * step / _GRID_2D for step in range(1, _GRID_2D + 1)] if histogram.high > 0 else [0.0]
        tried = [asymmetric(low, high) for low in lows for high in highs]
    moments = Moments(histogram)
    errors = [moments.error(*each) for each in tried]
    return tried[int(np.argmin(errors))]


def admm(histogram: Histogram, sym: bool) -> Quantizer:
    """The scale by alternating projections: q = clamp(round(x / s)), then s = sum(q x) / sum(q^2), until it stays.

    Source: Leng et al. 2018, "Extremely Low Bit Neural Network: Squeeze the Last Bit Out with ADMM", section 3.3; MNN
    does the same, from s = max|x| / (127 * 2.5).  A local optimum of the squared error: for heavy tails it clips more
    than a grid search would.  Asymmetric: q = clamp(round(x / s) + z), then z and s by least squares of x on q, z
    rounded; it starts from 1 / 1.25 of the range.  The sums are over the histogram, so any number of samples can be
    used, where MNN holds all of them in memory.
    """
    if histogram.exponent is None:
        return from_range(0.0, 0.0, sym)
    moments = Moments(histogram)
    if sym:
        now = symmetric(max(-histogram.low, histogram.high) / 2.5)
    else:
        now = asymmetric(histogram.low / 1.25, histogram.high / 1.25)
    for _ in range(_ADMM_STEPS):
        levels = moments.levels(*now)
        zero = 0 if sym else _zero_by_regression(levels, now)
        q = levels.q + now.zero_point - zero
        square = float(q**2 @ levels.mass)
        product = float(q @ levels.moment)
        if square <= 0 or product <= 0:
            break
        new = now._replace(scale=_float32(product / square), zero_point=zero)
        if new == now:
            break
        now = new
    return now


def _zero_by_regression(levels: Levels, now: Quantizer) -> int:
    """The zero point where the line x = slope * (q - zero), fitted to all values, crosses 0."""
    q, total = levels.q + now.zero_point, levels.mass.sum()
    mean_q, mean_x = float(q @ levels.mass) / total, float(levels.moment.sum()) / total
    spread = float((q - mean_q) ** 2 @ levels.mass)
    slope = float((q - mean_q) @ levels.moment) / spread if spread > 0 else 0.0
    if slope <= 0:
        return now.zero_point
    zero = math.floor(mean_q - mean_x / float(slope) + 0.5)
    return int(min(max(zero, now.clamp_min), now.clamp_max))


def calibrate(histogram: Histogram, method: Calib, *, sym: bool = True, percent: float = 99.99) -> Quantizer:
    """The quantizer of one tensor by the named method."""
    if method == "percentile":
        return percentile(histogram, sym, percent)
    others: dict[str, Callable[[Histogram, bool], Quantizer]] = {
        "minmax": minmax, "ema": ema, "kl": kl, "mse": mse, "admm": admm,
    }  # fmt: skip
    return others[method](histogram, sym)
