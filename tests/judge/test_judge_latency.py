"""Latency numbers: no percentile without samples, no validity without a measurement."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import Capture, TimingCapture
from edgequant.judge.latency import latency_of, latency_summary, why_no_latency
from edgequant.spec import RunOptions
from tests.judge.archives import BOARD, TRUE, capture, told_by


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e6), min_size=100, max_size=150), st.randoms())
def test_agrees_with_numpy_in_any_order(samples, random):
    expected = np.array(samples)
    random.shuffle(samples)
    found = latency_summary(samples, 3, 1.0, 2.0)
    assert found.p50 == pytest.approx(np.percentile(expected, 50))
    assert found.p90 == pytest.approx(np.percentile(expected, 90))
    assert found.p99 == pytest.approx(np.percentile(expected, 99))
    assert found.stdev == pytest.approx(expected.std(ddof=1), abs=1e-9)
    assert found.mean == pytest.approx(expected.mean())
    assert (found.min, found.max, found.valid) == (min(samples), max(samples), True)


@pytest.mark.parametrize(("n", "known"), [(1, []), (2, ["p50"]), (10, ["p50", "p90"]), (99, ["p50", "p90"])])
def test_a_percentile_needs_its_samples(n, known):
    found = latency_summary([1.0] * n, 0, None, None)
    assert [name for name in ("p50", "p90", "p99") if getattr(found, name) is not None] == known
    assert f"there are {n}" in found.why_null["p99"]
    assert found.why_null["load"] == "not measured"


def test_an_empty_sample_is_not_valid():
    found = latency_summary([], 3, None, None)
    assert (found.n, found.mean, found.valid) == (0, None, False)
    assert found.why_invalid == ["no inference was timed"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e308])
def test_an_impossible_time_is_left_out_and_told(bad):
    found = latency_summary([1.0, bad, 3.0], 0, bad, 1.0)
    assert (found.n, found.mean, found.valid, found.load) == (2, 2.0, False, None if bad != 1e308 else bad)
    assert "1 of 3" in found.why_invalid[0]


def test_the_callers_doubts_are_kept():
    found = latency_summary([1.0, 2.0], 0, 1.0, 1.0, why_invalid=["emulated"])
    assert (found.valid, found.why_invalid) == (False, ["emulated"])


def timed(timing: TimingCapture | None, **more: Any) -> Capture:
    cases = {"none": "too large", **TRUE}
    return capture(MemoryArrays(), cases, timings=() if timing is None else (timing,), load_ms=7.0, **more)


@pytest.mark.parametrize(
    ("complete", "warmup", "why"),
    [
        (True, 2, []),
        (True, 3, []),
        (True, 1, ["the time was over before the warm-up was"]),
        (False, 0, ["2 samples in the time there was, 5 were wanted"]),
        (None, 0, ["the runner did not get to the end of the timing"]),
    ],
)
def test_a_timing_says_what_it_is_of(complete: bool | None, warmup: int, why: list[str]) -> None:
    timing = TimingCapture(case="b", samples_ms=(2.0, 4.0), warmup=warmup, complete=complete)
    found = latency_of(timed(timing), RunOptions(warmup=2, repeat=5))
    assert found is not None
    assert (found.case, found.n, found.mean, found.warmup) == ("b", 2, 3.0, warmup)
    assert (found.load, found.first) == (7.0, 1.0)
    assert (found.valid, found.why_invalid) == (not why, why)


def test_what_was_not_timed_says_why() -> None:
    assert latency_of(timed(None), RunOptions()) is None
    timing = TimingCapture(case="b", samples_ms=(2.0,))
    assert why_no_latency(timed(timing), wanted=True) == "one inference of case 'b'"
    assert why_no_latency(timed(None), wanted=True) == "the run ended before it was timed"
    assert why_no_latency(timed(None), wanted=False) == "not asked for"
    emulated = timed(timing, device=told_by(BOARD, emulator="qemu"))
    assert why_no_latency(emulated, wanted=True) == "emulated by qemu: times would say nothing about the CPU"
    assert why_no_latency(timed(timing, device=told_by(BOARD)), wanted=True) == "one inference of case 'b'"
    nothing = latency_of(capture(MemoryArrays(), {"a": "no"}, timings=(timing,)), RunOptions())
    assert nothing is not None
    assert nothing.first is None
