"""Inner tensors reduced to numbers where they are: what a tensor holds, and how far it is from one that is expected.

The host imports it too, so that both ends reduce in the same way.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional

import numpy as np

PIECE = 1 << 18
"""Elements that are widened to float64 at a time."""
LONGEST_AXIS = 1 << 16
AT_LIMIT = 1e-3
"""Of the range: so near to its ends counts as at the end."""


def stats(array: np.ndarray) -> Dict[str, Any]:
    """Its shape, how many elements, NaN, Inf and zeros it has; min, max, mean, mean magnitude and rms of those that are
    finite (None where there are none); the shares that lie at the least and at the largest value."""
    flat = array.reshape(-1)
    found = {"n": int(flat.size), "nan": 0, "inf": 0, "zeros": 0}  # type: Dict[str, Any]
    found["shape"] = list(array.shape)
    low, high, total, size, square, finite = math.inf, -math.inf, 0.0, 0.0, 0.0, 0
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE].astype(np.float64)
        nan, good = np.isnan(piece), np.isfinite(piece)
        found["nan"] += int(nan.sum())
        found["inf"] += int(piece.size - nan.sum() - good.sum())
        found["zeros"] += int((piece == 0).sum())
        piece = piece[good]
        if piece.size:
            low, high = min(low, float(piece.min())), max(high, float(piece.max()))
            total, size = total + float(piece.sum()), size + float(np.abs(piece).sum())
            square, finite = square + float(np.einsum("i,i->", piece, piece)), finite + piece.size
    known = finite > 0 and math.isfinite(square)
    found["min"], found["max"] = (low, high) if known else (None, None)
    found["mean"], found["mean_abs"] = (total / finite, size / finite) if known else (None, None)
    found["rms"] = math.sqrt(square / finite) if known else None
    found["at_min"] = found["at_max"] = 0.0
    if known and high > low:
        near = AT_LIMIT * (high - low)
        found["at_min"] = float((flat <= low + near).sum()) / flat.size
        found["at_max"] = float((flat >= high - near).sum()) / flat.size
    return found


def apart(expected: np.ndarray, got: np.ndarray) -> Optional[Dict[str, Any]]:
    """How far `got` is from `expected`, over elements that are finite in both; None where the shapes differ.

    n: these elements; signal, error: rms of expected and of the difference; max_abs: the largest difference; gain:
    least-squares factor of expected in got; lost: elements that are finite in expected alone; axes: per axis
    [index with most of the error, its share of it, length of the axis].
    """
    if expected.shape != got.shape:
        return None
    one, two = expected.reshape(-1), got.reshape(-1)
    signal = error = both = 0.0
    largest, n, lost = 0.0, 0, 0
    difference = np.zeros(one.size, np.float32)
    for start in range(0, one.size, PIECE):
        e, g = one[start : start + PIECE].astype(np.float64), two[start : start + PIECE].astype(np.float64)
        fine = np.isfinite(e)
        lost += int((fine & ~np.isfinite(g)).sum())
        fine &= np.isfinite(g)
        e, g = np.where(fine, e, 0.0), np.where(fine, g, 0.0)
        d = g - e
        n += int(fine.sum())
        signal += float(np.einsum("i,i->", e, e))
        error += float(np.einsum("i,i->", d, d))
        both += float(np.einsum("i,i->", e, g))
        largest = max(largest, float(np.abs(d).max())) if d.size else largest
        difference[start : start + PIECE] = np.clip(d, -1e18, 1e18)
    if not all(map(math.isfinite, (signal, error, both))):
        return None
    return {
        "n": n,
        "signal": math.sqrt(signal / n) if n else 0.0,
        "error": math.sqrt(error / n) if n else 0.0,
        "max_abs": largest,
        "gain": both / signal if signal > 0 else None,
        "lost": lost,
        "axes": _axes(difference.reshape(expected.shape)) if error > 0 else [],
    }


def _axes(difference: np.ndarray) -> List[List[float]]:
    """Per axis: the index with most of the error, its share of it, the axis's length."""
    scale = float(np.abs(difference).max()) or 1.0
    square = np.square(difference / scale)
    found = []
    for axis in range(difference.ndim):
        length = difference.shape[axis]
        if not 1 < length <= LONGEST_AXIS:
            found.append([0, 1.0, length])
            continue
        sums = square.sum(axis=tuple(other for other in range(difference.ndim) if other != axis), dtype=np.float64)
        worst = int(sums.argmax())
        found.append([worst, float(sums[worst] / max(sums.sum(), 1e-300)), length])
    return found
