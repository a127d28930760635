"""What the tests of a residual look at: the cases of one output, scaled, bounded, and in parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_ELEMENTS = 1 << 21
"""Of a case; of a larger one, every n-th index of its longest axis is looked at."""
PARTS = 4
"""A case is cut into so many, for what is systematic is in each of them."""
_SMALLEST_PART = 16


@dataclass(frozen=True)
class Pair:
    """One case of one output.

    expected, got: of one shape, float.  base: what `expected` is itself an approximation of (float MNN, where it is a
    quantized model's output), or None: how far those two are apart says where rounding weighs most.
    twin: what went in is as in an earlier case, so that rounding is no other than there.
    inputs: what went in, of those of its arrays whose numbers may come out again.
    """

    case: str
    expected: npt.NDArray[Any]
    got: npt.NDArray[Any]
    base: npt.NDArray[Any] | None = None
    twin: bool = False
    inputs: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sign:
    """Something that rounding does not do.

    Attributes:
        kind: "gain", "offset", "slice", ...: one for each test.
        size: how large it is, as a share of the (rms) size of what it is in.
        strength: how clearly it is no rounding; each kind has its own scale, on which rounding is small.
        where: axis, index, shift, other output or case, interval: what the kind has.
    """

    kind: str
    size: float
    strength: float
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """A case as the tests take it: finite float64, divided by the output's largest magnitude over all cases.

    own: error that `expected` has itself, expected - base; None where that is not known.
    steps: per axis, every how manieth index is in it.
    inputs: of the case, as they are.
    digits: of the 23 bits of float32's fractions those that some number of `expected`, and of `got`, has, and how many
        fractions that are not 0 say so, at least; None of other types.
    """

    case: str
    expected: Floats
    got: Floats
    error: Floats
    own: Floats | None
    steps: tuple[int, ...]
    twin: bool = False
    inputs: Mapping[str, Floats] = field(default_factory=dict)
    digits: tuple[int, int, int] | None = None

    @cached_property
    def signal(self) -> float:
        """Power of what is expected."""
        return power(self.expected)

    @cached_property
    def noise(self) -> float:
        """Power of the error."""
        return power(self.error)


def samples_of(pairs: Sequence[Pair]) -> list[Sample]:
    """The cases that can be compared element by element; elements not finite in both count as equal.

    An element that is not finite in either is told of by `compare.metrics`.
    """
    usable = [
        pair
        for pair in pairs
        if pair.expected.dtype.kind == pair.got.dtype.kind == "f"
        and pair.expected.shape == pair.got.shape
        and pair.expected.size
    ]
    cut = [(pair, *_cut(pair)) for pair in usable]
    largest = max([0.0, *(_largest(expected) for _, expected, *_ in cut)])
    largest = largest or max([0.0, *(_largest(got) for _, _, got, *_ in cut)]) or 1.0
    return [_sample(pair, arrays, largest, steps) for pair, *arrays, steps in cut]


def _cut(pair: Pair) -> tuple[Any, Any, Any, tuple[int, ...]]:
    shape = pair.expected.shape
    base = pair.base if pair.base is not None and pair.base.shape == shape and pair.base.dtype.kind == "f" else None
    if pair.expected.size <= MOST_ELEMENTS:
        return pair.expected, pair.got, base, (1,) * len(shape)
    longest = int(np.argmax(shape))
    step = math.ceil(pair.expected.size / MOST_ELEMENTS)
    taken = tuple(slice(None, None, step if axis == longest else 1) for axis in range(len(shape)))
    steps = tuple(step if axis == longest else 1 for axis in range(len(shape)))
    return pair.expected[taken], pair.got[taken], None if base is None else base[taken], steps


def _largest(array: npt.NDArray[Any]) -> float:
    known = np.isfinite(array)
    finite = np.abs(array if known.all() else array[known])
    return float(finite.max()) if finite.size else 0.0


def _sample(pair: Pair, arrays: Sequence[Any], largest: float, steps: tuple[int, ...]) -> Sample:
    expected, got = (array.astype(np.float64) / largest for array in arrays[:2])
    both = np.isfinite(expected) & np.isfinite(got)
    if not both.all():
        expected, got = np.where(both, expected, 0.0), np.where(both, got, 0.0)
    # What is a thousand times the largest number is told by every metric; its square must not overflow here.
    got = np.clip(got, -1e3, 1e3)
    error = got - expected
    own = None
    if arrays[2] is not None:
        base = arrays[2].astype(np.float64) / largest
        own = np.where(both & np.isfinite(base), expected - np.clip(base, -1e3, 1e3), 0.0)
    whole = all(step == 1 for step in steps)
    inputs = {
        name: np.nan_to_num(array.astype(np.float64), copy=False, posinf=0.0, neginf=0.0)
        for name, array in pair.inputs.items()
        if whole and array.dtype.kind == "f"
    }
    return Sample(pair.case, expected, got, error, own, steps, pair.twin, inputs, _digits(*arrays[:2]))


def _digits(*arrays: npt.NDArray[Any]) -> tuple[int, int, int] | None:
    used, different = [], []
    for array in arrays:
        if array.dtype != np.float32:
            return None
        whole = np.ascontiguousarray(array).view(np.uint32).reshape(-1)
        bits = _fractions(whole[:4096])
        # Where the last one is used in these, the others say no more.
        if bits.size < 1024 or not int(np.bitwise_or.reduce(bits)) & 1:
            bits = _fractions(whole)
        used.append(int(np.bitwise_or.reduce(bits)))
        different.append(np.count_nonzero(np.unique(bits[:1024])))
    return used[0], used[1], int(min(different))


def _fractions(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The 23 bits behind the first digit, of numbers that are finite."""
    kept: npt.NDArray[np.uint32] = bits[bits & 0x7F800000 != 0x7F800000] & 0x7FFFFF
    return kept


def pieces(samples: Sequence[Sample]) -> Iterator[tuple[Floats, Floats, Floats | None]]:
    """(expected, error, own) of each part of each case, flat."""
    for sample in samples:
        count = max(1, min(PARTS, sample.expected.size // _SMALLEST_PART))
        own = [None] * count if sample.own is None else np.array_split(sample.own.reshape(-1), count)
        yield from zip(
            np.array_split(sample.expected.reshape(-1), count),
            np.array_split(sample.error.reshape(-1), count),
            own,
            strict=True,
        )


def power(array: Floats) -> float:
    """Sum of squares."""
    return dot(array, array)


def dot(one: Floats, two: Floats) -> float:
    """Sum of products.  By einsum: OpenBLAS would start threads for it, which wait for each other on a busy host."""
    return float(np.einsum("i,i->", one.reshape(-1), two.reshape(-1)))
