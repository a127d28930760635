"""Signs that are in the whole of an output: a gain, an offset, an error that undoes what `expected` has lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgequant.compare.residual.sample import Floats, Sample, Sign, dot, pieces, power

_ENOUGH = 0.05
"""A part has to vary by at least this much of the median part's (power), for its slope to mean anything."""
_NUMBERS = 10.0
"""So many numbers at least share the power of a case whose gain is looked at."""
_INTERVAL = 6.0
"""Standard errors: Student's t at 0.1 % for five degrees of freedom is 6.9, for ten 4.6."""


def affine(samples: Sequence[Sample]) -> list[Sign]:
    """Gain and offset: error regressed on expected, in each part of each case by itself.

    gain_p = cov(r, e) / var(r), offset_p = mean(e) (least squares: Draper & Smith, Applied Regression Analysis, 1.2).
    The sign is the median over the parts; its strength says how far even the lower quarter of the parts agrees with it,
    quarter(sign * gain_p) / |gain|: 1 where all say the same, below 0 where a quarter says the opposite.  The interval
    is mean +- _INTERVAL standard errors over the parts, whatever the errors within one have in common.
    """
    rows = []
    for expected, error, _ in pieces(samples):
        centred = expected - expected.mean()
        rows.append((power(centred), dot(centred, error), float(error.mean()), power(expected) / expected.size))
    table = np.array(rows)
    rms = math.sqrt(max(float(np.median(table[:, 3])), float(table[:, 3].mean()) * _ENOUGH))
    found = []
    varying = table[:, 0] > _ENOUGH * np.median(table[:, 0])
    if varying.any():
        slopes = table[varying, 1] / np.maximum(table[varying, 0], 1e-300)
        found.append(_agreed("gain", slopes, 1.0, samples))
    if rms > 0:
        found.append(_agreed("offset", table[:, 2], rms, samples))
    return found


def _agreed(kind: str, values: Floats, unit: float, samples: Sequence[Sample]) -> Sign:
    values = values / unit
    middle = float(np.median(values))
    if middle == 0.0:
        return Sign(kind, 0.0, 0.0)
    agreeing = float(np.quantile(values * np.sign(middle), 0.25)) / abs(middle)
    spread = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else abs(middle)
    mean = float(values.mean())
    total, error = sum(s.signal for s in samples), sum(s.noise for s in samples)
    explained = min(1.0, middle * middle * total / error) if error > 0 else 0.0
    where = {
        "value": middle,
        "low": mean - _INTERVAL * spread,
        "high": mean + _INTERVAL * spread,
        "parts": int(values.size),
        "explained": explained,
    }
    return Sign(kind, abs(middle), agreeing, where)


def lone_gain(samples: Sequence[Sample]) -> Sign | None:
    """The case that is too loud or too quiet as a whole, the same in all of its numbers.

    Strength: share of the power of its error, of its whole and of the worst of its parts, that one gain explains:
    cos^2 of the angle between error and expected.  Of errors without direction in n numbers one in a thousand has 0.95
    (n = 5), four in ten million (n = 10).  None where the error that `expected` has itself is a gain, too, or where few
    numbers are nearly all of its power (n = (sum r^2)^2 / sum r^4 below _NUMBERS).  Size: the gain.
    """
    found = []
    for sample in samples:
        signal = sample.signal
        spread = power(sample.expected**2)
        if spread <= 0 or signal**2 < _NUMBERS * spread or sample.noise <= 0:
            continue
        if sample.own is not None and _explained(sample.expected, sample.own) > 0.5:
            continue
        parts = [(expected, error) for expected, error, _ in pieces([sample])]
        value = dot(sample.expected, sample.error) / signal
        least = min(_explained(expected, error) for expected, error in [(sample.expected, sample.error), *parts])
        low = min(abs(dot(expected, error)) / max(power(expected), 1e-300) for expected, error in parts)
        found.append(Sign("lone gain", low, least, {"case": sample.case, "value": value, "parts": len(parts)}))
    return max(found, key=lambda sign: sign.strength * min(sign.size, 0.01), default=None)


def _explained(expected: Floats, error: Floats) -> float:
    """cos^2 of the angle between them."""
    return dot(expected, error) ** 2 / max(power(expected) * power(error), 1e-300)


def undone(samples: Sequence[Sample]) -> list[Sign]:
    """Whether the error undoes the one that `expected` has itself, as it does where `got` was rounded another way:
    other weights, other scales, none at all.

    With expected = base + q and got = base + q', the error is q' - q: its regression on -q is 1 where q' has nothing to
    do with q, whatever its size.  Where q' is q but for single elements that rounded the other way, it is
    |error|^2 / (2 |q|^2): small.
    Size: rms of the error in that of q.  Strength: as in `affine`.
    """
    rows = [(power(own), -dot(own, error), power(error)) for _, error, own in pieces(samples) if own is not None]
    table = np.array(rows)
    if not rows or not (table[:, 0] > 0).any():
        return []
    table = table[table[:, 0] > _ENOUGH * np.median(table[:, 0])]
    slopes = table[:, 1] / np.maximum(table[:, 0], 1e-300)
    middle = float(np.median(slopes))
    ratio = math.sqrt(float(np.median(table[:, 2] / np.maximum(table[:, 0], 1e-300))))
    low = float(np.quantile(slopes, 0.25))
    return [Sign("undone", ratio, low, {"value": middle, "parts": len(slopes)})]


def curve(samples: Sequence[Sample], bins: int = 24) -> list[Sign]:
    """Whether the error is a function of the expected value: Pearson's correlation ratio, eta^2 (Kendall & Stuart,
    The Advanced Theory of Statistics, vol. 2, 26.21), of the error in bins of the expected value.

    A last layer that is too loud in front of a sigmoid, a table with a step that is wrong, a clipped end.  What two
    parts have in common is taken for it: the mean product of two parts' means, so that what each has by itself
    does not count.  Strength: share of the error's power.  Size: rms of it in that of the output.
    """
    parts = [(expected, error) for expected, error, _ in pieces(samples)]
    pooled = np.concatenate([expected[:: max(1, expected.size // 4096)] for expected, _ in parts])
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, bins + 1)[1:-1]))
    if len(parts) < 2:
        return []
    means, counts = np.zeros((len(parts), edges.size + 1)), np.zeros((len(parts), edges.size + 1))
    signal = noise = 0.0
    for row, (expected, error) in enumerate(parts):
        stride = max(1, expected.size // 65536)
        expected, error = expected[::stride], error[::stride]
        place = np.searchsorted(edges, expected)
        counts[row] = np.bincount(place, minlength=edges.size + 1)
        means[row] = np.bincount(place, error, minlength=edges.size + 1) / np.maximum(counts[row], 1)
        signal += power(expected)
        noise += power(error)
    # Of all pairs of different parts that both have values in a bin, weighted by how many there are.
    sums, squares = (counts * means).sum(0), ((counts * means) ** 2).sum(0)
    pairs = counts.sum(0) ** 2 - (counts**2).sum(0)
    common = np.where(pairs > 0, (sums**2 - squares) / np.maximum(pairs, 1), 0.0)
    explained = float((common * counts.sum(0)).sum())
    if not (noise > 0 and signal > 0 and explained > 0):
        return []
    return [Sign("curve", math.sqrt(explained / signal), explained / noise)]
