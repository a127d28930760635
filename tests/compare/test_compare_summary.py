"""Folding cases: nothing bad may average away or get lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgequant.compare.metrics import compare
from edgequant.compare.summary import summarize

RAMP = np.linspace(-1, 1, 50, dtype=np.float32)


def off(by: float, size: float = 1.0):
    return compare(RAMP * size, RAMP * size + np.float32(by))


def test_the_worst_of_each_metric_and_where_it_was():
    summary = summarize({"good": off(0.001), "bad": off(0.1), "large": off(0.2, 1000)})
    assert summary.worst_case == "bad"
    assert summary.values["sqnr_db"] == off(0.1).sqnr_db
    assert summary.values["max_abs"] == pytest.approx(0.2, rel=1e-2)
    assert (summary.worst_cases["sqnr_db"], summary.worst_cases["max_abs"]) == ("bad", "large")


def test_the_order_of_the_cases_does_not_matter():
    cases = {"a": off(0.1), "b": off(0.1), "c": compare(RAMP, None), "d": compare(RAMP, RAMP)}
    assert len({repr(summarize(dict(order))) for order in itertools.permutations(cases.items())}) == 1


def test_a_problem_is_worse_than_any_number():
    nan = RAMP.copy()
    nan[0] = np.nan
    summary = summarize({"far": off(1e9), "nan": compare(RAMP, nan), "ok": off(0)})
    assert (summary.worst_case, summary.problems, summary.nan) == ("nan", {"nan": "nonfinite"}, 1)
    assert "1 NaN" in summary.details["nan"]


def test_a_zero_case_counts_in_absolute_metrics_only():
    zero = compare(RAMP * 0, RAMP * 0 + np.float32(5))
    summary = summarize({"zero": zero, "ok": off(0.001)})
    assert summary.zero_cases == {"zero": 5.0}
    assert summary.worst_case == "zero"
    assert summary.values["sqnr_db"] > 50
    assert summary.values["max_abs"] == 5.0


def test_the_least_error_in_a_zero_case_is_looked_at_before_none():
    tiny = compare(np.zeros(50), np.full(50, 1e-300))
    assert summarize({"equal": off(0), "tiny": tiny, "zero": compare(RAMP * 0, RAMP * 0)}).worst_case == "tiny"


def test_constant_cases_do_not_lend_their_cosine():
    flat = compare(np.ones(50, np.float32), np.full(50, 0.5, np.float32))
    assert not summarize({"flat": flat, "ok": off(0.1)}).cosine_says_nothing
    assert summarize({"flat": flat}).cosine_says_nothing


def test_a_broken_reference_does_not_colour_the_numbers():
    broken = RAMP.copy()
    broken[3] = np.inf
    summary = summarize({"broken": compare(broken, broken + 9), "ok": off(0.001)})
    assert summary.values["max_abs"] < 0.01
    assert (summary.ref_inf, summary.judgeable) == (1, 1)


def test_sums_and_counts():
    nan = np.full(50, np.nan, np.float32)
    summary = summarize({"a": compare(RAMP, nan), "b": compare(RAMP, nan)})
    assert (summary.cases, summary.nan, summary.elements, summary.exact) == (2, 100, 100, False)


def test_no_case_at_all():
    summary = summarize({})
    assert (summary.cases, summary.worst_case, summary.exact) == (0, None, False)


def test_integers():
    summary = summarize({"a": compare(np.arange(10), np.arange(10)), "b": compare(np.arange(10), np.arange(10) // 2)})
    assert (summary.kind, summary.values["mismatch"], summary.worst_case) == ("int", 0.9, "b")
