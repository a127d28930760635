"""Arrays beside their reference, timings in blocks, and what else `compare` takes, from fixed seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray | None]

SIZES = (1.0, 1e-3, 1e-20, 1e-39, 3e25, 1e300, 1e-310)
SHAPES = ((), (1,), (2,), (3, 4), (5, 1, 7), (101,), (2, 3, 4, 5), (9000,), (3, 11000), (66000,))
CHANGES = ("noise", "gain", "offset", "exact", "outlier", "negative", "zero", "constant", "shuffled")
BROKEN = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def _changed(how: str, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flat = reference.reshape(-1)
    size = np.abs(flat).max()
    found = {
        "noise": lambda: flat + 0.01 * size * rng.standard_normal(flat.size),
        "gain": lambda: flat * 1.03,
        "offset": lambda: flat + 0.1 * size,
        "exact": lambda: flat,
        "outlier": lambda: np.where(np.arange(flat.size) == flat.size // 2, flat + size / 2, flat),
        "negative": lambda: -flat,
        "zero": lambda: 0 * flat,
        "constant": lambda: 0 * flat + size / 3,
        "shuffled": lambda: rng.permutation(flat),
    }[how]()
    return np.asarray(found).reshape(reference.shape)


def floats() -> Iterator[tuple[str, Arrays]]:
    rng = np.random.default_rng(21)
    for number, change in enumerate(CHANGES):
        for place, shape in enumerate(SHAPES):
            size = SIZES[(3 * number + place) % len(SIZES)]
            dtype = "f8" if not 1e-30 < size < 1e30 else ("f4", "f4", "f2", "f8")[(number + place) % 4]
            dtype = "f4" if dtype == "f2" and size != 1.0 else dtype
            mean = (number + place) % 3
            reference = np.asarray(size * (mean * 10 + rng.standard_normal(shape))).astype(dtype)
            got = _changed(change, reference, rng).astype("f4" if dtype == "f2" else dtype)
            yield f"{change} {shape} {size:g} {dtype}", (reference, got)
    ramp = np.linspace(-1, 2, 60, dtype=np.float32)
    yield "zero", (0 * ramp, 0 * ramp)
    yield "zero, error", (0 * ramp, 0.01 * ramp)
    for size in (8192, 4 * 8192, 5 * 8192, 8191, 8193):
        long = np.sin(np.arange(size, dtype=np.float32))
        yield f"{size}", (long, long + np.float32(0.01) * np.cos(np.arange(size, dtype=np.float32)))
    yield "positive", (ramp + 2, (ramp + 2) * np.float32(1.01))
    yield "negative", (ramp - 5, (ramp - 5) * np.float32(1.01))
    yield "minus zero", (-0 * ramp, 0 * ramp)
    for size in (1e-44, 1e-38, 1e38):
        single = np.float32(size)
        yield f"{size:g} single", (single * ramp, single * ramp[::-1])
        yield f"{size:g} single, near", (single * ramp, single * ramp * np.float32(1.03))
    yield "constant", (0 * ramp + 5, 0 * ramp + 5)
    yield "constant, error", (0 * ramp - 5, 0 * ramp - 5.5)
    yield "constant, varying", (0 * ramp - 5, ramp)
    yield "a step", (ramp, np.where(ramp > 0, 1, 0).astype(np.float32))
    yield "columns", (ramp.reshape(6, 10).T, np.ascontiguousarray(ramp.reshape(6, 10).T) * np.float32(1.01))
    yield "every other", (np.arange(40000.0)[::2], np.arange(40000.0)[::2] * 1.001)
    yield "double and single", (ramp.astype(np.float64) * 1.0000001, ramp)
    yield "apart", (np.array([1.7e308, -1.7e308, 0]), np.array([-1.7e308, 1.7e308, 1.0]))
    yield "tiny under huge", (np.array([5e-324, 0, 0]), np.array([1e308, 0, 1]))
    yield "small on a mean", ((1e4 + ramp), (1e4 + ramp[::-1]))


def nonfinite() -> Iterator[tuple[str, Arrays]]:
    ramp = np.linspace(-1, 2, 40, dtype=np.float32)
    for one, first in BROKEN.items():
        for other, second in BROKEN.items():
            both = ramp.copy(), ramp * np.float32(1.01)
            both[0][[2, 5, 9]] = first
            both[1][[2, 9, 30, 31]] = second
            yield f"{one} and {other}", both
        broken = ramp.copy()
        broken[[0, -1]] = first
        yield f"{one} expected", (broken, ramp)
        yield f"{one} got", (ramp, broken)
        yield f"{one} in both", (broken, broken.copy())
        yield f"{one} alone in both", (ramp[:2] * 0 + first, ramp[:2] * 0 + first)
        yield f"nothing but {one}", (ramp, 0 * ramp + first)
        yield f"{one} missing", (broken, None)
        yield f"{one}, other shapes", (broken, broken[:9])
    long, wrong = np.sin(np.arange(30000.0)), np.sin(np.arange(30000.0)) + 1e-3
    long[8192:16384] = -np.inf
    wrong[8192:16384] = -np.inf
    yield "a masked chunk", (long, wrong)
    wrong = wrong.copy()
    wrong[29000] = -np.inf
    yield "masked once more", (long, wrong)
    late = np.sin(np.arange(40000.0))
    late[:33000] = np.nan
    yield "finite at last", (late, late * 1.01)
    for dtype in (np.float32, np.float64):
        one, two = np.sin(np.arange(40000.0)).astype(dtype), np.cos(np.arange(40000.0)).astype(dtype)
        one[[1, 9000, 9001, 30000]], two[[5, 9000, 9001, 20000]] = np.nan, np.nan
        one[[2, 3, 39000]], two[[3, 7, 8, 39000, 39001]] = np.inf, -np.inf
        yield f"in several chunks, {np.dtype(dtype)}", (one, two)
        yield f"in several chunks, {np.dtype(dtype)}, other shapes", (one, two[1:])
        yield f"in several chunks, {np.dtype(dtype)}, columns", (one.reshape(4, -1).T, two.reshape(4, -1).T)
        early = np.where(np.arange(40000) < 10, two, one)
        yield f"in an early chunk, {np.dtype(dtype)}", (one, early)


def others() -> Iterator[tuple[str, Arrays]]:
    """Whole numbers, and what cannot be compared."""
    rng = np.random.default_rng(22)
    limits = np.array([0, 1, 127, -128, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)], np.int64)
    for kinds in ("i1 i4", "i4 i4", "u1 i8", "?i4", "? ?", "i8 i8", "u8 i8", "u8 u8"):
        one, two = kinds.replace("?i", "? i").split()
        reference = rng.integers(0, 2 if one == "?" else 120, (7, 3)).astype(one)
        got = np.where(rng.random((7, 3)) < 0.3, 1 - reference.astype(two), reference).astype(two)
        yield f"{one} {two}", (reference, got)
        yield f"{one} {two} exact", (reference, reference.astype(two))
    yield "limits", (limits, limits[::-1])
    yield "beyond single", (limits[6:7], limits[6:7] - 1)
    yield "limits, one off", (limits, np.where(limits == 2**53 + 1, 2**53, limits))
    yield "beyond int64", (np.array([2**64 - 1, 2**63, 5], np.uint64), np.array([2**63 - 1, -1, 5], np.int64))
    yield "zeros", (np.zeros(5, int), np.zeros(5, int))
    yield "beyond int64 by much", (np.array([2**64 - 1, 7], np.uint64), np.array([-(2**63), 7], np.int64))
    yield "beyond int64 alone", (np.array([7], np.int64), np.array([2**64 - 1], np.uint64))
    yield "zeros, one off", (np.zeros(5, int), np.arange(5))
    yield "sevens", (np.full(5, -7), np.full(5, -9))
    many = rng.integers(-1000, 5, 20000)
    yield "many", (many, np.where(np.arange(20000) % 7000 == 6999, many + 3, many))
    yield "empty", (np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4"))
    yield "empty missing", (np.zeros((0, 3), "f4"), None)
    yield "whole missing", (np.arange(-3, 3), None)
    yield "zero missing", (np.zeros(3, "f4"), None)
    yield "constant missing", (np.full(3, -2.0, "f4"), None)
    yield "float for whole", (np.arange(3), np.arange(3.0))
    yield "whole for float", (np.arange(3.0), np.arange(3))
    yield "complex", (np.arange(3.0), np.arange(3) + 1j)
    yield "complex expected", (np.arange(3) + 1j, np.arange(3.0))
    yield "words", (np.array(["a"]), np.array(["a"]))
    yield "other shapes", (np.arange(6.0), np.arange(6.0).reshape(2, 3) - 7)
    yield "whole, other shapes", (np.arange(6), np.arange(5))


def pairs() -> Iterator[tuple[str, Arrays]]:
    yield from floats()
    yield from nonfinite()
    yield from others()


def groups() -> Iterator[tuple[str, dict[str, Arrays]]]:
    """Cases of one output."""
    known = dict(pairs())
    names = list(known)
    yield "none", {}
    for start in range(0, len(names), 5):
        some = names[start : start + 9 : 2]
        yield some[0], {name: known[name] for name in some}
    for start in range(0, 60, 7):
        yield f"apart from {names[start]}", {names[at]: known[names[at]] for at in range(start, len(names), 23)}
    ramp = np.linspace(-1, 1, 30, dtype=np.float32)
    for name, by in (("quiet", 1e-6), ("hardly quiet", 1.1e-6)):
        yield name, {"a": (ramp * 1e-6, ramp * 1e-6 + by), "b": (ramp, ramp + np.float32(0.01))}
        yield f"{name} alone", {"a": (ramp * 0, ramp * 0 + np.float32(by))}


def lists() -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, bool]]]:
    """Rows that moved, went or came."""
    rng = np.random.default_rng(23)
    boxes = rng.uniform(1, 9, (14, 5)).astype(np.float32) * np.float32([64, 64, 64, 1, 0])
    moved = boxes[[0, 2, 1, 3, 4, 5, 9, 6, 7, 8, 13, 10, 11, 12]] + np.float32(0.01)
    whole = rng.integers(0, 6, (3, 12))
    yield "moved", (boxes, moved, False)
    yield "moved, one axis more", (boxes[None], moved[None], False)
    yield "two pictures", (boxes.reshape(2, 7, 5), moved.reshape(2, 7, 5), False)
    yield "columns", (boxes.T, moved.T, True)
    yield "columns of a picture", (boxes.T[None], moved.T[None], True)
    yield "fewer", (boxes, moved[:9], False)
    yield "more", (boxes[3:11], moved, False)
    yield "more, first axis of three", (boxes[:, None], moved[:9, None], False)
    yield "none left", (boxes, moved[:0], False)
    yield "none expected", (boxes[:0], moved, False)
    yield "near", (boxes, boxes + 0.249 * np.abs(boxes).max(0), False)
    yield "far", (boxes, boxes + 0.2501 * np.abs(boxes).max(0), False)
    yield "just in reach", (np.array([4.0, 0.0]), np.array([5.0, 1.0]), False)
    yield "just out of it", (np.array([4.0, 0.0]), np.array([5.0, 1.0001]), False)
    yield "equal rows", (np.ones((6, 2)), np.ones((6, 2)), False)
    yield "equally near", (np.array([1.0, 1.2, 1.4, 9.0]), np.array([1.1, 1.3, 1.1, 8.0, 9.0]), False)
    yield "whole numbers", (whole, whole[[2, 0, 1]], False)
    yield "whole numbers, columns", (whole, whole[:, ::-1], True)
    yield "whole numbers, one off", (whole, whole + (np.arange(12) == 4), True)
    yield "single column", (boxes[:, :1], moved[::-1, :1], False)
    yield "single column of several", (boxes[None, :, 1:2], moved[None, ::-1, 1:2], False)
    yield "single row", (boxes[:1], moved[:1], False)
    yield "a line", (boxes[:, 1], moved[:, 1], False)
    yield "a number", (boxes[0, 0], moved[0, 0], False)
    yield "broken", (boxes, np.where(np.arange(14)[:, None] % 4 == 1, np.nan, moved), False)
    yield "broken expected", (np.where(boxes > 550, np.inf, boxes), moved, False)
    yield "rows of nothing", (boxes[:, :0], moved[:9, :0], False)
    yield "other kinds", (boxes, moved.astype(int), False)
    yield "large whole numbers", (2**53 + np.array([1, 0, 5]), 2**53 + np.array([0, 1, 4]), False)
    yield "other ranks", (boxes, moved[None], False)
    yield "two axes differ", (boxes, moved[:9, :4], False)
    yield "many", (np.arange(2048.0)[:, None], np.arange(2048.0)[:, None], True)
    yield "as many as can be", (np.arange(2048), np.arange(2048)[::-1], False)
    yield "too many", (np.arange(2049), np.arange(2049), False)


def classes() -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """Probabilities, logits, scores and labels."""
    rng = np.random.default_rng(24)

    def soft(logits: np.ndarray, axis: int = -1) -> np.ndarray:
        up = np.exp(logits - logits.max(axis, keepdims=True))
        return np.asarray((up / up.sum(axis, keepdims=True)).astype(np.float32))

    for name, shape, axis in [("rows", (40, 5), -1), ("image", (2, 4, 6, 3), 1), ("line", (6,), -1),
                              ("three", (1, 3, 20), 1), ("two", (30, 2), -1)]:  # fmt: skip
        one = (3 * rng.standard_normal(shape)).astype(np.float32)
        two = one + rng.standard_normal(shape).astype(np.float32)
        yield f"{name}, logits", [(one, two), (two, one)]
        yield f"{name}, probabilities", [(soft(one, axis), soft(two, axis)), (soft(two, axis), soft(one, axis))]
        yield f"{name}, logarithms", [(np.log(soft(one, axis)), np.log(soft(two, axis)))]
        yield f"{name}, scores", [(1 / (1 + np.exp(-one)), 1 / (1 + np.exp(-two)))] * 2
        yield f"{name}, labels", [(one.argmax(axis), two.argmax(axis)), (two.argmax(axis), one.argmax(axis))]
    p = np.array([[0.6, 0.4], [0.6001, 0.3999], [0.61, 0.39], [0.4, 0.6], [0.2, 0.8]])
    yield "clear by a fifth", [(p, p[:, ::-1])]
    yield "sums off by little", [(p * 1.0009, p), (p, p)]
    yield "sums off", [(p * 1.0012, p)]
    yield "a little below zero", [(np.array([[1 + 5e-7, -5e-7]]), np.array([[1.0, 0.0]]))]
    yield "below zero", [(np.array([[1.0005, -5e-4]]), np.array([[1.0, 0.0]]))]
    yield "a little above one", [(np.array([[1.0009, 0.0]]), np.array([[1.0, 0.0]]))]
    yield "still a little above one", [(np.array([[1.001005, 0.0]]), np.array([[1.0, 0.0]]))]
    yield "sure of all", [(np.array([[0.0, -800.0], [-900.0, 0.0]]), np.array([[-800.0, 0.0], [-900.0, 0.0]]))]
    yield (
        "sure of one",
        [(np.log([[1.0, 1e-300], [0.59, 0.41], [0.61, 0.39]]), np.log([[0.5, 0.4], [0.5, 0.6], [0.3, 0.7]]))],
    )
    broken = np.array([[np.nan, -2.0, -1.0], [-1.0, np.nan, -3.0]])
    yield "NaN beside negative ones", [(np.array([[-5.0, -6.0, -1.0], [-1.0, -5.0, -9.0]]), broken)]
    far = np.array([[700.0, 699.0, 1.0], [-700.0, -705.0, -706.0]])
    yield "far apart", [(far, far[:, ::-1])]
    yield "far apart, image", [(far.T[None, :, :, None], far.T[None, ::-1, :, None])]
    big = 1e6 + np.arange(4000.0, dtype=np.float32)[:, None] % 3 * np.float32([1, -1])
    yield "large", [(big, big[:, ::-1])]
    yield "not finite", [(p, p), (np.array([[np.nan, 1.0]]), p[:1]), (p, np.where(p > 0.5, np.nan, p))]
    yield "other shapes", [(p, p[:2]), (p[:0], p[:0])]
    yield "other shapes and some", [(p, p[:2]), (p[:3], p[2:])]
    yield "one class", [(np.ones((4, 1)), np.ones((4, 1)))]
    yield "a number", [(np.float64(0.7), np.float64(0.2))]
    yield "halves", [(np.array([0.5, 0.4, 0.6, 0.39, 0.61, 0.0, 1.0]), np.array([0.6, 0.5, 0.5, 0.4, 0.5, 1.0, 0.0]))]
    yield "beyond one", [(np.array([0.5, 1.1]), np.array([0.5, 0.2])), (np.array([0.2, 0.9]), np.array([0.5, 0.2]))]
    yield "below nought", [(np.array([-0.1, 1.0]), np.array([0.5, -0.2]))]
    yield "nothing", []


def timings() -> Iterator[tuple[str, tuple[list[list[float]], list[list[float]], float]]]:
    """Blocks of two things, and a level."""
    rng = np.random.default_rng(25)
    for number, (blocks, samples) in enumerate([(1, 1), (1, 40), (2, 2), (3, 9), (3, 10), (4, 99), (7, 100), (12, 31)]):
        one, two = (
            [((10 + by) * np.exp(0.05 * rng.standard_normal(samples + row % 3))).tolist() for row in range(blocks)]
            for by in (0, 0.3)
        )  # fmt: skip
        yield f"{blocks} of {samples}", (one, two, (0.95, 0.99, 0.9)[number % 3])
    yield "the same", ([[2.0, 2.0]] * 3, [[4.0]] * 3, 0.99)
    yield "one beside several", ([[1.0], [2.0]], [[3.0, 4.0], [5.0]], 0.95)
    yield "nought", ([[0.5, 1.5], [1.0]], [[3.0], [5.0, 1.0, 2.0]], 0.5)


def spreads() -> Iterator[tuple[str, tuple[np.ndarray, dict[str, Any]]]]:
    rng = np.random.default_rng(26)
    for size in (29, 30, 31, 77, 399, 400, 1000):
        expected = rng.standard_normal(size).astype(np.float32)
        got = np.where(rng.random(size) < 0.02, np.nan, expected * 1.3 - 0.5)
        got[:2] = 1e9, -1e9
        yield str(size), (expected, {"expected": expected, "got": got, "none": got[:0]})
    yield "constant", (np.full(50, 2.0), {"got": np.arange(50.0)})
    yield "one other", (np.where(np.arange(50) == 3, 1.0, 2.0), {"got": np.arange(50.0)})
    broken = np.where(np.arange(60) % 2 == 0, np.inf, np.arange(60.0))
    yield "just enough are finite", (broken, {"got": broken})
    yield "too few are finite", (broken[2:], {"got": broken})
