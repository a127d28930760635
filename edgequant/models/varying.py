"""Activations whose range varies wildly between samples, told from their ranges alone: nothing is run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from edgequant.findings import Finding

_SHOWN = 20
WILD = 8.0
"""The widest sample's range by the median's: with one scale for all, the middle one loses three of its eight bits."""
LEAST = 3  # samples: of two, neither is the usual one


def varying_ranges(ranges: Mapping[str, Sequence[tuple[float, float]]]) -> Finding | None:
    """Tensors for which no single scale is good.

    Of each sample the larger magnitude of its two ends counts, as for a scale without a zero point.  A tensor is wild
    where the largest of these is `WILD` times their median or more.  Samples in which it is 0 all over are left out,
    and at least three others are needed.

    Args:
        ranges: of each tensor, (smallest, largest value) of each sample, at least one.

    Returns:
        None where no tensor varies, or there are fewer than three samples.

    Raises:
        ValueError: a range is not finite, or its ends are in the wrong order.
    """
    wild = []
    for name, samples in ranges.items():
        for low, high in samples:
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"the range [{low}, {high}] of {name!r} is none")
        sizes = [max(-low, high) for low, high in samples if low or high]
        if len(sizes) < LEAST:
            continue
        usual, largest = median(sizes), max(sizes)
        if largest >= WILD * usual:
            wild.append((largest / usual, name, usual, largest, sizes.index(largest)))
    if not wild:
        return None
    wild.sort(key=lambda entry: (-entry[0], entry[1]))
    ratio, name, usual, largest, _ = wild[0]
    return Finding(
        code="ACTIVATION_RANGE_VARIES",
        severity="warn",
        where=name,
        message=f"{len(wild)} of {len(ranges)} tensors have a range that varies wildly between samples; {name} is "
        f"usually within {usual:.3g} and once at {largest:.3g}, {ratio:.0f} times as much",
        evidence={
            "tensors": [
                {"tensor": tensor, "ratio": round(times, 1), "usual": middle, "largest": top}
                for times, tensor, middle, top, _ in wild[:_SHOWN]
            ],
            "count": len(wild),
        },
        remedy="Prefer dynamic, which scales each input for itself; a static scale needs samples of every kind, and a "
        "calibrator that cuts outliers off.",
    )
