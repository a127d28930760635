"""Ranges of activations over samples: which vary wildly, and which do not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant.models.varying import WILD, varying_ranges

ENDS = st.floats(-1e6, 1e6, allow_nan=False)


def test_one_wild_tensor():
    finding = varying_ranges(
        {
            "calm": [(-1.0, 1.0), (-2.0, 1.5), (-1.5, 2.0)],
            "wild": [(-1.0, 1.0), (-40.0, 3.0), (-2.0, 1.0)],
            "wilder": [(0.0, 1.0), (0.0, 1.0), (0.0, 100.0)],
        }
    )
    assert finding is not None
    assert finding.where == "wilder"
    assert [entry["tensor"] for entry in finding.evidence["tensors"]] == ["wilder", "wild"]
    assert finding.evidence["tensors"][1] == {"tensor": "wild", "ratio": 20.0, "usual": 2.0, "largest": 40.0}


def test_the_threshold_itself():
    assert varying_ranges({"t": [(0.0, 1.0), (0.0, 1.0), (0.0, WILD)]}) is not None
    assert varying_ranges({"t": [(0.0, 1.0), (0.0, 1.0), (0.0, math.nextafter(WILD, 0))]}) is None


def test_what_cannot_be_told():
    assert varying_ranges({}) is None
    assert varying_ranges({"t": [(0.0, 1.0), (0.0, 1000.0)]}) is None
    assert varying_ranges({"t": [(0.0, 0.0)] * 5 + [(0.0, 1.0)]}) is None
    assert varying_ranges({"t": [(0.0, 0.0)] * 5 + [(0.0, 1.0), (-1.0, 1.0), (0.0, 9.0)]}) is not None


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (0.0, math.inf), (1.0, -1.0)])
def test_no_ranges(bad):
    with pytest.raises(ValueError, match="'t'"):
        varying_ranges({"t": [(0.0, 1.0), bad, (0.0, 1.0)]})


@given(st.lists(st.tuples(ENDS, ENDS).map(lambda ends: (min(ends), max(ends))), min_size=1, max_size=9), st.randoms())
def test_neither_order_nor_unit_matters(samples, random):
    shuffled = list(samples)
    random.shuffle(shuffled)
    scaled = [(low * 4, high * 4) for low, high in shuffled]  # by a power of two, which rounds nothing
    found = [varying_ranges({"t": each}) for each in (samples, shuffled, scaled)]
    assert len({each is None for each in found}) == 1
    if found[0] is not None:
        assert {each.evidence["tensors"][0]["ratio"] for each in found if each is not None} == {
            found[0].evidence["tensors"][0]["ratio"]
        }
