"""Signs that an error is a share of something else: of another channel, or of an input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.compare.residual.sample import PARTS, Floats, Sample, Sign
from edgequant.compare.residual.slices import Table, usual

_LOUDEST = 4
"""Indices that are looked at: those whose error stands out most."""
_MOST = 1 << 22
"""Elements of what may be heard, in a case."""
_LEAST = 5
"""Elements of an index, in a part."""


@dataclass(frozen=True)
class _Part:
    """Sums over a part of a case: of squares of the errors [row] and of the sources [source], and of their products
    [row, source]; all without their means."""

    error: Floats
    source: Floats
    product: Floats


def crosstalk(samples: Sequence[Sample], table: Table) -> Sign | None:
    """The index of an axis whose error is a share of what is expected at another.

    Strength: share of the error's power there that this explains, in the lower quarter of the parts of the cases.
    Size: rms of what it explains in that of the index.
    """
    rows = _loudest(table)
    moved = [(_rows(sample.expected, table.axis), _rows(sample.error, table.axis)) for sample in samples]
    if len({len(expected) for expected, _ in moved}) != 1 or any(expected.size > _MOST for expected, _ in moved):
        return None
    parts = [part for expected, error in moved for part in _parts(error[rows], expected)]
    signal = sum((expected[rows] ** 2).sum(1) for expected, _ in moved)
    itself = np.equal.outer(rows, np.arange(len(moved[0][0])))
    found = _best(parts, np.asarray(signal), itself)
    if found is None:
        return None
    row, source, value, strength, size = found
    where = {"axis": table.axis, "index": int(rows[row]), "of": source, "value": value, "parts": len(parts)}
    return Sign("crosstalk", size, strength, where)


def input_heard(samples: Sequence[Sample], table: Table) -> list[Sign]:
    """The same of an input whose sizes are those of the output, but for that of this axis."""
    found = []
    for name in samples[0].inputs:
        if not all(_fits(sample.inputs.get(name), sample.expected, table.axis) for sample in samples):
            continue
        rows = _loudest(table)
        moved = [
            tuple(_rows(each, table.axis) for each in (sample.inputs[name], sample.error, sample.expected))
            for sample in samples
        ]
        if len({(len(array), len(expected)) for array, _, expected in moved}) != 1:
            continue  # an index of a case of one length is nothing in one of another
        parts = [part for array, error, _ in moved for part in _parts(error[rows], array)]
        signal = np.asarray(sum((expected[rows] ** 2).sum(1) for *_, expected in moved))
        best = _best(parts, signal, np.zeros((len(rows), len(moved[0][0])), bool))
        if best is not None:
            row, source, _, strength, size = best  # inputs are not scaled as outputs are here
            where = {"axis": table.axis, "index": int(rows[row]), "of": source, "input": name, "parts": len(parts)}
            found.append(Sign("input", size, strength, where))
    return found


def _loudest(table: Table) -> Floats:
    """Indices by how far their error stands out, the loudest first."""
    signal, error = table.signal.sum(0, keepdims=True), table.error.sum(0, keepdims=True)
    own = None if table.own is None else table.own.sum(0, keepdims=True)
    return np.asarray(np.argsort(-(error / usual(signal, error, own))[0], kind="stable")[:_LOUDEST])


def _fits(array: Floats | None, expected: Floats, axis: int) -> bool:
    if array is None or array.size > _MOST or array.ndim != expected.ndim:
        return False
    one, two = list(array.shape), list(expected.shape)
    del one[axis], two[axis]
    return one == two


def _rows(array: Floats, axis: int) -> Floats:
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(moved.shape[0], -1)


def _parts(error: Floats, source: Floats) -> Iterator[_Part]:
    width = error.shape[1]
    for taken in np.array_split(np.arange(width), max(1, min(PARTS, width // _LEAST))):
        some = slice(int(taken[0]), int(taken[-1]) + 1)
        e = error[:, some] - error[:, some].mean(1, keepdims=True)
        s = source[:, some] - source[:, some].mean(1, keepdims=True)
        yield _Part((e**2).sum(1), (s**2).sum(1), np.einsum("in,jn->ij", e, s))


def _best(parts: Sequence[_Part], signal: Floats, itself: Floats) -> tuple[int, int, float, float, float] | None:
    """(row, source, share of the source, strength, size)."""
    error, source, product = (
        np.stack([getattr(part, name) for part in parts]) for name in ("error", "source", "product")
    )
    whole = source.sum(0)
    if not (whole > 0).any() or not (error.sum(0) > 0).any():
        return None
    value = product.sum(0) / np.maximum(whole, 1e-9 * whole.mean() + 1e-300)
    explained = 2 * value * product - value**2 * source[:, None]
    # An error that is loud in a single part fits whatever is loud there, too.
    shares = explained / np.maximum(error, 1e-6 * error.mean(0) + 1e-300)[:, :, None]
    strength = np.where(itself, 0.0, np.minimum(np.quantile(shares, 0.25, axis=0), 1.0))
    row, column = np.unravel_index(int(np.argmax(strength)), strength.shape)
    of = float(explained[:, row, column].sum())
    size = math.sqrt(max(of, 0.0) / max(float(signal[row]), 1e-300))
    return int(row), int(column), float(value[row, column]), float(strength[row, column]), size
