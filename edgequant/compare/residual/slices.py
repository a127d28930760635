"""Signs that are at one place: an index of an axis (a channel, a time step, a position), an element, a case."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.compare.residual.sample import PARTS, Floats, Sample, Sign, power

_FLOOR = 0.005
"""Errors of this much of a slice's own rms are not looked at."""
_FLOOR_ALL = 0.002
"""Nor those of this much of the mean slice's."""
_QUIET = 0.01
"""A slice that is quieter (power) than this part of the mean slice is taken for as loud, where sizes are told."""


@dataclass(frozen=True)
class Table:
    """Sums over all but one axis, of each part of each case: [part, index].

    case: of each part.  count: elements a part's slice has.
    """

    axis: int
    case: Floats
    count: Floats
    signal: Floats
    error: Floats
    own: Floats | None
    mean: Floats
    mean_error: Floats
    slope: Floats

    def by_case(self, values: Floats) -> Floats:
        return np.stack([values[self.case == case].sum(0) for case in np.unique(self.case)])


def tables(samples: Sequence[Sample]) -> Iterator[tuple[Table, int]]:
    """Each axis that has two indices or more in every case, and the first index its table begins with: where its
    length differs between cases, once aligned at the first and once at the last (then counted from the end)."""
    ranks = {sample.expected.ndim for sample in samples}
    if len(ranks) != 1:
        return
    for axis in range(ranks.pop()):
        sizes = [sample.expected.shape[axis] for sample in samples]
        if min(sizes) < 2:
            continue
        yield _table(samples, axis, min(sizes), last=False), 0
        if min(sizes) != max(sizes):
            yield _table(samples, axis, min(sizes), last=True), -min(sizes)


