"""Which stage breaks, from what the verdict says."""

from __future__ import annotations

import pytest

from edgequant.findings import Finding
from edgequant.judge.broken_stage import broken_stage
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant


def finding(code: str, **evidence: object) -> Finding:
    return Finding(code=code, severity="fail", message="m", evidence=evidence)


def trial(*findings: Finding, verdict: Verdict = Verdict.FAIL) -> TrialJudgement:
    return TrialJudgement("local:", Variant.parse("dynamic:8"), verdict, findings=findings)


@pytest.mark.parametrize("stage", ["conversion", "quantization", "device"])
def test_what_breaks_over_many_steps_alone_is_of_the_stage_it_is_told_of(stage: str) -> None:
    assert broken_stage(trial(finding("RECURRENT_DRIFT", stage=stage, step=2)), []) == stage


def test_what_has_no_stage_breaks_none() -> None:
    assert broken_stage(trial(finding("LATENCY_BEYOND")), []) is None
    assert broken_stage(trial(finding("DEVICE_DIFFERS"), verdict=Verdict.PASS), []) is None
    assert broken_stage(trial(finding("QUANTIZATION_BEYOND_ROUNDING")), []) == "quantization"
    assert broken_stage(trial(finding("DEVICE_DIFFERS")), [finding("CONVERSION_ERROR")]) == "conversion"
