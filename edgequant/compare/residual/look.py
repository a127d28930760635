"""All tests of one output, over its cases."""

from __future__ import annotations

from collections.abc import Sequence

from edgequant.compare.residual import levels, moved, slices, whole
from edgequant.compare.residual.sample import Sample, Sign, power


def look(samples: Sequence[Sample]) -> list[Sign]:
    """Every sign that can be measured, whatever its size and strength."""
    if not any(power(sample.error) > 0 for sample in samples):
        return []
    exchanged = moved.other_case(samples)
    samples = [sample for sample in samples if not sample.twin]
    tables = list(slices.tables(samples))
    found: list[Sign | None] = [
        exchanged,
        moved.permuted(samples),
        moved.lag(samples),
        *levels.stuck(samples, tables),
        levels.few_levels(samples),
        *levels.saturated(samples),
        *whole.affine(samples),
        *whole.undone(samples),
        *whole.curve(samples),
        slices.element(samples),
        slices.lone_case(samples),
    ]
    for table, first in tables:
        loud = slices.loud(table, first)
        found += [loud, slices.tilted(table, first), None if first else slices.shifted_means(table)]
        if loud is not None and loud.strength > 1:
            found.append(moved.exchanged(samples, table.axis, table_index(loud)))
    return [sign for sign in found if sign is not None]


def table_index(sign: Sign) -> int:
    return int(sign.where["index"])