def _table(samples: Sequence[Sample], axis: int, size: int, *, last: bool) -> Table:
    rows: list[tuple[Floats, ...]] = []
    cases: list[int] = []
    counts: list[int] = []
    known = all(sample.own is not None for sample in samples)
    for number, sample in enumerate(samples):
        arrays = [_front(array, axis, size, last=last) for array in (sample.expected, sample.error)]
        own = _front(sample.own, axis, size, last=last) if known and sample.own is not None else None
        width = arrays[0].shape[1]
        parts = max(1, min(PARTS, width // 2))
        for some in np.array_split(np.arange(width), parts):
            taken = slice(int(some[0]), int(some[-1]) + 1)
            r, e = arrays[0][:, taken], arrays[1][:, taken]
            q = own[:, taken] if own is not None else None
            n = r.shape[1]
            rr, ee, re = (np.einsum("ij,ij->i", a, b) for a, b in ((r, r), (e, e), (r, e)))
            mr, me = r.mean(1), e.mean(1)
            varying = rr - n * mr * mr
            slope = np.where(varying > 1e-9 * (rr + 1e-300), (re - n * mr * me) / np.maximum(varying, 1e-300), 0.0)
            rows.append((rr, ee, np.einsum("ij,ij->i", q, q) if q is not None else rr, mr, me, slope))
            cases.append(number)
            counts.append(n)
    rr, ee, qq, mr, me, slope = np.stack(rows, axis=1)
    return Table(
        axis, np.array(cases), np.array(counts, np.float64)[:, None], rr, ee, qq if known else None, mr, me, slope
    )


def _front(array: Floats, axis: int, size: int, *, last: bool) -> Floats:
    """[index, all else], of the first or last `size` indices."""
    moved = np.moveaxis(array, axis, 0)
    moved = moved[-size:] if last else moved[:size]
    return moved.reshape(size, -1)


def usual(signal: Floats, error: Floats, own: Floats | None) -> Floats:
    """The power of error that is nothing special, of each slice [row, index]: the largest of what the median slice has,
    absolutely, by the size of its signal, and by the error that `expected` has itself there; and of the floors."""
    mean = signal.mean(1, keepdims=True)

    def by(unit: Floats) -> Floats:
        safe = np.maximum(unit, 1e-6 * unit.mean(1, keepdims=True) + 1e-300)
        return np.asarray(np.median(error / safe, axis=1, keepdims=True) * safe)

    yardsticks = [_FLOOR**2 * signal, _FLOOR_ALL**2 * mean + 0 * signal]
    if error.shape[1] >= 4:
        yardsticks += [np.median(error, axis=1, keepdims=True) + 0 * signal, by(signal)]
        yardsticks += [] if own is None else [by(own)]
    else:
        # Of two or three, the others are what it is held against.
        others, rest = ((each.sum(1, keepdims=True) - each) / (each.shape[1] - 1) for each in (error, signal))
        yardsticks += [others, others / np.maximum(rest, 1e-300) * signal]
    return np.asarray(np.maximum.reduce(yardsticks) + 1e-300)


def loud(table: Table, first: int) -> Sign | None:
    """The index whose error stands out of those beside it, in every case and in three of four parts.

    Strength: rms of its error in the usual one (see `usual`), of the case where it is least, or of the lower quarter
    of the parts where that is less.  Rounding makes one time step or channel louder than others too, but not the same
    one in every case.  Size: rms of the error in that of the slice, in the median case.
    """
    parts = np.sqrt(table.error / usual(table.signal, table.error, table.own))
    signal, error = table.by_case(table.signal), table.by_case(table.error)
    own = None if table.own is None else table.by_case(table.own)
    cases = np.sqrt(error / usual(signal, error, own))
    strength = np.minimum(cases.min(0), np.quantile(parts, 0.25, axis=0))
    best = int(np.argmax(strength))
    size = np.sqrt(error / np.maximum(signal, _QUIET * signal.mean(1, keepdims=True) + 1e-300))
    where = {"axis": table.axis, "index": best + first, "count": int((strength > strength[best] / 2).sum()),
             "of": int(strength.size), "cases": int(cases.shape[0])}  # fmt: skip
    return Sign("slice", float(np.median(size[:, best])), float(strength[best]), where)


def tilted(table: Table, first: int) -> Sign | None:
    """The index whose gain stands out, with one sign in all parts, however loud the noise around it is.

    Strength: the gain that even the lower quarter of the parts has, in the largest usual one: twice the upper quartile
    of the same over the other indices, or _FLOOR.  Size: the median gain.
    """
    if table.slope.shape[1] < 8 or table.slope.shape[0] < 4:
        return None
    middle = np.median(table.slope, axis=0)
    low = np.quantile(table.slope * np.sign(middle), 0.25, axis=0)
    quiet = table.signal.sum(0) < _QUIET * table.signal.sum(0).mean()
    low = np.where(quiet, 0.0, low)
    strength = low / max(_FLOOR, 2 * float(np.quantile(np.abs(middle), 0.75)))
    best = int(np.argmax(strength))
    where = {"axis": table.axis, "index": best + first, "value": float(middle[best]), "of": int(strength.size)}
    return Sign("tilt", abs(float(middle[best])), float(strength[best]), where)


def shifted_means(table: Table) -> Sign | None:
    """A pattern of offsets along an axis that is the same in all parts, such as a bias that was dropped.

    The power of it is estimated from products of different parts' means, sum over indices of mean_p * mean_p', whose
    expectation is nought for what two parts do not have in common (as in a split-half estimate of reliability:
    Spearman 1910; Brown 1910).  Strength: share of the error's power.  Size: rms in that of the output.
    """
    parts, size = table.mean_error.shape
    if parts < 2 or size < 2:
        return None
    cases = np.unique(table.case)
    # Parts of one case may have a time step in common: only those of different cases, where there are several.
    if len(cases) > 1:
        weights = table.by_case(np.broadcast_to(table.count, table.mean_error.shape))
        means = table.by_case(table.mean_error * table.count) / weights
    else:
        means = table.mean_error
    number = means.shape[0]
    common = float(((means.sum(0) ** 2 - (means**2).sum(0)) / (number * (number - 1))).mean())
    elements = float(table.count.sum()) * size
    noise, signal = float(table.error.sum()) / elements, float(table.signal.sum()) / elements
    if not (common > 0 and noise > 0 and signal > 0):
        return None
    return Sign("pattern", math.sqrt(common / signal), common / noise, {"axis": table.axis, "of": size})


def element(samples: Sequence[Sample]) -> Sign | None:
    """The one position whose error stands out in every case.

    Strength: |error| in the largest of: the rms error of its case without it, the same by the size of its signal, the
    floors; of the case where it is least.  Size: in the rms of the output.
    """
    if len({sample.expected.ndim for sample in samples}) != 1 or samples[0].expected.ndim == 0:
        return None
    shape = tuple(min(sample.expected.shape[axis] for sample in samples) for axis in range(samples[0].expected.ndim))
    if math.prod(shape) < 16:
        return None
    common = tuple(slice(0, n) for n in shape)
    least: Floats | None = None
    sizes = []
    for sample in samples:
        r, e = sample.expected[common], np.abs(sample.error[common])
        rms = math.sqrt(sample.signal / sample.expected.size)
        rest = math.sqrt(max(0.0, power(e) - float(e.max()) ** 2) / e.size)
        ratio = rest / rms if rms > 0 else 0.0
        usual_one = np.maximum(np.abs(r) * max(ratio, _FLOOR), max(rest, _FLOOR * rms, 1e-300))
        if sample.own is not None:
            q = np.abs(sample.own[common])
            whole = math.sqrt(power(q) / q.size)
            usual_one = np.maximum(usual_one, q * (rest / whole if whole > 0 else 0.0))
        strength = e / usual_one
        least = strength if least is None else np.minimum(least, strength)
        sizes.append((e, rms))
    assert least is not None
    best = np.unravel_index(int(np.argmax(least)), shape)
    size = float(np.median([e[best] / rms if rms > 0 else 0.0 for e, rms in sizes]))
    return Sign("element", size, float(least[best]), {"index": [int(i) for i in best], "cases": len(samples)})


def lone_case(samples: Sequence[Sample]) -> Sign | None:
    """The case whose error stands out of the others': rms of error in signal, in the second largest of them, and in
    that of the error that `expected` has itself in each."""
    if len(samples) < 2:
        return None
    signal = np.array([s.signal / s.expected.size for s in samples])
    error = np.array([s.noise / s.error.size for s in samples])
    ratio = np.sqrt(error / np.maximum(signal, _QUIET * signal.max() + 1e-300))
    best = int(np.argmax(ratio))
    others = np.delete(ratio, best).max()
    strength = ratio[best] / max(others, _FLOOR)
    if all(s.own is not None for s in samples):
        own = np.sqrt([power(s.own) / s.own.size for s in samples if s.own is not None])
        by = np.sqrt(error) / np.maximum(own, 1e-3 * np.sqrt(signal.max()) + 1e-300)
        strength = min(strength, by[best] / max(np.delete(by, best).max(), 1e-3))
    return Sign("case", float(ratio[best]), float(strength), {"case": samples[best].case, "of": len(samples)})
