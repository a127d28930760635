"""How numbers are spread, against a slow count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgequant.compare.spread import FEWEST, spread


def test_every_number_is_in_its_bin_and_what_is_far_off_at_the_ends() -> None:
    rng = np.random.default_rng(1)
    expected = rng.normal(size=500).astype(np.float32)
    clipped = np.concatenate([np.minimum(expected, 0.5), np.float32([1e30, -1e30, np.nan, np.inf])])
    found = spread(expected, {"plain": expected, "here": clipped})
    assert found is not None
    low, high, counts = found
    span = float(expected.max()) - float(expected.min())
    assert (low, high) == pytest.approx((float(expected.min()) - span / 4, float(expected.max()) + span / 4))
    edges = np.linspace(low, high, len(counts["plain"]) + 1)
    assert counts["plain"] == [int(((expected >= a) & (expected < b)).sum()) for a, b in itertools.pairwise(edges)]
    assert (counts["here"][0], counts["here"][-1], sum(counts["here"])) == (1, 1, 502)


def test_what_has_no_range_or_too_few_numbers_shows_nothing() -> None:
    assert spread(np.zeros(100, np.float32), {}) is None
    assert spread(np.full(100, np.nan, np.float32), {}) is None
    assert spread(np.arange(FEWEST - 1, dtype=np.float32), {}) is None
