"""Small channels beside large ones, as boxes of 0 to 640 and scores of 0 to 1 in one tensor: judged apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgequant.compare.residual.sample import Floats, Sample, Sign, power

_GAP = 10.0
"""Between the rms of the loudest of the small channels and of the quietest of the large ones."""
_LEAST = 1e-5
"""Of the large ones' rms; what is smaller is as good as silent."""
_MOST_CHANNELS = 1 << 16
_ACTIVE = 32
"""Elements of a tenth of their rms or more."""


def small_channels(samples: Sequence[Sample]) -> tuple[int, int, int] | None:
    """(axis, first, one past the last) of neighbouring indices that are all much quieter than all others of that axis,
    by the expected values of all cases; None where there are none."""
    ranks = {sample.expected.ndim for sample in samples}
    if len(ranks) != 1:
        return None
    best: tuple[float, tuple[int, int, int]] | None = None
    for axis in range(ranks.pop()):
        size = samples[0].expected.shape[axis]
        if not 2 <= size <= _MOST_CHANNELS or any(
            s.expected.shape[axis] != size or s.steps[axis] != 1 for s in samples
        ):
            continue
        found = _gap(np.sqrt(sum(_powers(sample, axis) for sample in samples)))
        if (
            found is not None
            and _active(only(samples, axis, found[1], found[2]))
            and (best is None or found[0] > best[0])
        ):
            best = found[0], (axis, found[1], found[2])
    return None if best is None else best[1]


def _active(samples: Sequence[Sample]) -> bool:
    """Whether there is something in them: not a channel that a ReLU has closed but for a few numbers."""
    rms = math.sqrt(sum(s.signal for s in samples) / sum(s.expected.size for s in samples))
    return sum(int(np.count_nonzero(np.abs(s.expected) > 0.1 * rms)) for s in samples) >= _ACTIVE


def _powers(sample: Sample, axis: int) -> Floats:
    front = np.moveaxis(sample.expected, axis, 0)
    return np.asarray((front**2).reshape(front.shape[0], -1).mean(1))


def _gap(rms: Floats) -> tuple[float, int, int] | None:
    order = np.argsort(rms)
    ordered = np.maximum(rms[order], 1e-300)
    ratios = ordered[1:] / ordered[:-1]
    place = int(np.argmax(ratios))
    small = np.sort(order[: place + 1])
    loud = float(ordered[place + 1])
    neighbours = int(small[-1] - small[0]) + 1 == small.size
    if ratios[place] < _GAP or not neighbours or ordered[place] < _LEAST * loud:
        return None
    return float(ratios[place]), int(small[0]), int(small[-1]) + 1


def only(samples: Sequence[Sample], axis: int, first: int, stop: int) -> list[Sample]:
    """The samples with these indices of an axis alone."""
    taken = (slice(None),) * axis + (slice(first, stop),)
    return [
        replace(
            sample,
            expected=sample.expected[taken],
            got=sample.got[taken],
            error=sample.error[taken],
            own=None if sample.own is None else sample.own[taken],
        )
        for sample in samples
    ]


def lost(samples: Sequence[Sample], axis: int, first: int, stop: int) -> Sign:
    """How much of the small channels is left.  Size: rms error in signal, both of the variation over the small channels
    of all cases; strength: in that of the whole tensor, below which its own size would be."""
    small = only(samples, axis, first, stop)
    error, signal = sum(s.noise for s in small), sum(power(s.expected - s.expected.mean()) for s in small)
    size = math.sqrt(error / signal) if signal > 0 else 0.0
    whole = math.sqrt(sum(s.noise for s in samples) / max(sum(s.signal for s in samples), 1e-300))
    where = {"axis": axis, "first": first, "last": stop - 1, "of": samples[0].expected.shape[axis]}
    return Sign("small", size, size / max(whole, 1e-12), {**where, "elements": sum(s.expected.size for s in small)})
