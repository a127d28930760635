"""All that is known of one trial, and the errors that its stages add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgequant.archive.types import Artifact, Capture, CaseCapture, Failure, Plan, Source
from edgequant.judge.decisions import by_rows
from edgequant.judge.stages import Comparer, only, summaries
from edgequant.judge.types import NOTHING, Compared, Observed, Stages, Summaries
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant

FLOAT = Variant(method="float")


@dataclass(frozen=True)
class Evidence:
    """All that is known of one trial.

    Attributes:
        conversion: float MNN on this host against the reference; None where it is the reference.
        conversion_residual: what it comes to that this is no rounding; its findings are told of the whole.
        float_host: what float MNN computes on this host.
        variant_host: what the same file computes on this host; None where the device is this host, or where it could
            not be run here.
        capture: what the device brought back; None where the file was never run there.
        failure: why there is no artifact.
        only_host: this host is all there is.
        doubted: a finding says that what it is held against, or what was made of the source, proves nothing; void:
            not even where it is a FAIL.
        reached: the best that can be said with these cases.
    """

    uri: str
    variant: Variant
    plan: Plan
    source: Source
    reference: Capture | None = None
    conversion: Summaries | None = None
    conversion_residual: Observed = NOTHING
    float_host: Capture | None = None
    variant_host: Capture | None = None
    artifact: Artifact | None = None
    capture: Capture | None = None
    failure: Failure | None = None
    only_host: bool = False
    doubted: bool = False
    void: bool = False
    reached: Verdict = Verdict.PASS


def has_normal(artifact: Artifact, capture: Capture) -> bool:
    """Whether memory normal is something else, and nothing is int8 in it."""
    return capture.memory_mode == "low" and not artifact.facts.static


def stage_errors(e: Evidence, artifact: Artifact, capture: Capture, comparer: Comparer) -> Stages:
    """The three errors that are never mixed up: conversion, quantization, device.  capture: what the device brought
    back."""
    assert e.reference is not None
    names, is_host = e.source.kinds, capture.device is not None and capture.device.is_host

    def apart(here: Sequence[CaseCapture], there: Sequence[CaseCapture]) -> Compared:
        return by_rows(comparer.each(here, there, names), e.source, here, there, comparer)

    why: dict[str, str] = {}
    middle = capture if is_host else e.variant_host
    lost = None
    if middle is None or (not is_host and middle.failure is not None):
        told = middle.failure if middle is not None else None
        lost = f"it could not be run on this host ({told.code}: {told.message})" if told else "it was not run here"
    if e.conversion is None:
        known = e.source.reference
        why["conversion"] = (known.why or "") if known is not None and known.kind == "mnn-float" else "not measured"
    if artifact.run_as == FLOAT:
        why["quantization"] = "nothing is quantized"
    elif lost is not None:
        why["quantization"] = lost
    if is_host:
        why["device"] = "the device is this host"
    elif lost is not None:
        why["device"] = lost
    quantization: Summaries = {}
    device: Compared = {}
    split: dict[str, Any] = {}
    base = only(e.float_host or e.reference, e.source.held)
    if middle is not None and "quantization" not in why:
        quantization = comparer.between(base, middle, names)
        if has_normal(artifact, middle):
            held = [case for case in middle.normal if case.case in e.source.held]
            split = {
                "weights": summaries(comparer.each(base.cases, held, names)),
                "activations": summaries(comparer.each(held, middle.cases, names)),
                "kernels": {} if is_host else apart(middle.normal, capture.normal),
            }
    if middle is not None and "device" not in why:
        device = apart(middle.cases, capture.cases)
    # What a stage adds is told of the cases that are held against limits; the band looks at all of them.
    usual = {
        name: kept
        for name, cases in device.items()
        if (kept := {case: each for case, each in cases.items() if case in e.source.held})
    }
    return Stages(e.conversion or {}, quantization, summaries(usual), why, apart=device, **split)
