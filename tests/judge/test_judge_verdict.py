"""Verdicts: every way in which other tools let a broken model pass is a case here."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgequant.compare.metrics import compare
from edgequant.compare.summary import summarize
from edgequant.judge.limits import default_limits
from edgequant.judge.verdict import OutputVerdict, Verdict, judge_output, worst
from edgequant.spec import Limit

quick = settings(deadline=None, max_examples=60)
RNG = np.random.default_rng(0)
SIGNAL = RNG.standard_normal(1000).astype(np.float32)
NOISE = RNG.standard_normal(1000).astype(np.float32)
LOOSE = [Limit.parse(text) for text in ("cosine>=-1", "sqnr_db>=-1000", "rel_max<=1e30", "max_abs<=1e30")]


def judge(reference, got, *limits: str, method: str = "dynamic") -> OutputVerdict:
    comparison = compare(np.asarray(reference), None if got is None else np.asarray(got))
    held = [Limit.parse(text) for text in limits] or default_limits(method, comparison.kind)
    return judge_output(summarize({"case": comparison}), held, output="out", remedy="Try fp16.")


def codes(verdict: OutputVerdict) -> set[str]:
    return {finding.code for finding in verdict.findings}


def test_equal_passes_without_a_word():
    found = judge(SIGNAL, SIGNAL)
    assert (found.verdict, found.reasons, found.findings, found.failed) == (Verdict.PASS, (), (), ())


@pytest.mark.parametrize(
    ("noise", "verdict"), [(0.03, Verdict.PASS), (0.094, Verdict.MARGINAL), (0.2, Verdict.FAIL), (5, Verdict.FAIL)]
)
def test_noise(noise, verdict):
    assert judge(SIGNAL, SIGNAL + np.float32(noise) * NOISE, "sqnr_db>=20").verdict is verdict


def test_a_broken_limit_names_metric_value_bound_and_case():
    found = judge(SIGNAL, SIGNAL + NOISE, "sqnr_db>=20")
    (finding,) = found.findings
    assert (finding.code, finding.severity, finding.where) == ("LIMIT_EXCEEDED", "fail", "out")
    assert finding.evidence["bound"] == 20
    assert "case" in finding.message
    assert finding.remedy
    assert found.failed[0].limit.metric == "sqnr_db"


def test_of_several_cases_it_says_that_it_is_the_worst():
    cases = {name: compare(SIGNAL, SIGNAL + np.float32(noise) * NOISE) for name, noise in (("a", 0.01), ("b", 1))}
    (finding,) = judge_output(summarize(cases), [Limit.parse("sqnr_db>=20")], output="out").findings
    assert finding.message.endswith("is below the limit 20 in the worst case, b")
    one = judge(SIGNAL, SIGNAL + NOISE, "sqnr_db>=20").findings[0].message
    assert one.endswith("is below the limit 20 in case")


# --- defects found in other tools


@quick
@given(st.integers(0, 999), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_nan_and_inf_never_pass_however_loose_the_limits(place, bad):
    got = SIGNAL.copy()
    got[place] = bad
    found = judge_output(summarize({"good": compare(SIGNAL, SIGNAL), "bad": compare(SIGNAL, got)}), LOOSE)
    assert found.verdict is Verdict.FAIL
    assert codes(found) == {"OUTPUT_NAN" if math.isnan(bad) else "OUTPUT_INF"}


def test_all_nan_never_passes():
    assert judge(SIGNAL, SIGNAL * np.nan, "max_abs<=1e30").verdict is Verdict.FAIL
    assert judge(np.zeros(3, np.float32), np.full(3, np.nan), "max_abs<=1e30").verdict is Verdict.FAIL
    assert judge(np.ones(3, np.float32), np.full(3, np.inf), "max_abs<=1e30").verdict is Verdict.FAIL


def test_a_nan_in_a_summary_itself_never_passes():
    from dataclasses import replace

    summary = summarize({"case": compare(SIGNAL, SIGNAL)})
    poisoned = replace(summary, values={**summary.values, "sqnr_db": math.nan, "max_abs": math.nan})
    for limit in ("sqnr_db>=-1e9", "max_abs<=1e9"):
        assert judge_output(poisoned, [Limit.parse(limit)]).verdict is Verdict.FAIL


def test_an_output_that_never_came_is_no_perfect_score():
    found = judge(SIGNAL, None)
    assert (found.verdict, codes(found)) == (Verdict.FAIL, {"OUTPUT_MISSING"})


def test_missing_in_one_case_of_many():
    cases = {f"ok{i}": compare(SIGNAL, SIGNAL) for i in range(5)} | {"gone": compare(SIGNAL, None)}
    found = judge_output(summarize(cases), default_limits("dynamic", "float"))
    assert found.verdict is Verdict.FAIL
    assert "gone" in found.reasons[0]


def test_a_mismatch_does_not_exit_0():
    assert judge(SIGNAL, -SIGNAL).verdict.exit_code == 1


def test_high_cosine_around_a_large_mean_does_not_pass_alone():
    reference = 10 + SIGNAL
    found = judge(reference, reference + 4)
    assert compare(reference, reference + 4).cosine > 0.99
    assert found.verdict is Verdict.FAIL


def test_a_lost_signal_under_a_large_mean_is_told():
    found = judge(1000 + SIGNAL, 1000 + NOISE)
    assert "MEAN_HIDES_ERROR" in codes(found)


def test_one_outlier_does_not_average_away():
    reference = np.tile(SIGNAL, 1000)
    got = reference.copy()
    got[77] += 3
    found = judge(reference, got)
    assert found.verdict is Verdict.FAIL
    assert [result.limit.metric for result in found.failed] == ["rel_max"]


# --- problems


def test_shape_and_dtype():
    assert codes(judge(SIGNAL, SIGNAL[:-1])) == {"OUTPUT_SHAPE"}
    assert codes(judge(np.float32(1), np.float32([1]))) == {"OUTPUT_SHAPE"}
    assert codes(judge(SIGNAL, np.zeros(1000, np.int32))) == {"OUTPUT_DTYPE"}
    assert judge(SIGNAL, SIGNAL[:-1]).verdict is Verdict.FAIL


def test_a_reference_that_is_not_finite_proves_nothing_either_way():
    broken = SIGNAL.copy()
    broken[5] = np.nan
    for got in (broken, SIGNAL, SIGNAL * 100 + broken):
        found = judge(broken, got)
        assert (found.verdict, codes(found)) == (Verdict.INCONCLUSIVE, {"REFERENCE_NOT_FINITE"})


def test_a_sound_case_beside_a_broken_reference_still_fails():
    broken = np.full(1000, np.nan, np.float32)
    cases = {"broken": compare(broken, broken), "sound": compare(SIGNAL, -SIGNAL)}
    assert judge_output(summarize(cases), default_limits("dynamic", "float")).verdict is Verdict.FAIL


ZERO = np.zeros(10, np.float32)


@pytest.mark.parametrize(
    ("got", "limits", "verdict"),
    [
        (ZERO, (), Verdict.MARGINAL),
        (ZERO + np.float32(1e-5), (), Verdict.MARGINAL),
        (ZERO + 1, (), Verdict.FAIL),
        (ZERO + 1, ("max_abs<=2",), Verdict.MARGINAL),
        (ZERO + 1, ("max_abs<=0.5",), Verdict.FAIL),
        (ZERO + 1, ("sqnr_db>=-100",), Verdict.FAIL),
        (ZERO + 1, ("cosine>=-1",), Verdict.FAIL),
    ],
)
def test_an_all_zero_reference_is_judged_absolutely(got, limits, verdict):
    found = judge(ZERO, got, *limits)
    assert found.verdict is verdict
    assert "REFERENCE_ZERO" in codes(found)


@pytest.mark.parametrize(("error", "verdict"), [(0.1, Verdict.PASS), (300, Verdict.FAIL)])
def test_a_zero_case_is_measured_by_the_other_cases_size(error, verdict):
    cases = {"zero": compare(ZERO, ZERO + np.float32(error)), "other": compare(100 * SIGNAL, 100 * SIGNAL)}
    assert judge_output(summarize(cases), default_limits("dynamic", "float")).verdict is verdict


def test_a_constant_reference():
    flat = np.full(10, 3, np.float32)
    assert judge(flat, flat).verdict is Verdict.MARGINAL
    assert {"REFERENCE_CONSTANT", "OUTPUT_NEVER_VARIES"} <= codes(judge(flat, flat))
    varied = {"flat": compare(flat, flat), "other": compare(SIGNAL, SIGNAL)}
    assert judge_output(summarize(varied), default_limits("dynamic", "float")).verdict is Verdict.PASS
    assert judge(flat, flat * 2).verdict is Verdict.FAIL
    assert judge(flat, flat * 2, "cosine>=0.9").verdict is Verdict.INCONCLUSIVE


def test_a_scalar_output_is_not_scolded_for_being_constant():
    assert codes(judge(np.float32([3]), np.float32([3.01]))) == set()


def test_integers():
    labels = np.arange(1000)
    assert judge(labels, labels.astype(np.int32)).verdict is Verdict.PASS
    assert judge(labels, labels + (labels > 994)).verdict is Verdict.PASS
    assert judge(labels, labels + (labels > 900)).verdict is Verdict.FAIL
    assert judge(labels, labels, "cosine>=0.9").verdict is Verdict.INCONCLUSIVE
    assert judge(labels * 0, labels * 0 + 1).verdict is Verdict.FAIL


def test_nothing_to_judge_is_not_a_pass():
    assert judge_output(summarize({}), default_limits("dynamic", "float")).verdict is Verdict.ERROR
    assert judge_output(summarize({"case": compare(SIGNAL, SIGNAL)}), []).verdict is Verdict.INCONCLUSIVE
    empty = np.ones((0, 2), np.float32)
    assert judge(empty, empty).verdict is Verdict.INCONCLUSIVE
    assert judge(empty.astype(int), empty.astype(int)).verdict is Verdict.INCONCLUSIVE
    assert judge(SIGNAL, SIGNAL, "mismatch<=1").verdict is Verdict.INCONCLUSIVE


@quick
@given(st.floats(0, 10, width=32), st.floats(0, 10, width=32))
def test_more_noise_is_never_judged_better(one, other):
    small, large = sorted((one, other))
    grades = [judge(SIGNAL, SIGNAL + np.float32(noise) * NOISE).verdict for noise in (small, large)]
    assert worst(grades) is grades[1]


def test_findings_are_json():
    nan = SIGNAL.copy()
    nan[0] = np.nan
    for got in (nan, SIGNAL[:2], None, SIGNAL + NOISE, SIGNAL.astype(int)):
        for finding in judge(SIGNAL, got).findings:
            json.dumps(finding.model_dump(), allow_nan=False)
            assert finding.remedy


# --- combining


def test_exit_codes():
    assert {v.value: v.exit_code for v in Verdict} == {
        "PASS": 0, "MARGINAL": 0, "FAIL": 1, "ERROR": 3, "INCONCLUSIVE": 4,
    }  # fmt: skip


def test_nothing_combined_is_an_error():
    assert worst([]) is Verdict.ERROR


def test_a_proven_fail_outlives_a_crash_and_a_crash_outlives_doubt():
    order = [Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.MARGINAL, Verdict.PASS]
    for graver, lighter in itertools.combinations(order, 2):
        assert worst([graver, lighter]) is worst([lighter, graver]) is graver


@quick
@given(st.lists(st.sampled_from(list(Verdict)), min_size=1))
def test_worst_is_one_of_them_and_pass_means_all_passed(verdicts):
    found = worst(verdicts)
    assert found in verdicts
    assert (found.exit_code == 0) == all(v.exit_code == 0 for v in verdicts)
