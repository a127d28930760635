"""Which stage breaks, from what the verdict says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.findings import Finding
from edgequant.judge.broken_stage import broken_stage, stages_db
from edgequant.judge.cause import shown
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant
from tests.judge.archives import BOARD, TRUE, Archive, all_off, only


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


def test_what_each_stage_costs_the_output_that_fails(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", reference=TRUE, float_host=all_off(TRUE, 70), devices=(BOARD,))
    archive.made("weight:8")
    archive.on_host("weight:8", all_off(TRUE, 40))
    archive.on_device(BOARD, "weight:8", all_off(TRUE, 9))
    name, numbers = stages_db(only(archive))
    assert name == "y"
    assert {stage: round(value or 0) for stage, value in numbers.items()} == {
        "conversion": 70, "quantization": 40, "device": 9,
    }  # fmt: skip
    assert stages_db(trial()) == (None, {})


def test_a_number_of_db_is_shown_as_far_as_it_says_something() -> None:
    assert [shown(each) for each in (None, -0.04, 12.34, 150.0, 150.1, 151.0)] == [
        "no number", "0.0 dB", "12.3 dB", "150.0 dB", "more than 150 dB", "more than 150 dB",
    ]  # fmt: skip
