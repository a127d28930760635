"""Signs at what is left over beyond whole groups of an axis, such as the lanes of a vector register."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgequant.compare.residual.sample import Floats, Sample, Sign, power

GROUPS = (4, 8, 16)
_FLOOR, _FLOOR_ALL = 0.005, 0.002


def tails(samples: Sequence[Sample]) -> list[Sign]:
    """Of each axis whose length is a whole number of groups in some cases and not in others: errors in what is left
    over, in those of the rest of its case.

    Strength: that, in rms, of the case with something left over where it is least, in the same of the last places of
    the cases with nothing left over (an end may be louder for its own sake), where this is above 1.  Size: rms of the
    error in what is expected there, of the median case.
    """
    if len({sample.expected.ndim for sample in samples}) != 1:
        return []
    found: list[Sign] = []
    for axis in range(samples[0].expected.ndim):
        for group in GROUPS:
            rests = [
                (sample, sample.expected.shape[axis] % group)
                for sample in samples
                if sample.expected.shape[axis] > group
            ]
            odd = [(sample, rest) for sample, rest in rests if rest]
            even = [sample for sample, rest in rests if not rest]
            if not odd or not even or any(sample.steps[axis] != 1 for sample in samples):
                continue
            over = [_ends(sample, axis, rest) for sample, rest in odd]
            strength = min(ratio for ratio, _ in over) / max(
                1.0, *(_ends(sample, axis, group - 1)[0] for sample in even)
            )
            size = float(np.median([size for _, size in over]))
            found.append(Sign("tail", size, strength, {"axis": axis, "group": group, "cases": len(odd)}))
    return sorted(found, key=lambda sign: -sign.strength)[:1]


def _ends(sample: Sample, axis: int, count: int) -> tuple[float, float]:
    """How loud the error in the last indices is: in the usual one, and in what is expected there."""
    expected, error = (np.moveaxis(array, axis, 0) for array in (sample.expected, sample.error))
    signal, own_power = _mean(expected[-count:]), _mean(error[-count:])
    rest, quiet = _mean(error[:-count]), _mean(expected[:-count])
    usual = [rest, _FLOOR**2 * signal, _FLOOR_ALL**2 * _mean(expected), 1e-300]
    if quiet > 0:
        usual.append(rest / quiet * signal)
    if sample.own is not None:
        own = np.moveaxis(sample.own, axis, 0)
        if (before := _mean(own[:-count])) > 0:
            usual.append(rest / before * _mean(own[-count:]))
    return math.sqrt(own_power / max(usual)), math.sqrt(own_power / max(signal, 1e-300))


def _mean(array: Floats) -> float:
    return power(array) / max(array.size, 1)
