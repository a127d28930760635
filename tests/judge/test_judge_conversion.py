"""Where float MNN is not what the source is, before anything is quantized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import ArrayRef, CaseFacts, ReferenceFacts, Source
from edgequant.compare.metrics import compare
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.findings import Finding
from edgequant.judge.conversion import conversion_findings
from tests.judge.archives import WAVE, failed, off, sha, summary

X = ArrayRef(sha256=sha("x"), dtype="float32", shape=(1, 3))
BIG = ArrayRef(sha256=sha("big"), dtype="float32", shape=(2, 9))


def source(kind: str | None = "onnxruntime", **inputs: dict[str, ArrayRef]) -> Source:
    cases = tuple(CaseFacts(name=name, source="random", inputs=each) for name, each in inputs.items())
    reference = None if kind is None else ReferenceFacts(kind=kind)
    return Source(path="/m", format="onnx", sha256=sha("m"), size=1, cases=cases, reference=reference)


def wrong(found: OutputSummary, **more: Any) -> list[Finding]:
    return conversion_findings(source(**more), {"y": found}, {})


def expected(severity: str, why: str, found: OutputSummary, who: str = "the source model computes") -> Finding:
    return Finding.model_validate(
        {
            "code": "CONVERSION_ERROR",
            "severity": severity,
            "where": "y",
            "message": f"float MNN does not compute what {who}, before any quantization: {why}",
            "evidence": {
                "sqnr_db": found.values["sqnr_db"],
                "cosine": found.values["cosine"],
                "worst_case": found.worst_case,
            },
            "remedy": "Quantization is not the cause.  Try another export (opset, fixed shapes with --shape), or "
            "report it to MNN with this model.",
        }
    )


def test_what_keeps_the_limits_of_a_float_model_is_no_finding() -> None:
    assert wrong(summary(41)) == []
    assert conversion_findings(source(), {}, {}) == []


@pytest.mark.parametrize(("db", "severity"), [(39.5, "warn"), (20.5, "warn"), (19.5, "fail")])
def test_it_fails_where_no_quantized_model_may_be_as_far_off(db: float, severity: str) -> None:
    found = summary(db)
    broken = "sqnr_db>=40" if db > 37 else "cosine>=0.9999, sqnr_db>=40, rel_max<=0.02"
    why = f"it breaks {broken}, the limits of a float model"
    assert wrong(found) == [expected(severity, why, found)]
    # Of a reference that the user made, nobody knows what it was computed with.
    assert wrong(found, kind="file") == [expected("warn", why, found, "your reference says")]
    assert wrong(found, kind=None) == [expected(severity, why, found)]


def test_whole_numbers_have_limits_of_their_own() -> None:
    labels = np.arange(1000, dtype=np.int64)
    for wrong_ones, severity in ((1, None), (2, "warn"), (11, "fail")):
        got = labels.copy()
        got[:wrong_ones] += 1
        found = wrong(summarize({"a": compare(labels, got)}))
        assert [each.severity for each in found] == ([] if severity is None else [severity])


def test_an_output_that_is_lost_is_told_of_first() -> None:
    lost = summarize({"a": compare(WAVE, None), "b": compare(WAVE, off(WAVE, 10)), "c": compare(WAVE, WAVE[:3])})
    why = "no such output came back; shape [3] instead of [64]"
    assert wrong(lost) == [expected("fail", why, lost)]
    assert wrong(lost, kind="file") == [expected("warn", why, lost, "your reference says")]


def test_a_reference_that_is_not_finite_proves_nothing() -> None:
    nan = np.full(64, np.nan, np.float32)
    assert wrong(summarize({"a": compare(nan, nan)})) == []
    found = summarize({"a": compare(nan, nan), "b": compare(WAVE, off(WAVE, 10))})
    assert [each.severity for each in wrong(found)] == ["fail"]
    assert "no such" not in wrong(found)[0].message


def test_cases_that_float_mnn_refuses_come_first() -> None:
    facts = source(a={"x": X, "z": BIG}, b={"x": X}, c={})
    found = conversion_findings(
        facts, {"y": summary(10)}, {"b": failed("INFERENCE_FAILED", "too large", evidence={"code": 3}), "a": failed()}
    )
    assert [each.code for each in found] == ["CONVERSION_RUN_FAILED", "CONVERSION_RUN_FAILED", "CONVERSION_ERROR"]
    assert found[0].message == (
        "float MNN on this host cannot run case 'a' (x=1,3, z=2,9), the reference can: it is gone"
    )
    assert found[1] == Finding(
        code="CONVERSION_RUN_FAILED",
        severity="fail",
        where="b",
        message="float MNN on this host cannot run case 'b' (x=1,3), the reference can: too large",
        evidence={"code": 3},
        remedy="If these sizes do not matter to you, pin those that do with --shape; else export the model with fixed "
        "shapes.",
    )


@pytest.mark.parametrize("code", ["OPERATOR_MISREAD", "CONSTANT_BEYOND_INT32", "GRU_RESET_FIRST"])
def test_what_is_known_of_the_source_comes_in_the_place_of_a_guess(code: str) -> None:
    known = Finding(code=code, severity="warn", where="node", message="m", remedy="Do this.")
    other = known.model_copy(update={"code": "OUTPUT_UNUSED"})
    (found,) = conversion_findings(source().model_copy(update={"findings": (other, known)}), {"y": summary(10)}, {})
    assert (found.remedy or "").endswith(f"The model has what is known to do this: {code} at node.  Do this.")
