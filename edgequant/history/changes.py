"""Where a series of numbers changes its level: a rank test for one change, with its error rate by permutation.

For each place that leaves at least LEAST values on both sides, the difference of the two sides' mean ranks is divided
by what it would vary by chance (the standardised Mann-Whitney statistic); the largest of them is held against the
largest of ROUNDS series in which the same values stand in random order.  Where at most LEVEL of those are as large,
there is a change at that place, and both sides are looked at in the same way (binary segmentation).

Ranks, so that one wild value is one value; permutations, so that the rate of false alarms of a series without any
change is LEVEL, whatever its distribution and however many values are equal, as long as their order says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

LEVEL = 0.01
"""False alarms, of series without a change."""
ROUNDS = 1999
LEAST = 3
"""Values on each side of a change."""
MOST = 500
"""Of a longer series the last ones are looked at: the test takes time with its length."""
_AT_ONCE = 250


@dataclass(frozen=True)
class ChangePoint:
    """place: of the first value behind it.  before, after: medians of the levels beside it.  p: of the test."""

    place: int
    before: float
    after: float
    p: float


def change_points(values: Sequence[float], level: float = LEVEL, rounds: int = ROUNDS) -> list[ChangePoint]:
    """In order.  The same values give the same ones: what is drawn is drawn from a fixed seed."""
    skipped = max(0, len(values) - MOST)
    ordered = np.asarray(values[skipped:], dtype=np.float64)
    places = sorted(_segments(ordered, 0, level, rounds, np.random.default_rng(0)))
    edges = [0, *(place for place, _ in places), len(ordered)]
    levels = [median(ordered[low:high].tolist()) for low, high in pairwise(edges) if high > low]
    return [
        ChangePoint(place + skipped, levels[number], levels[number + 1], p) for number, (place, p) in enumerate(places)
    ]


def _segments(
    values: np.ndarray, start: int, level: float, rounds: int, rng: np.random.Generator
) -> list[tuple[int, float]]:
    if len(values) < 2 * LEAST:
        return []
    ranks = _ranks(values)
    strength = _strengths(ranks[None, :])[0]
    place = int(np.argmax(strength))
    largest = float(strength[place])
    if largest <= 0:
        return []
    as_large = 1
    for done in range(0, rounds, _AT_ONCE):
        count = min(_AT_ONCE, rounds - done)
        drawn = rng.permuted(np.broadcast_to(ranks, (count, len(ranks))), axis=1)
        # The same sums in another order may differ in their last bits.
        as_large += int(np.count_nonzero(_strengths(drawn).max(axis=1) >= largest * (1 - 1e-9)))
    p = as_large / (rounds + 1)
    if p > level:
        return []
    split = place + LEAST
    return [
        *_segments(values[:split], start, level, rounds, rng),
        (start + split, p),
        *_segments(values[split:], start + split, level, rounds, rng),
    ]


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1, equal values with their mean, less the mean of all."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse] - (len(values) + 1) / 2


def _strengths(ranks: np.ndarray) -> np.ndarray:
    """Of each row the standardised statistic, up to a factor of the row's own, at each place."""
    count = ranks.shape[1]
    left = np.arange(LEAST, count - LEAST + 1)
    sums = np.cumsum(ranks, axis=1)[:, left - 1]
    found: np.ndarray = np.abs(sums) / np.sqrt(left * (count - left))
    return found
