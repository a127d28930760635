"""What judging makes of an archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgequant.archive.types import Artifact, Capture, Failure
from edgequant.compare.metrics import TensorComparison
from edgequant.compare.summary import OutputSummary
from edgequant.findings import Finding
from edgequant.judge.curve import Drift
from edgequant.judge.latency import Latency
from edgequant.judge.verdict import OutputVerdict, Verdict
from edgequant.spec import Decision, Variant

Summaries = Mapping[str, OutputSummary]
Compared = Mapping[str, Mapping[str, TensorComparison]]
"""Output -> case -> how far two captures are from each other."""


@dataclass(frozen=True)
class Observed:
    """What one look at a trial has found, and the verdict it comes to by itself."""

    findings: tuple[Finding, ...] = ()
    verdict: Verdict = Verdict.PASS


NOTHING = Observed()


@dataclass(frozen=True)
class Stages:
    """The three errors that are never mixed up, by output; of a stage that was not measured, why.

    Of a file that quantizes activations while it runs, the same file with memory normal, where nothing is int8, lies
    in between: `weights` is float MNN against it (what rounding the weights costs), `activations` is it against the
    file as it is run (what rounding the activations adds), both on this host; `kernels` is it on this host against it
    on the device.  `apart` is the device stage, case by case.  `predicted` is what rounding activations should cost
    each output, in dB, by the source's own runtime.
    """

    conversion: Summaries = field(default_factory=dict)
    quantization: Summaries = field(default_factory=dict)
    device: Summaries = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    weights: Summaries = field(default_factory=dict)
    activations: Summaries = field(default_factory=dict)
    kernels: Compared = field(default_factory=dict)
    apart: Compared = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Engaged:
    """Whether dynamic quantization took place; None where it was not asked for or cannot be known."""

    engaged: bool | None = None
    why: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedOutput:
    """One output: its worst numbers, and what is said of them."""

    summary: OutputSummary
    verdict: OutputVerdict


@dataclass(frozen=True)
class TrialJudgement:
    """One variant on one device.

    Attributes:
        artifact, capture: what it is of; None where it never came to that.
        failure: why it was not run, or not to its end.
        decisions: what outputs decide.
        independent: cases of the user's own, each with inputs of its own.
    """

    uri: str
    variant: Variant
    verdict: Verdict
    artifact: Artifact | None = None
    capture: Capture | None = None
    failure: Failure | None = None
    outputs: Mapping[str, JudgedOutput] = field(default_factory=dict)
    stages: Stages = field(default_factory=Stages)
    engaged: Engaged = field(default_factory=Engaged)
    latency: Latency | None = None
    latency_why: str | None = None
    findings: tuple[Finding, ...] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)
    independent: int = 0


@dataclass(frozen=True)
class Judgement:
    """The whole of it."""

    verdict: Verdict
    trials: tuple[TrialJudgement, ...]
    findings: tuple[Finding, ...]
