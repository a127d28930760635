"""How the numbers of a tensor are spread, counted in bins that several versions of it have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FEWEST, MOST_BINS = 30, 40
"""Fewer numbers show nothing; more bins than that nobody reads.  In between there are twice the root of the numbers."""
BEYOND = 0.25
"""Of the range of what is expected: so far the bins go on beyond it; what is farther is in the first or last."""


def spread(expected: np.ndarray, arrays: Mapping[str, np.ndarray]) -> tuple[float, float, dict[str, list[int]]] | None:
    """Where the first bin begins, where the last ends, and how many finite numbers of each array are in each bin.

    None where what is expected has no range, or too few numbers.
    """
    finite = expected[np.isfinite(expected)].astype(np.float64)
    if finite.size < FEWEST:
        return None
    least, most = float(finite.min()), float(finite.max())
    if not most > least:
        return None
    low, high = least - BEYOND * (most - least), most + BEYOND * (most - least)
    bins, counts = min(MOST_BINS, int(2 * finite.size**0.5)), {}
    for where, array in arrays.items():
        known = array[np.isfinite(array)].astype(np.float64)
        counts[where] = np.histogram(np.clip(known, low, high), bins, (low, high))[0].tolist()
    return low, high, counts
