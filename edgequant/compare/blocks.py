"""Statistics of timings in blocks, each from a process of its own.

Most of what differs from one run to the next differs between processes (where memory lies, how threads fall on cores),
so that ten thousand samples of one process say little of the next.  Every interval here is of the blocks' own values:
Student's t over one value per block, which holds both kinds of noise.  Ratios are of blocks that were taken beside each
other, in logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median, stdev

NEEDED = {"p90": 10, "p99": 100}
"""Samples a block needs for a percentile of its own, so that one of them is expected to lie beyond it."""
TRIMMED = 0.1
_MAD = 1.4826
"""The median absolute deviation times this is the standard deviation of a normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval, in the unit of the samples; low and high are None with fewer than two blocks."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """Half of the interval's width as a share of the value; None where there is none."""
        if self.low is None or self.high is None or self.value <= 0:
            return None
        return (self.high - self.low) / 2 / self.value


@dataclass(frozen=True)
class Ratio:
    """How much longer the second takes than the first: 1.03 is 3 % longer; None without an interval as in Estimate."""

    value: float
    low: float | None = None
    high: float | None = None


def estimates(blocks: Sequence[Sequence[float]], level: float = 0.95) -> dict[str, Estimate]:
    """p50, mean, trimmed (mean without the lowest and highest tenth), p90 and p99 where every block has enough samples.

    Each is the mean of what the blocks have, with its interval at `level`.  blocks: positive samples, none empty.
    """
    smallest = min(map(len, blocks))
    wanted: dict[str, Callable[[Sequence[float]], float]] = {"p50": median, "mean": fmean, "trimmed": _trimmed}
    for name, needed in NEEDED.items():
        if smallest >= needed:
            wanted[name] = lambda ordered, share=int(name[1:]) / 100: percentile(ordered, share)  # type: ignore[misc]
    ordered = [sorted(block) for block in blocks]
    return {name: of_blocks([each(block) for block in ordered], level) for name, each in wanted.items()}


def spreads(blocks: Sequence[Sequence[float]]) -> dict[str, float]:
    """Of all samples together: n, min, max, stdev, mad (median absolute deviation, scaled to be stdev of a normal
    distribution), cv (stdev over mean)."""
    samples = [sample for block in blocks for sample in block]
    middle, mean = median(samples), fmean(samples)
    deviation = stdev(samples) if len(samples) > 1 else 0.0
    return {
        "n": float(len(samples)),
        "min": min(samples),
        "max": max(samples),
        "stdev": deviation,
        "mad": _MAD * median(abs(sample - middle) for sample in samples),
        "cv": deviation / mean if mean > 0 else 0.0,
    }


def of_blocks(values: Sequence[float], level: float) -> Estimate:
    """The mean of one value per block, with Student's t interval (Student 1908) at `level`."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean)
    half = student(level, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], level: float) -> Ratio:
    """Of the medians of blocks that were taken in pairs.  level: of the interval, with what several comparisons cost
    taken off already (`corrected`)."""
    logs = [math.log(median(b) / median(a)) for a, b in zip(first, second, strict=True)]
    found = of_blocks(logs, level)
    if found.low is None or found.high is None:
        return Ratio(math.exp(found.value))
    return Ratio(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def of_two_sessions(first: Sequence[float], second: Sequence[float], level: float) -> Ratio:
    """How much longer the second takes, by the medians of blocks that were not taken beside each other: Welch's
    interval (Welch 1947) of the difference of the means of their logarithms; degrees of freedom after Satterthwaite,
    rounded down.  No interval with fewer than two blocks on a side."""
    one, two = ([math.log(each) for each in blocks] for blocks in (first, second))
    value = fmean(two) - fmean(one)
    if len(one) < 2 or len(two) < 2:
        return Ratio(math.exp(value))
    parts = [(stdev(each) ** 2 / len(each), len(each) - 1) for each in (one, two)]
    whole = sum(part for part, _ in parts)
    if whole <= 0:
        return Ratio(math.exp(value), math.exp(value), math.exp(value))
    freedom = whole**2 / sum(part**2 / free for part, free in parts)
    half = student(level, max(int(freedom), 1)) * math.sqrt(whole)
    return Ratio(math.exp(value), math.exp(value - half), math.exp(value + half))


def trend(blocks: Sequence[float], level: float) -> Ratio:
    """How much longer the last takes than the first by the line through all of them, in logarithms and in the order in
    which they were taken: least squares, with Student's t interval of the slope.  No interval with fewer than three."""
    logs = [math.log(each) for each in blocks]
    whole, middle = len(logs) - 1, (len(logs) - 1) / 2
    around = sum((at - middle) ** 2 for at in range(len(logs)))
    slope = sum((at - middle) * each for at, each in enumerate(logs)) / around if around else 0.0
    if len(logs) < 3:
        return Ratio(math.exp(slope * whole))
    mean = fmean(logs)
    left = sum((each - mean - slope * (at - middle)) ** 2 for at, each in enumerate(logs))
    half = student(level, len(logs) - 2) * math.sqrt(left / (len(logs) - 2) / around)
    return Ratio(*(math.exp(each * whole) for each in (slope, slope - half, slope + half)))


def corrected(level: float, comparisons: int) -> float:
    """The level of each interval at which all of them hold together (Bonferroni)."""
    return 1 - (1 - level) / max(comparisons, 1)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the order statistics (Hyndman & Fan 1996, type 7) of an ascending sample."""
    place = (len(ordered) - 1) * share
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _trimmed(ordered: Sequence[float]) -> float:
    off = int(len(ordered) * TRIMMED)
    return fmean(ordered[off : len(ordered) - off])


@cache
def student(level: float, freedom: int) -> float:
    """The two-sided quantile of Student's t: with probability `level`, |t| is below it."""
    low, high = 0.0, 1.0
    while _inside(high, freedom) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _inside(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return high


def _inside(t: float, freedom: int) -> float:
    """P(|T| <= t): Abramowitz & Stegun 26.7.3 and 26.7.4, exact for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    total, term = 0.0, 1.0 if freedom % 2 == 0 else cosine
    for step in range(freedom // 2):
        total += term
        even = 2 * step + (1 if freedom % 2 == 0 else 2)
        term *= cosine * cosine * even / (even + 1)
    if freedom % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * total)
