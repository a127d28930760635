"""Which class wins, row by row: what a user of probabilities sees of them.  Pure functions over NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

CLEAR = 0.2
"""A winner this far ahead of the second, in probability, is a clear one: of others rounding may make any."""
_IMAGE = 4
_MOST = 1 << 25
"""Elements that are looked at as a whole; of more, the first."""


@dataclass
class Winners:
    """Rows by the class that wins in the reference.

    Attributes:
        rows: all of them.
        clear, right: class -> rows that it wins clearly, and how many of those it wins in `got` as well.
        became: class -> the class that won instead, most often, and how often.
    """

    rows: int = 0
    clear: dict[int, int] = field(default_factory=dict)
    right: dict[int, int] = field(default_factory=dict)
    instead: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Clear rows with another winner."""
        return sum(self.clear.values()) - sum(self.right.values())

    @property
    def judged(self) -> int:
        return sum(self.clear.values())

    def lost(self, at_least: int) -> list[int]:
        """Classes with so many clear rows of which not one came out right."""
        return sorted(name for name, rows in self.clear.items() if rows >= at_least and not self.right.get(name))

    def became(self, name: int) -> int:
        """The class that most often won in place of this one."""
        others = {other: count for (of, other), count in self.instead.items() if of == name}
        return max(others, key=lambda other: (others[other], -other))

    def add(self, expected: np.ndarray, got: np.ndarray, clear: np.ndarray) -> None:
        """Winners of rows; `clear`: which of them count."""
        self.rows += expected.size
        expected, got = expected[clear], got[clear]
        for counts, winners in ((self.clear, expected), (self.right, expected[expected == got])):
            for name, count in zip(*np.unique(winners, return_counts=True), strict=True):
                counts[int(name)] = counts.get(int(name), 0) + int(count)
        wrong = expected != got
        if wrong.any():
            pairs, many = np.unique(np.stack([expected[wrong], got[wrong]]), axis=1, return_counts=True)
            for of, other, count in zip(*pairs, many, strict=True):
                key = (int(of), int(other))
                self.instead[key] = self.instead.get(key, 0) + int(count)


def of_probabilities(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, logits: bool = False) -> Winners | None:
    """Winners over pairs of (expected, got); None where the expected ones are no probabilities of exclusive classes.

    Their axis is the one along which they, or their exponentials, add up to 1.

    logits: what is no probabilities is what a softmax makes them of, along axis 1 of four and more, else the last.
    """
    found = Winners()
    for expected, got in _alike(pairs):
        axis, plain = _class_axis(expected), True
        if axis is None and logits and expected.ndim:
            axis, plain = 1 if expected.ndim >= _IMAGE else expected.ndim - 1, False
        if axis is None or expected.shape[axis] < 2:
            return None
        p, q = (np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]) for array in (expected, got))
        if not plain:
            p = np.exp(p.astype(np.float64) - p.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
        elif float(p.max()) <= 0:
            p = np.exp(p.astype(np.float64))
        two = np.partition(p, -2)[:, -2:]
        found.add(p.argmax(1), np.nan_to_num(q, nan=-np.inf).argmax(1), two[:, 1] - two[:, 0] > CLEAR)
    return found if found.rows else None


def of_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, logits: bool = False) -> Winners | None:
    """Yes (1) or no (0) for each element, as more or less than one half.

    logits: where one is no number from 0 to 1, they are what a sigmoid makes scores of.
    """
    found = Winners()
    kept = list(_alike(pairs)) if logits else _alike(pairs)
    outside = logits and any(_outside(expected) for expected, _ in kept)
    for expected, got in kept:
        if not logits and _outside(expected):
            return None
        flat, other = expected.ravel().astype(np.float64), got.ravel().astype(np.float64)
        if outside:
            flat, other = (0.5 + 0.5 * np.tanh(each / 2) for each in (flat, other))
        found.add((flat > 0.5).astype(int), (other > 0.5).astype(int), np.abs(flat - 0.5) > CLEAR / 2)
    return found if found.rows else None


def _outside(scores: np.ndarray) -> bool:
    return float(scores.min()) < 0 or float(scores.max()) > 1


def of_classes(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Winners | None:
    """Of whole numbers each of which names a class."""
    found = Winners()
    for expected, got in _alike(pairs):
        found.add(expected.ravel(), got.ravel(), np.ones(expected.size, bool))
    return found if found.rows else None


def _alike(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for expected, got in pairs:
        if expected.shape == got.shape and 0 < expected.size <= _MOST and np.isfinite(expected).all():
            yield expected, got


def _class_axis(p: np.ndarray) -> int | None:
    for values in (p, np.exp(p.astype(np.float64))) if float(p.max()) <= 0 else (p,):
        if float(values.min()) < -1e-6 or float(values.max()) > 1 + 1e-3:
            continue
        for axis in reversed(range(p.ndim)):
            if p.shape[axis] > 1 and np.allclose(values.sum(axis, dtype=np.float64), 1, atol=1e-3):
                return axis
    return None
