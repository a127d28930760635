"""All tests of one output, over its cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgequant.compare.residual import heard, levels, moved, scales, slices, tails, whole
from edgequant.compare.residual.sample import Sample, Sign

_NOTHING = 1e-3
"""Of the rms of an output.  Where no element is further off, no sign of it can have a size that matters (1 %): of a
slice that is a tenth as loud as the others it would be as much."""
_MOVED = 0.01
"""rms error in signal.  What belongs somewhere else is further off than that."""
_TURNED = 0.1
"""The same of what is flipped or transposed."""


def look(samples: Sequence[Sample]) -> list[Sign]:
    """Every sign that can be measured, whatever its strength; where all errors are next to nothing, only that of a
    shorter format.

    Small channels beside large ones are looked at once more by themselves: where["channels"] says first and last.
    """
    group = scales.small_channels(samples)
    shorter = levels.shorter(samples)
    found = [*_look(samples), *([] if shorter is None else [shorter])]
    if group is not None:
        axis, first, stop = group
        found.append(scales.lost(samples, *group))
        found += [
            replace(sign, where={**sign.where, "channels": [first, stop - 1], "channel_axis": axis})
            for sign in _look(scales.only(samples, *group))
        ]
    return found


def _look(samples: Sequence[Sample]) -> list[Sign]:
    if not any(_off(sample) for sample in samples):
        return []
    elsewhere = [moved.other_case(samples)] if any(_share(sample) >= _MOVED for sample in samples) else []
    samples = [sample for sample in samples if not sample.twin] or samples[:1]
    shares = [_share(sample) for sample in samples]
    if min(shares) >= _MOVED:
        elsewhere.append(moved.lag(samples))
    if min(shares) >= _TURNED:
        elsewhere.append(moved.permuted(samples))
    tables = list(slices.tables(samples))
    found: list[Sign | None] = [
        *elsewhere,
        *levels.stuck(samples, tables),
        levels.few_levels(samples),
        *levels.saturated(samples),
        *whole.affine(samples),
        whole.lone_gain(samples),
        *whole.undone(samples),
        *whole.curve(samples),
        slices.element(samples),
        slices.lone_case(samples),
        *tails.tails(samples),
    ]
    for table, first in tables:
        loud = slices.loud(table, first)
        if not first:
            found += [heard.crosstalk(samples, table), *heard.input_heard(samples, table)]
        found += [loud, slices.tilted(table, first), None if first else slices.shifted_means(table)]
        if loud is not None and loud.strength > 1:
            found.append(moved.exchanged(samples, table.axis, int(loud.where["index"])))
    return [sign for sign in found if sign is not None]


def _off(sample: Sample) -> bool:
    rms = math.sqrt(sample.signal / sample.expected.size)
    return bool(np.abs(sample.error).max() > _NOTHING * rms)


def _share(sample: Sample) -> float:
    error, signal = sample.noise, sample.signal
    return math.sqrt(error / signal) if signal > 0 else math.inf if error > 0 else 0.0
