"""Two arrays gone through together, a few chunks at a time: what is made of them stays in the cache, and the last bits
of every sum are those of one chunk after another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CHUNK = 1 << 13
"""Elements: their temporaries stay in the cache, and OpenBLAS computes dot products of this size in one thread."""
_ROWS = 4
"""Chunks that are looked at in one call of NumPy, each a row: sums are of rows, whatever their number."""
BIGGEST = sys.float_info.max


def chunks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """The elements in C order, a chunk at a time, without copying the whole array."""
    flat: Any = array.ravel() if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def together(ref: npt.NDArray[Any], out: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Chunks of both; ValueError where one has more."""
    return zip(chunks(ref), chunks(out), strict=True)


def in_pairs(ref: npt.NDArray[Any], out: npt.NDArray[Any]) -> Iterator[tuple[Floats, Floats]]:
    for r, g in together(ref, out):
        yield r.astype(np.float64), g.astype(np.float64)


def in_rows(ref: npt.NDArray[Any], out: npt.NDArray[Any], *, every: bool) -> Iterator[tuple[Floats, Floats]]:
    """Elements as [row, element], each row a chunk; every: all of them, else those that are finite in both."""
    if not (every and ref.flags.c_contiguous and out.flags.c_contiguous):
        for r, g in in_pairs(ref, out):
            if not every:
                r, g = only_finite(r, g)
            yield r[None], g[None]
        return
    flat = ref.ravel(), out.ravel()
    whole = ref.size - ref.size % _CHUNK
    for start in range(0, whole, _ROWS * _CHUNK):
        some = slice(start, min(start + _ROWS * _CHUNK, whole))
        r, g = (each[some].astype(np.float64).reshape(-1, _CHUNK) for each in flat)
        yield r, g
    if whole < ref.size:
        r, g = (each[None, whole:].astype(np.float64) for each in flat)
        yield r, g


def dots(one: Floats, two: Floats) -> list[float]:
    """The dot product of each row, as np.dot gives it."""
    found: list[float] = np.matmul(one[:, None, :], two[:, :, None]).ravel().tolist()
    return found


def sums(rows: Floats) -> list[float]:
    found: list[float] = rows.sum(1).tolist()
    return found


def error_of(r: Floats, g: Floats, *, narrow: bool = False) -> Floats:
    """|r - g| of finite numbers; where even float64 overflows, its largest number instead of infinity.  narrow: they
    were float32 or less, so that it does not."""
    with np.errstate(over="ignore"):
        error = r - g
    np.abs(error, out=error)
    return error if narrow else np.minimum(error, BIGGEST, out=error)


def narrow_both(ref: npt.NDArray[Any], out: npt.NDArray[Any]) -> bool:
    return ref.dtype.itemsize <= 4 and out.dtype.itemsize <= 4


def only_finite(r: Floats, g: Floats) -> tuple[Floats, Floats]:
    both = np.isfinite(r) & np.isfinite(g)
    return (r, g) if both.all() else (r[both], g[both])


def ends_of(r: Floats, g: Floats) -> tuple[float, float, float, float]:
    """The smallest and largest of each; NaN where there is one."""
    with np.errstate(invalid="ignore"):
        return float(r.min()), float(r.max()), float(g.min()), float(g.max())
