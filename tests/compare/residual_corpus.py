"""Cases of outputs, healthy and with planted faults, from fixed seeds: what the tests of a residual are held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgequant.compare.residual import Pair

Shape = tuple[int, ...]
Change = Callable[[Pair, int], np.ndarray]
"""What comes in place of `got`, of the pair and the number of its case."""


def cases(
    shapes: Sequence[Shape],
    seed: int,
    *,
    noise: float = 0.01,
    own: float = 0.0,
    scale: Any = 1.0,
    inputs: Mapping[str, Shape] | None = None,
    dtype: Any = np.float32,
) -> list[Pair]:
    """Normal numbers, with noise that is one half white and one half as large as the number."""
    rng = np.random.default_rng(seed)
    found = []
    for number, shape in enumerate(shapes):
        base = rng.standard_normal(shape) * scale
        wrong = (rng.standard_normal(shape) * (np.abs(base) + scale) / 2 for _ in range(2))
        expected = base + own * next(wrong)
        got = expected + noise * next(wrong)
        given = {name: rng.standard_normal(size).astype(np.float32) for name, size in (inputs or {}).items()}
        arrays = (np.asarray(each).astype(dtype) for each in (expected, got, base))
        expected, got, base = arrays
        found.append(Pair(f"c{number}", expected, got, base if own else None, inputs=given))
    return found


def _steps(lengths: Sequence[int]) -> list[Pair]:
    """x [1, 5, steps] -> y [1, 9, steps]; a mask that is constant, one that has another rank, and numbers."""
    found = []
    for number, length in enumerate(lengths):
        given = {"x": (1, 5, length), "mask": (1, length), "long": (1, 5, length + 1)}
        (pair,) = cases([(1, 9, length)], 100 + number, own=0.03, inputs=given)
        more = {"count": np.arange(5), "x2": np.where(np.abs(x := pair.inputs["x"]) > 1.5, x * np.inf, x)}
        found.append(replace(pair, case=f"c{number}", inputs={**pair.inputs, **more}))
    return found


BASES: dict[str, list[Pair]] = {
    "rows": cases([(4, 60)] * 3, 1),
    "steps": _steps((21, 32, 9, 32, 47)),
    "image": cases([(1, 6, 5, 4)] * 2, 3, own=0.02, scale=np.array([1, 2, 0.5, 3, 1, 1.5])[:, None, None]),
    "flat": cases([(64,)] * 3, 4, own=0.05, noise=0.03),
    "alone": cases([(2, 3, 40)], 5),
    "five": cases([(2, 1, 3, 4, 5)] * 2, 6, noise=0.05),
    "boxes": cases([(6, 60)] * 3, 7, own=0.01, scale=np.array([640, 640, 600, 640, 1, 1.2])[:, None]),
    "wide": cases([(1, 12, 24)] * 4, 8, own=0.1, noise=0.1, inputs={"a": (1, 3, 24), "b": (1, 12, 24)}),
    "double": cases([(3, 50), (3, 50), (3, 33)], 9, dtype=np.float64),
    "two": cases([(2, 300)] * 2, 10, noise=0.002),
}


def _at(axis: int, index: Any, change: Callable[[np.ndarray], Any]) -> Change:
    def fault(pair: Pair, _: int) -> np.ndarray:
        got = pair.got.copy()
        place = (slice(None),) * (axis % got.ndim) + (index,)
        got[place] = change(got[place])
        return got

    return fault


def _moved(shift: int, axis: int = -1) -> Change:
    return lambda pair, _: np.roll(pair.got, shift, axis)


def _order(*order: int) -> Change:
    """The same numbers in another order in memory: of the last axes, or of all where there are fewer."""

    def fault(pair: Pair, _: int) -> np.ndarray:
        before = pair.got.ndim - len(order)
        kept = [*range(before), *(before + place for place in order)] if before >= 0 else range(pair.got.ndim)[::-1]
        return pair.got.transpose(kept).reshape(pair.got.shape)

    return fault


def _in_case(number: int, fault: Change) -> Change:
    return lambda pair, case: fault(pair, case) if case == number else pair.got


def _limited(low: float, high: float) -> Change:
    return lambda pair, _: np.clip(pair.got, *np.quantile(pair.got, [low, high]))


def _rounded(steps: int) -> Change:
    def fault(pair: Pair, _: int) -> np.ndarray:
        step = np.abs(pair.got).max() / steps
        return np.round(pair.got / step) * step

    return fault


def _cut(bits: int) -> Change:
    mask = np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)
    return lambda pair, _: (pair.got.astype(np.float32).view(np.uint32) & mask).view(np.float32).reshape(pair.got.shape)


def _hears(source: int, index: int, share: float) -> Change:
    def fault(pair: Pair, _: int) -> np.ndarray:
        axis = max(0, pair.got.ndim - 2)
        expected, got = np.moveaxis(pair.expected, axis, 0), np.moveaxis(pair.got.copy(), axis, 0)
        got[index] += share * expected[source]
        return np.moveaxis(got, 0, axis)

    return fault


def _hears_input(pair: Pair, _: int) -> np.ndarray:
    got = pair.got.copy()
    for place, array in enumerate(pair.inputs.values()):
        if array.ndim == 3 and array.shape[2] == got.shape[2]:
            got[:, 1 + place] -= 0.2 * np.nan_to_num(array[:, 2], posinf=0)
    return got


def _spoiled(pair: Pair, number: int) -> np.ndarray:
    got = pair.got.copy().reshape(-1)
    got[[0, -1, 3]] = np.nan, np.inf, -np.inf
    got[5] = 1e9 * (number + 1)
    return got.reshape(pair.got.shape)


def _channel(change: Callable[[np.ndarray], Any], index: int = 1) -> Change:
    return lambda pair, number: _at(max(0, pair.got.ndim - 2), index, change)(pair, number)


def _swapped(pair: Pair, _: int) -> np.ndarray:
    axis = max(0, pair.got.ndim - 2)
    order = np.arange(pair.got.shape[axis])
    order[[0, 1]] = 1, 0
    return pair.got.take(order, axis)


def _tail(pair: Pair, _: int) -> np.ndarray:
    got = pair.got.copy()
    rest = got.shape[-1] % 8
    got[..., got.shape[-1] - rest :] *= 1.2
    return got


def _element(pair: Pair, number: int) -> np.ndarray:
    got = pair.got.copy()
    got[tuple(size // 2 for size in got.shape)] += 0.5 + 0.1 * number
    return got


FAULTS: dict[str, Change] = {
    "none": lambda pair, _: pair.got,
    "exact": lambda pair, _: pair.expected,
    "next to nothing": lambda pair, _: pair.expected * np.float32(1 + 4e-4),
    "gain": lambda pair, _: pair.got * 1.05,
    "offset": lambda pair, _: pair.got - 0.03,
    "pattern": lambda pair, _: pair.got + np.linspace(-0.04, 0.06, pair.got.shape[-1]),
    "channel silent": _channel(lambda got: 0 * got),
    "channel stuck": _channel(lambda got: 0 * got - 0.7, 0),
    "last stuck": _at(-1, -1, lambda got: 0 * got + 0.2),
    "all stuck": lambda pair, _: 0 * pair.got + 0.25,
    "channel loud": _channel(lambda got: got * 1.2),
    "first step": _at(-1, 0, lambda got: got * 0.8),
    "last step": _at(-1, -1, lambda got: got * 0.7),
    "late": _moved(1),
    "early": _moved(-1),
    "two late": _moved(2),
    "two early, first axis": _moved(-2, 0),
    "flipped": lambda pair, _: np.flip(pair.got, -1),
    "upside down": lambda pair, _: np.flip(pair.got, max(0, pair.got.ndim - 2)),
    "transposed": _order(1, 0),
    "axes turned": _order(1, 2, 0),
    "six bits": _rounded(31),
    "three levels": _rounded(1),
    "clipped above": _limited(0, 0.8),
    "clipped below": _limited(0.1, 1),
    "half": lambda pair, _: pair.got.astype(np.float16),
    "eleven bits": _cut(13),
    "bfloat16": _cut(16),
    "hears another": _hears(0, 2, 0.06),
    "hears a lot": _hears(1, -1, -0.5),
    "hears an input": _hears_input,
    "not finite": _spoiled,
    "a tail": _tail,
    "an element": _element,
    "changed places": _swapped,
    "one case loud": _in_case(1, lambda pair, _: pair.got * 1.08),
    "one case quiet": _in_case(0, lambda pair, _: pair.got * 0.9),
    "one case noisy": _in_case(1, lambda pair, _: pair.got + 0.3 * np.sin(1e3 * pair.expected)),
    "bent": lambda pair, _: pair.got + 0.1 * np.tanh(pair.expected) ** 2,
    "stepped": lambda pair, _: np.where(pair.expected > 1, pair.got - 0.1, pair.got),
    "undone": lambda pair, _: 2 * pair.expected - (pair.expected if pair.base is None else pair.base),
    "otherwise": lambda pair, _: pair.expected + 0.04 * np.sin(1e4 * pair.expected),
    "upside": lambda pair, _: -pair.got,
    "huge": lambda pair, _: pair.got * np.where(pair.expected > 1.5, 1e6, 1),
}


def with_fault(pairs: Sequence[Pair], fault: Change) -> list[Pair]:
    return [replace(pair, got=fault(pair, number).astype(pair.got.dtype)) for number, pair in enumerate(pairs)]


THRESHOLDS = [
    (3, 10), (4, 10), (5, 9), (7, 8), (8, 8), (9, 8), (8, 5), (15,), (16,), (5, 3), (255,), (256,), (257,), (4, 4, 2),
]  # fmt: skip
"""Sizes at which a test begins to ask, and beside them."""


def _edges() -> Iterator[tuple[str, list[Pair]]]:
    """What has few elements, none, or numbers that make nothing of a formula."""
    for shape in [(), (1,), (2,), (3,), (1, 1), (2, 2), (1, 3), (5, 1), (2, 1, 2), (4, 4), (17,), (2, 8)]:
        for many in (1, 3):
            yield f"{shape} x {many}", cases([shape] * many, len(shape) + many, own=0.1 * (many - 1), noise=0.1)
    for shape in THRESHOLDS:
        for many in (1, 2):
            some = cases([shape] * many, 40 + many, own=0.02 * (many - 1), noise=0.02)
            yield f"{shape} x {many}, one loud", with_fault(some, _at(0, 1, lambda got: got * 1.5))
    rows, wide, steps = BASES["rows"], BASES["wide"], BASES["steps"]
    yield "expected zero", [replace(p, expected=0 * p.expected) for p in rows]
    yield "one expected zero", [replace(p, expected=p.expected * (p.case != "c1")) for p in rows]
    yield "all zero", [replace(p, expected=0 * p.expected, got=0 * p.got) for p in rows]
    yield "expected constant", [replace(p, expected=0 * p.expected + 3) for p in rows]
    yield "tiny", [replace(p, expected=p.expected * np.float32(1e-38), got=p.got * np.float32(1e-38)) for p in rows]
    double = BASES["double"]
    yield "huge", [replace(p, expected=p.expected * 1e300, got=p.got * 1e300) for p in double]
    yield "ranks", [*rows[:1], *cases([(60,)], 1)]
    yield "kinds", [*rows, replace(rows[0], got=rows[0].got.astype(int)), replace(rows[1], got=rows[1].got[:2])]
    yield "nothing", [replace(rows[0], expected=rows[0].expected[:0], got=rows[0].got[:0])]
    yield "no case", []
    yield "base of another shape", [replace(p, base=p.expected[:2]) for p in rows]
    yield "base of whole numbers", [replace(p, base=p.expected.astype(int)) for p in rows]
    yield "one base missing", [replace(p, base=None if p.case == "c2" else p.base) for p in wide]
    yield "base not finite", [replace(p, base=np.where(p.expected > 1.5, np.nan, 1e6 * (p.got > 1.4))) for p in wide]
    yield "twins", [replace(p, twin=p.case > "c1", got=p.got * (1 + 0.2 * (p.case > "c1"))) for p in wide]
    yield "all twins", [replace(p, twin=True) for p in wide]
    yield "rotated", [replace(p, got=q.got) for p, q in zip(wide, [*wide[1:], wide[0]], strict=True)]
    yield "stale", [replace(p, got=wide[0].got if p.case == "c2" else p.got) for p in wide]
    near = [replace(p, expected=wide[0].expected + np.float32(0.02) * p.expected) for p in wide]
    yield "stale where little differs", [replace(p, got=near[0].expected) for p in near]
    yield "stale of another size", [replace(p, got=steps[1].got if p.case == "c3" else p.got) for p in steps]
    yield "expected not finite", [replace(p, expected=np.where(p.got > 1.5, np.inf, p.expected)) for p in rows]
    yield "expected nowhere finite", [replace(p, expected=p.expected * np.nan) for p in rows]
    yield "base is expected", [replace(p, base=p.expected) for p in rows]
    yield "base is expected, a tail", [replace(p, base=p.expected) for p in with_fault(steps, _tail)]
    owns = [replace(p, base=p.expected * np.float32(0.9)) if p.case == "c0" else p for p in wide]
    yield "a gain of its own before another's", with_fault(owns, _in_case(2, lambda pair, _: pair.expected * 1.2))
    silent = [replace(p, expected=p.expected * (p.case != "c0")) for p in wide]
    yield "a silent one before a gain", with_fault(silent, _in_case(2, lambda pair, _: pair.expected * 1.2))
    for shape in ((2, 8), (3, 8)):
        yield f"{shape}, stuck", with_fault(cases([shape], 50), FAULTS["last stuck"])
    yield "nothing finite", [replace(p, got=p.got * np.nan) for p in rows]
    relu = [replace(p, expected=np.maximum(p.expected, 0), got=np.maximum(p.got, 0)) for p in wide]
    yield "closed by a ReLU", relu
    whole = np.arange(-31.0, 33.0, dtype=np.float32).reshape(8, 8) * 2
    yield "off by one", [Pair(case, whole, whole + 1, inputs={"x": whole}) for case in ("a", "b")]
    several = [{"first": np.ones((1, 3 + number, 24), np.float32), **p.inputs} for number, p in enumerate(wide)]
    heard = with_fault([replace(p, inputs=given) for p, given in zip(wide, several, strict=True)], _hears_input)
    yield "an input of several widths before others", heard
    shut = np.array([1, 1, 1, 0, 1e-3] + [1] * 7)[:, None]
    yield "quiet channels", [replace(p, expected=p.expected * shut, got=p.got * shut, base=None) for p in relu]
    noise = 0.01 * np.random.default_rng(3).standard_normal((12, 24))
    yield "noise in a silent channel", [replace(p, expected=p.expected * shut, got=p.got * shut + noise) for p in relu]
    quiet = [replace(p, expected=p.expected * shut, got=p.got * shut) for p in wide]
    yield "a loud gain in a quiet channel", with_fault(quiet, _at(1, 4, lambda got: got * 1.5))
    yield "two channels, one small", cases([(2, 60)] * 2, 80, scale=np.array([[1.0], [0.03]]))
    yield "columns", [replace(p, expected=p.expected.T, got=p.got.T) for p in BASES["boxes"]]
    spread = np.array([1, 1, 1, 1e-6, 1, 1])[:, None]
    yield (
        "boxes in a batch",
        [replace(p, expected=p.expected[None], got=p.got[None], base=None) for p in BASES["boxes"]],
    )
    yield "as good as silent", [replace(p, expected=p.expected / 600 * spread, got=p.got / 600) for p in BASES["boxes"]]
    apart = [0, 4, 1, 2, 5, 3]
    yield "small ones apart", [replace(p, expected=p.expected[apart], got=p.got[apart]) for p in BASES["boxes"]]
    yield "more rows than others", cases([(3, 40), (5, 40), (4, 40)], 77, own=0.02)
    some = cases([(3, 40), (5, 40), (4, 40)], 78)
    yield "more rows than others, one of another", with_fault(some, _at(0, 1, lambda got: got[::-1]))
    for row, column in ((0.01, 0.04), (0.04, 0.01)):
        both = np.where(np.arange(6) < 2, row, 1.0)[:, None] * np.where(np.arange(60) < 20, column, 1.0)
        yield f"small in both axes, {row}", cases([(6, 60)] * 2, 79, scale=both)
    large = cases([(2, 9000)] * 2, 78, own=0.02)
    yield "large", large
    half = np.arange(18000).reshape(2, 9000) < 5000
    yield (
        "large, half at first",
        [replace(p, got=np.where(half, p.got.astype("f2"), p.got).astype("f4")) for p in large],
    )
    yield "whole numbers", [replace(p, expected=np.round(p.expected * 9), got=np.round(p.got * 9)) for p in rows]


def corpus() -> Iterator[tuple[str, list[Pair]]]:
    """Each fault in three of the outputs, and the edges."""
    names = list(BASES)
    chosen = {fault: {names[(number + step) % len(names)] for step in (0, 3, 7)} for number, fault in enumerate(FAULTS)}
    chosen["hears an input"] = {"steps", "wide"}
    for fault in ("a tail", "last step"):
        chosen[fault] |= {"steps", "wide"}
    for fault in ("none", "gain", "six bits"):
        chosen[fault].add("boxes")
    for fault, bases in chosen.items():
        for base in sorted(bases):
            yield f"{base}: {fault}", with_fault(BASES[base], FAULTS[fault])
    yield from _edges()
