"""The numbers and places that a verdict names, and the bounds from which on it is another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.compare.metrics import compare
from edgequant.compare.summary import summarize
from edgequant.findings import Finding
from edgequant.judge.verdict import OutputVerdict, Verdict, judge_output, severity
from tests.judge.archives import WAVE, off, parsed

ZERO = np.zeros(64, np.float32)


def held(*limits: str, refused: dict[str, str] | None = None, **cases: Any) -> OutputVerdict:
    found = {name: compare(*pair) for name, pair in cases.items()}
    return judge_output(summarize(found), parsed(limits), output="y", remedy="Do.", refused=refused)


def told(found: OutputVerdict, code: str) -> Finding:
    return next(each for each in found.findings if each.code == code)


def bad(*places: int, value: float = np.nan) -> np.ndarray:
    array = WAVE.copy()
    array[list(places)] = value
    return array


def test_a_limit_is_shown_with_all_that_it_was_held_against() -> None:
    found = held("sqnr_db>=30", "max_abs<=9", a=(WAVE, off(WAVE, 40)), b=(WAVE, off(WAVE, 20)))
    evidence = told(found, "LIMIT_EXCEEDED").evidence
    assert evidence.pop("value") == pytest.approx(20, abs=1e-3)
    assert evidence == {"metric": "sqnr_db", "bound": 30, "op": ">=", "case": "b"}
    assert [(each.limit.metric, each.verdict, each.case) for each in found.results] == [
        ("sqnr_db", Verdict.FAIL, "b"), ("max_abs", Verdict.PASS, "b"),
    ]  # fmt: skip
    marginal = told(held("max_abs<=1.05", a=(WAVE, WAVE + 1)), "LIMIT_MARGINAL").evidence
    assert marginal == {"metric": "max_abs", "value": pytest.approx(1), "bound": 1.05, "op": "<=", "case": "a"}
    undefined = told(held("mismatch<=0.5", a=(WAVE, WAVE)), "LIMIT_UNDEFINED").evidence
    assert undefined == {"metric": "mismatch", "value": None, "bound": 0.5, "op": "<=", "case": None}


def test_nan_and_inf_are_counted_on_both_sides() -> None:
    found = held("max_abs<=9", a=(WAVE, bad(1, 2)), b=(WAVE, bad(3, value=np.inf)), c=(bad(1), bad(1)))
    assert told(found, "OUTPUT_NAN").evidence == {"nan": 2 + 1, "ref_nan": 1, "cases": ["a", "b"]}
    assert told(found, "OUTPUT_INF").evidence == {"inf": 1, "ref_inf": 0, "cases": ["a", "b"]}
    assert told(found, "REFERENCE_NOT_FINITE").evidence == {
        "ref_nan": 1, "ref_inf": 0, "swallowed": 0, "cases": ["c"],
    }  # fmt: skip
    assert found.verdict is Verdict.FAIL
    assert found.reasons[0] == told(found, "OUTPUT_NAN").message, "the gravest first"
    assert found.reasons[-1] == told(found, "REFERENCE_NOT_FINITE").message


def test_inf_alone_is_no_nan_and_nan_alone_no_inf() -> None:
    only_inf = held("max_abs<=9", a=(WAVE, bad(1, value=np.inf)))
    assert [each.code for each in only_inf.findings][:1] == ["OUTPUT_INF"]
    only_nan = held("max_abs<=9", a=(WAVE, bad(1)))
    assert [each.code for each in only_nan.findings][:1] == ["OUTPUT_NAN"]


def test_a_case_that_was_refused_is_told_apart_from_one_that_never_came() -> None:
    cases: dict[str, Any] = dict.fromkeys("abc", (WAVE, None))
    found = held("max_abs<=9", refused={"a": "too large", "b": "no op", "z": "of another"}, **cases)
    refused, missing = told(found, "RUN_FAILED"), told(found, "OUTPUT_MISSING")
    assert refused.message == "a (and 1 more) was not run: too large"
    assert (refused.evidence, missing.evidence) == ({"cases": ["a", "b"]}, {"cases": ["c"]})
    assert missing.message == "no such output came back in c"
    one = told(held("max_abs<=9", refused={"a": "too large"}, a=(WAVE, None)), "RUN_FAILED")
    assert one.message == "a was not run: too large"


@pytest.mark.parametrize(("limits", "allowed"), [(("sqnr_db>=20",), 0.25), (("sqnr_db>=20", "rel_max<=0.1"), 0.1)])
def test_beside_other_cases_a_zero_one_may_err_by_a_share_of_their_size(
    limits: tuple[str, ...], allowed: float
) -> None:
    for error, verdict in (
        (1.02 * allowed, Verdict.FAIL),
        (0.95 * allowed, Verdict.MARGINAL),
        (0.8 * allowed, Verdict.PASS),
    ):
        found = held(*limits, zero=(ZERO, ZERO + np.float32(8 * error)), other=(WAVE / np.abs(WAVE).max() * 8,) * 2)
        (result,) = (each for each in found.results if each.limit.metric == "max_abs")
        assert (result.verdict, result.case) == (verdict, "zero")
        assert result.limit.value == pytest.approx(8 * allowed)
        assert told(found, "REFERENCE_ZERO").evidence == {"cases": ["zero"], "max_abs": pytest.approx(8 * error)}


def test_an_output_that_is_zero_in_every_case_may_err_by_a_thousandth() -> None:
    """In its own unit: there is nothing else to measure it by.  A max_abs limit takes the place of that."""
    verdicts = [
        held("sqnr_db>=20", a=(ZERO, ZERO + np.float32(error)), b=(ZERO, ZERO)).verdict for error in (0.98e-3, 1.02e-3)
    ]
    assert verdicts == [Verdict.MARGINAL, Verdict.FAIL]
    own = held("max_abs<=1", a=(ZERO, ZERO + np.float32(0.5)))
    assert [(each.limit.value, each.verdict) for each in own.results] == [(1, Verdict.PASS)]


def test_what_a_mean_hides_is_told_where_there_are_values_enough_to_vary() -> None:
    """16 a case; and only where the bound lies between the two."""

    def hidden(size: int, cases: int = 1, bound: int = 30) -> list[Finding]:
        wave = np.sin(np.arange(size, dtype=np.float32))
        pairs = {f"c{number}": (wave + 100, wave + 100 + 0.5 * np.cos(wave * 9)) for number in range(cases)}
        return [each for each in held(f"sqnr_db>={bound}", **pairs).findings if each.code == "MEAN_HIDES_ERROR"]

    (found,) = hidden(16)
    assert found.severity == "warn"
    assert found.evidence["case"] == "c0"
    assert found.evidence["centered_sqnr_db"] < 30
    assert found.evidence["centered_cosine"] == pytest.approx(0.9, abs=0.1)
    assert hidden(15) == []
    assert (len(hidden(16, 3)), len(hidden(15, 3))) == (1, 0)
    assert hidden(16, bound=1) == [], "it would be kept without the mean too"
    assert hidden(16, bound=90) == [], "it is broken with it"


def test_what_is_only_rounding_around_nothing_is_told_with_its_metrics() -> None:
    tiny = (WAVE * np.float32(1e-9)).astype(np.float32)
    found = held("sqnr_db>=30", "cosine>=0.9", a=(WAVE, WAVE), b=(tiny, -tiny))
    told_of = told(found, "OUTPUT_NEAR_NOTHING")
    assert (found.verdict, told_of.severity) == (Verdict.PASS, "info")
    assert told_of.evidence == {"metrics": ["sqnr_db", "cosine"], "case": "b"}
    assert "no element is off by more than 1e-06 in b: sqnr_db, cosine would" in told_of.message


def test_an_output_of_one_value_a_case_has_to_change_between_cases() -> None:
    """A score that is 1 in all of them, for its sigmoid is full, comes out of any model that is as sure."""
    one, two = np.full(1, 3, np.float32), np.full(2, 3, np.float32)
    assert held("sqnr_db>=20", a=(one, one)).verdict is Verdict.PASS
    assert held("sqnr_db>=20", a=(one, one), b=(one + 1, one + 1)).verdict is Verdict.PASS
    stuck = held("sqnr_db>=20", a=(one, one), b=(one, one))
    assert (stuck.verdict, told(stuck, "OUTPUT_NEVER_VARIES").severity) == (Verdict.MARGINAL, "warn")
    never = held("sqnr_db>=20", a=(two, two), b=(ZERO[:2], ZERO[:2]))
    assert told(never, "OUTPUT_NEVER_VARIES").severity == "warn"
    assert told(never, "REFERENCE_CONSTANT").evidence == {"cases": ["a"]}
    varies = held("sqnr_db>=20", a=(two, two), b=(WAVE, WAVE))
    assert "OUTPUT_NEVER_VARIES" not in [each.code for each in varies.findings]
    whole = np.full(8, 3)
    assert held("mismatch<=0.1", a=(whole, whole)).verdict is Verdict.PASS, "whole numbers may be the same ones"


def test_the_order_of_verdicts() -> None:
    ordered = (Verdict.PASS, Verdict.MARGINAL, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL)
    assert [severity(each) for each in ordered] == [0, 1, 2, 3, 4]
    assert [each.exit_code for each in ordered] == [0, 0, 4, 3, 1]
    assert [str(each) for each in ordered] == ["PASS", "MARGINAL", "INCONCLUSIVE", "ERROR", "FAIL"]
