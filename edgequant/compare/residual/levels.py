"""Signs in the values themselves: too few of them, a pile at a limit, one where many are expected."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence

import numpy as np

from edgequant.compare.residual.sample import Floats, Sample, Sign, power
from edgequant.compare.residual.slices import Table

_ENOUGH = 256
_FRACTIONS = 8
_MOST = 1 << 18
"""Elements looked at."""


def _pooled(samples: Sequence[Sample]) -> tuple[Floats, Floats]:
    total = sum(sample.expected.size for sample in samples)
    stride = max(1, total // _MOST)
    expected = np.concatenate([sample.expected.reshape(-1)[::stride] for sample in samples])
    error = np.concatenate([sample.error.reshape(-1)[::stride] for sample in samples])
    return expected, error


def _distinct(values: Floats) -> int:
    """Levels: values that differ by more than what float32 arithmetic leaves of equal ones."""
    ordered = np.sort(values)
    return 1 + int(np.count_nonzero(np.diff(ordered) > 1e-6 * max(abs(ordered[0]), abs(ordered[-1]))))


def few_levels(samples: Sequence[Sample]) -> Sign | None:
    """Strength: how many times more levels `expected` has, in the case where it is least.  Size: rms error in signal.

    Each case that has enough elements by itself, for its levels may lie apart from another's; else all of them.
    """
    expected, error = _pooled(samples)
    if expected.size < _ENOUGH:
        return None
    apart = [_pooled([sample]) for sample in samples if sample.expected.size >= _ENOUGH] or [(expected, error)]
    counts = [(_distinct(one), _distinct(one + other)) for one, other in apart]
    theirs, ours = min(counts, key=lambda pair: pair[0] / pair[1])
    size = math.sqrt(power(error) / max(power(expected), 1e-300))
    most = max(levels for _, levels in counts)
    return Sign("levels", size, theirs / ours, {"levels": most, "expected": theirs})


def shorter(samples: Sequence[Sample]) -> Sign | None:
    """All numbers of `got` are those of a shorter float format, such as half precision, and those expected are not.

    Strength: bits that are 0 in every fraction of `got`, beyond those that are in `expected`: by chance ten of them are
    in eight numbers with 2^-80.  Size: rms error in signal.
    """
    known = [sample.digits for sample in samples if sample.digits is not None]
    if len(known) != len(samples) or sum(count for *_, count in known) < _FRACTIONS:
        return None
    theirs, ours = (_bits([each[side] for each in known]) for side in (0, 1))
    error, signal = sum(s.noise for s in samples), sum(s.signal for s in samples)
    size = math.sqrt(error / max(signal, 1e-300))
    return Sign("format", size, float(theirs - ours), {"bits": ours, "expected": theirs})


def _bits(used: Sequence[int]) -> int:
    """Of a significand: the one that is not written, and what is left of a fraction without the zeros at its end."""
    every = functools.reduce(operator.or_, used)
    return 24 - ((every & -every).bit_length() - 1)


def saturated(samples: Sequence[Sample]) -> list[Sign]:
    """Values piled up at the largest or smallest one, where those expected go on.

    Strength: how many lie at the limit, in how many of `expected` lie at theirs.  Size: how far the expected values
    go beyond it, rms, in the rms of the output.  "share": of all elements.
    """
    expected, error = _pooled(samples)
    got = expected + error
    rms = math.sqrt(power(expected) / expected.size)
    found = []
    for side in (1.0, -1.0):
        limit, top = float((side * got).max()), float((side * expected).max())
        near = 1e-6 * max(abs(limit), 1e-30)
        piled = side * got >= limit - near
        count = int(np.count_nonzero(piled))
        theirs = int(np.count_nonzero(side * expected >= top - 1e-6 * max(abs(top), 1e-30)))
        beyond = side * expected[piled] - limit
        size = math.sqrt(float((np.maximum(beyond, 0) ** 2).mean())) / rms if rms > 0 else 0.0
        agreeing = float((beyond > 0).mean())
        where = {"side": "top" if side > 0 else "bottom", "count": count, "expected_count": theirs,
                 "beyond": agreeing, "share": count / expected.size}  # fmt: skip
        found.append(Sign("saturated", size, count / theirs * agreeing, where))
    return found


def stuck(samples: Sequence[Sample], tables: Sequence[tuple[Table, int]]) -> list[Sign]:
    """Slices in which `got` is one value where those expected vary; over the whole output too.

    Strength: variation of the expected values, rms, in the rms error of the median slice (or _FLOOR of the signal):
    what rounding could have flattened has none.  Size: the same, in the rms of the mean slice.
    """
    found = []
    values = [(float(s.got.min()), float(s.got.max())) for s in samples]
    low, high = min(v for v, _ in values), max(v for _, v in values)
    total = np.concatenate([s.expected.reshape(-1) for s in samples])
    if total.size > 1 and high - low <= 1e-7 * max(abs(low), abs(high)):
        scale = max(math.sqrt(power(total) / total.size), 1e-300)
        found.append(Sign("stuck", float(total.std()) / scale, float(total.std()) / (0.005 * scale), {"value": low}))
        return found
    for table, first in tables:
        sign = _stuck_slice(samples, table, first)
        if sign is not None:
            found.append(sign)
    return found


def _stuck_slice(samples: Sequence[Sample], table: Table, first: int) -> Sign | None:
    size = table.signal.shape[1]
    low, high = np.full(size, math.inf), np.full(size, -math.inf)
    count = np.zeros(size)
    sums, squares = np.zeros(size), np.zeros(size)
    for sample in samples:
        got, expected = (np.moveaxis(a, table.axis, 0) for a in (sample.got, sample.expected))
        got, expected = (a[-size:] if first else a[:size] for a in (got, expected))
        got, expected = got.reshape(size, -1), expected.reshape(size, -1)
        low, high = np.minimum(low, got.min(1)), np.maximum(high, got.max(1))
        sums += expected.sum(1)
        squares += (expected**2).sum(1)
        count += expected.shape[1]
    if count.min() < 2:
        return None
    varying = np.sqrt(np.maximum(squares / count - (sums / count) ** 2, 0.0))
    rms = math.sqrt(float((squares / count).mean()))
    error = math.sqrt(float(np.median(table.error.sum(0)) / count.max()))
    flat = high - low <= 1e-7 * np.maximum(np.abs(low), np.abs(high))
    if rms == 0 or not flat.any() or flat.sum() * 2 > size:
        return None
    strength = np.where(flat, varying / max(error, 0.005 * rms), 0.0)
    best = int(np.argmax(strength))
    where = {"axis": table.axis, "index": best + first, "value": float(low[best]), "count": int((strength > 1).sum())}
    return Sign("stuck", float(varying[best]) / rms, float(strength[best]), where)
