"""Which of the three stages is it that breaks: conversion, quantization or the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgequant.findings import Finding
from edgequant.judge.conversion import is_cause
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict

Stage = Literal["conversion", "quantization", "device"]

_CONVERSION = ("CONVERSION_ERROR", "CONVERSION_RUN_FAILED")
_DEVICE = ("DEVICE_DIFFERS", "DEVICE_BEYOND_ROUNDING", "DEVICE_INT8_WORSE", "FILE_OR_KERNEL_DIFFERS")
_QUANTIZATION = ("QUANTIZATION_BEYOND_ROUNDING",)


def broken_stage(trial: TrialJudgement, of_model: Sequence[Finding]) -> Stage | None:
    """None where nothing breaks, or what breaks has no stage (latency, a file that could not be made).

    of_model: findings of the whole run.
    """
    if trial.verdict in (Verdict.PASS, Verdict.MARGINAL):
        return None
    failing = failing_outputs(trial)
    fails = [each for each in of_model if each.severity == "fail"]
    if any(each.code in _CONVERSION or each.evidence.get("stage") == "conversion" for each in fails):
        return "conversion"
    if any(is_cause(trial.stages.conversion.get(name)) for name in failing):
        return "conversion"
    fails = [each for each in trial.findings if each.severity == "fail"]
    if not failing and any(each.evidence.get("stage") == "conversion" for each in fails):
        return "conversion"  # over many steps
    if any(each.code in _DEVICE or each.evidence.get("stage") == "device" for each in fails):
        return "device"
    own = any(each.code in _QUANTIZATION or each.evidence.get("stage") == "quantization" for each in fails)
    return "quantization" if failing or own else None


def failing_outputs(trial: TrialJudgement) -> list[str]:
    """Outputs that break a limit."""
    return [name for name, output in trial.outputs.items() if output.verdict.verdict is Verdict.FAIL]


def worst_cases(trial: TrialJudgement) -> list[str]:
    """Cases, those first in which an output is worst: on the device against this host, then against the reference."""
    found: dict[str, None] = {}
    for summary in trial.stages.device.values():
        if summary.worst_case is not None:
            found.setdefault(summary.worst_case)
    judged = sorted(trial.outputs.values(), key=lambda each: each.verdict.verdict is not Verdict.FAIL)
    for output in judged:
        if output.summary.worst_case is not None:
            found.setdefault(output.summary.worst_case)
    return list(found)
