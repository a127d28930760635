"""Signs that all the numbers are there, but somewhere else: late, flipped, transposed, in another output or case."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgequant.compare.residual.sample import MOST_ELEMENTS, Floats, Pair, Sample, Sign, power

Array = npt.NDArray[Any]

_SHIFTS = (1, -1, 2, -2)
_MOST_PERMUTED = 4
"""Axes, of which all orders are tried; of more, only two exchanged."""
_MOST_CHANNELS = 2048
_QUIET = 0.1
"""An index that is quieter (power) than this part of the mean one fits others by chance."""
_ENOUGH = 16
"""Elements at an index, over all cases."""


def _gain(before: float, after: float) -> float:
    """How many times smaller (rms) an error gets."""
    return math.sqrt(before / max(after, 1e-12 * before)) if before > 0 else 0.0


def lag(samples: Sequence[Sample]) -> Sign | None:
    """The shift along an axis that makes `got` fit best.

    Strength: rms error as it is, in that after the shift, both where the shifted arrays overlap; of the case where it
    is least.  Size: rms error in signal.  Above 1 only where `got` is nearer to its neighbour's place than to its own:
    rounding, which is small beside the signal, never is.
    """
    found: list[tuple[float, int, int]] = []
    ranks = {sample.expected.ndim for sample in samples}
    if len(ranks) != 1:
        return None
    for axis in range(ranks.pop()):
        for shift in _SHIFTS:
            if min(sample.expected.shape[axis] for sample in samples) < 2 * abs(shift) + 1:
                continue
            gains = [_shifted(sample, axis, shift) for sample in samples]
            found.append((min(gains), axis, shift))
    if not found:
        return None
    best, axis, shift = max(found)
    return Sign("lag", _size(samples), best, {"axis": axis, "shift": shift})


def _shifted(sample: Sample, axis: int, shift: int) -> float:
    if sample.steps[axis] != 1:
        return 0.0
    n = sample.expected.shape[axis]
    late = [slice(None)] * sample.expected.ndim
    early = list(late)
    late[axis], early[axis] = slice(max(shift, 0), n + min(shift, 0)), slice(max(-shift, 0), n - max(shift, 0))
    got = sample.expected[tuple(late)] + sample.error[tuple(late)]
    return _gain(power(sample.error[tuple(late)]), power(got - sample.expected[tuple(early)]))


def permuted(samples: Sequence[Sample]) -> Sign | None:
    """The flip of an axis, or the other order of axes in memory, that makes `got` fit best; see `lag`."""
    shapes = [sample.expected.shape for sample in samples]
    if len({len(shape) for shape in shapes}) != 1 or any(step != 1 for s in samples for step in s.steps):
        return None
    rank = len(shapes[0])
    found: list[tuple[float, str, list[int]]] = []
    for axis in range(rank):
        if min(shape[axis] for shape in shapes) > 1:
            gains = [_gain(s.noise, power(np.flip(s.got, axis) - s.expected)) for s in samples]
            found.append((min(gains), "flipped", [axis]))
    for order in _orders(rank):
        if all(_moves(shape, order) for shape in shapes):
            gains = [
                _gain(s.noise, power(np.transpose(s.expected, order).reshape(-1) - s.got.reshape(-1))) for s in samples
            ]
            found.append((min(gains), "transposed", list(order)))
    if not found:
        return None
    best, how, axes = max(found)
    return Sign("permuted", _size(samples), best, {"how": how, "axes": axes})


def _orders(rank: int) -> Iterator[tuple[int, ...]]:
    plain = tuple(range(rank))
    if rank <= _MOST_PERMUTED:
        yield from (order for order in itertools.permutations(plain) if order != plain)
        return
    for one, two in itertools.combinations(plain, 2):
        order = list(plain)
        order[one], order[two] = two, one
        yield tuple(order)


def _moves(shape: Sequence[int], order: Sequence[int]) -> bool:
    """Whether an order of axes changes where anything lies: axes of length 1 do not count."""
    kept = [axis for axis in order if shape[axis] > 1]
    return kept != sorted(kept)


def exchanged(samples: Sequence[Sample], axis: int, index: int) -> Sign | None:
    """Another index of the same axis that `got` has at this one; see `lag`.  Size: of the error at this index."""
    best: Floats | None = None
    sizes, elements = [], 0
    for sample in samples:
        rows = np.moveaxis(sample.expected, axis, 0)
        if rows.shape[0] > _MOST_CHANNELS:
            return None
        rows = rows.reshape(rows.shape[0], -1)
        if power(rows[index]) < _QUIET * power(rows) / rows.shape[0]:
            return None
        got = rows[index] + np.moveaxis(sample.error, axis, 0)[index].reshape(-1)
        distances = np.array([power(row - got) for row in rows])
        gains = np.sqrt(distances[index] / np.maximum(distances, 1e-12 * distances[index] + 1e-300))
        gains[index] = 0.0
        if best is not None and best.shape != gains.shape:
            return None
        best = gains if best is None else np.minimum(best, gains)
        sizes.append(math.sqrt(distances[index] / signal) if (signal := power(rows[index])) > 0 else 0.0)
        elements += got.size
    if best is None or elements < _ENOUGH:
        return None
    other = int(np.argmax(best))
    return Sign("exchanged", min(sizes), float(best[other]), {"axis": axis, "index": index, "has": other})


def other_case(samples: Sequence[Sample]) -> Sign | None:
    """The case that has what belongs to another one; see `lag`.  "stale": what an earlier one has brought, bit by bit,
    whatever that was."""
    found: list[tuple[float, str, str, bool]] = []
    for place, sample in enumerate(samples):
        for number, other in enumerate(samples):
            if other is sample or other.expected.shape != sample.expected.shape:
                continue
            strength = _gain(sample.noise, power(sample.got - other.expected))
            stale = number < place and np.array_equal(sample.got, other.got)
            if stale:
                apart = power(sample.expected - other.expected)
                strength = max(strength, _gain(apart, max(min(sample.noise, other.noise), 1e-6 * apart)))
            found.append((strength, sample.case, other.case, stale))
    if not found:
        return None
    best, case, of, stale = max(found)
    chosen = next(sample for sample in samples if sample.case == case)
    return Sign(
        "other case", _size([chosen]), best, {"case": case, "of": of, "stale": stale, "elements": chosen.expected.size}
    )


def swapped(pairs: Mapping[str, Sequence[Pair]], expected: Mapping[str, Sequence[Array]]) -> list[tuple[str, Sign]]:
    """For each output of `pairs`, the other output of the same shapes that it fits best; see `lag`.

    expected: of every output, by case as in `pairs`.
    """
    found = []
    for name, mine in pairs.items():
        candidates = [
            other
            for other, arrays in expected.items()
            if other != name and [a.shape for a in arrays] == [pair.expected.shape for pair in mine]
        ]
        if not candidates:
            continue
        best = [_fit(pair, [expected[other][place] for other in candidates]) for place, pair in enumerate(mine)]
        if best:
            gains = np.array([gains for gains, _ in best]).min(0)
            size = min(size for _, size in best)
            found.append(
                (name, Sign("other output", size, float(gains.max()), {"of": candidates[int(gains.argmax())]}))
            )
    return found


def _fit(pair: Pair, others: Sequence[Array]) -> tuple[list[float], float]:
    """How many times smaller the error is against each of `others`, and its size."""
    stride = max(1, pair.expected.size // MOST_ELEMENTS)

    def flat(array: Array) -> Floats:
        taken = array.reshape(-1)[::stride].astype(np.float64)
        return taken if np.isfinite(taken).all() else np.nan_to_num(taken, posinf=0.0, neginf=0.0)

    mine, got = flat(pair.expected), flat(pair.got)
    scale = max(float(np.abs(mine).max()), float(np.abs(got).max()), 1e-300)
    error, signal = power((got - mine) / scale), power(mine / scale)
    gains = [_gain(error, power(np.clip((got - flat(other)) / scale, -1e3, 1e3))) for other in others]
    return gains, math.sqrt(error / signal) if signal > 0 else 0.0


def _size(samples: Sequence[Sample]) -> float:
    """rms of the error in that of the signal, of the case where it is least."""
    return min(math.sqrt(s.noise / s.signal) if s.signal > 0 else 0.0 for s in samples)
