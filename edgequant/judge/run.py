"""From an archive to its judgement: a pure function.  No device, no runner, no MNN, no source model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgequant.archive.open import Run, invalid
from edgequant.archive.types import Artifact, Capture, Failure, Plan, Source
from edgequant.compare.table import Kind
from edgequant.errors import InputError
from edgequant.findings import Finding, Severity
from edgequant.judge.conversion import USERS_OWN, conversion_findings
from edgequant.judge.decisions import as_named, check_named
from edgequant.judge.doubts import doubt
from edgequant.judge.evidence import Evidence
from edgequant.judge.kernel_faults import less_wrong
from edgequant.judge.reach import reach
from edgequant.judge.residual import Residuals
from edgequant.judge.stages import Comparer, only, untold
from edgequant.judge.trial import Trial, limits_of, not_run
from edgequant.judge.types import NOTHING, Judgement, Observed, Summaries, TrialJudgement
from edgequant.judge.verdict import Verdict, worst
from edgequant.spec import Variant

MNN_FLOAT = "mnn-float"
"""The kind of a reference that is float MNN itself."""


def judge(run: Run, plan: Plan | None = None, comparer: Comparer | None = None) -> Judgement:
    """Judge what was captured.

    Args:
        plan: with other limits than those the run was made with.
        comparer: that of an earlier judgement of the same archive, which knows what it has compared.

    Raises InputError (LIMIT_..., RUN_INVALID), ToolError (CAPTURE_UNREADABLE).
    """
    asked = plan or run.plan
    source = as_named(run.source, asked.decides)
    comparer = comparer or Comparer(run.arrays)
    # What a user calls scores are logits as often.
    comparer.scores = frozenset(
        name for name, kind in run.source.decisions.items() if kind == "scores" and name not in asked.decides
    )
    less = _less_wrong(run)
    conversion, findings = _conversion(run, comparer, less)
    residual = _conversion_residual(run, source, comparer, doubtful=bool(less))
    findings += residual.findings
    evidence = [
        found
        for uri in asked.devices
        for variant in asked.variants
        if (found := _evidence(run, source, asked, uri, variant, conversion)) is not None
    ]
    reached = NOTHING
    if any(_was_run(each) for each in evidence):
        reached = reach(source, run.reference, comparer)
        findings += reached.findings
        evidence = [replace(each, reached=reached.verdict) for each in evidence]
    hosts = all(each.capture is None or each.capture.device is None or each.capture.device.is_host for each in evidence)
    doubted, void = doubt(findings)
    told = Observed(verdict=residual.verdict)
    evidence = [
        replace(each, only_host=hosts, doubted=doubted, void=void, conversion_residual=told) for each in evidence
    ]
    begun = {id(each): Trial(each, comparer) for each in evidence if _was_run(each)}
    beside = {key: trial.beside() for key, trial in begun.items()}
    trials: list[TrialJudgement] = []
    for each in evidence:
        others = [beside[id(other)] for other in evidence if other is not each and other.uri == each.uri
                  and id(other) in beside]  # fmt: skip
        trials.append(begun[id(each)].judged(others) if id(each) in begun else not_run(each, others))
    verdicts = [trial.verdict for trial in trials]
    for finding in _of_the_whole(run, asked, len(trials)):
        findings.append(finding)
        verdicts.append(Verdict.ERROR)
    return Judgement(worst(verdicts), tuple(trials), tuple(findings))


def check_limits(run: Run, plan: Plan) -> None:
    """Raise InputError (LIMIT_UNKNOWN_OUTPUT, LIMIT_UNDEFINED, DECIDES_UNKNOWN_OUTPUT, DECIDES_WRONG_KIND) where limits
    cannot apply to the run's outputs, or these cannot decide what they are said to."""
    kinds: dict[str, Kind] = dict(run.source.kinds)
    if not kinds:
        raise InputError("RUN_INVALID", f"{run.path}: it ended before there was anything to judge")
    check_named(kinds, plan.decides)
    for variant in plan.variants:
        limits_of(plan, run.source, variant)


def _conversion(run: Run, comparer: Comparer, less: Sequence[str]) -> tuple[Summaries | None, list[Finding]]:
    findings = list(run.source.findings)
    host = run.float_host
    reference = run.source.reference
    if reference is None or reference.kind == MNN_FLOAT:
        return None, findings
    if host is None:
        raise _missing(run, "what float MNN computes on this host")
    _need_all(run, run.reference, "what the reference says")
    _need_all(run, host, "what float MNN computes on this host")
    refused = {
        each.case: Failure(code=each.refused_code or "INFERENCE_FAILED", message=each.refused)
        for each in host.cases
        if each.refused is not None
    }
    held = only(run.reference, run.source.held)
    found = comparer.between(held, host, run.source.kinds, refused=lambda _case: True)
    return found, [*findings, *conversion_findings(run.source, found, refused, less)]


def _less_wrong(run: Run) -> tuple[str, ...]:
    """Operators of the files made in this run that this host is known to compute wrong, whatever the variant."""
    made = (run.making(variant) for variant in run.plan.variants)
    facts = (each.artifact.facts for each in made if each is not None and each.artifact is not None)
    return next((each.less for each in facts if less_wrong(each, run.plan.host)), ())


def _conversion_residual(run: Run, source: Source, comparer: Comparer, *, doubtful: bool) -> Observed:
    """What of the conversion's error is no rounding.  Where the reference is the user's own, nobody knows what it was
    computed with, so it is "warn"; so it is where this host is known to compute some of it wrong (`doubtful`)."""
    reference = run.source.reference
    if reference is None or reference.kind == MNN_FLOAT or run.float_host is None:
        return NOTHING
    severity: Severity = "warn" if reference.kind == USERS_OWN or doubtful else "fail"
    residuals = Residuals(comparer, source)
    return residuals.observed("conversion", run.reference, run.float_host, run.source.kinds, severity=severity)


def _evidence(
    run: Run, source: Source, plan: Plan, uri: str, variant: Variant, conversion: Summaries | None
) -> Evidence | None:
    """None where the trial has not been tried.  Raises InputError (RUN_INVALID) where a record of it got lost."""
    making, capture = run.making(variant), run.on_device(uri, variant)
    failure = None if making is None else making.failure
    if capture is None and failure is None:
        if run.closing.ended:
            # Not to be passed over: what it said may have been a FAIL.
            raise _missing(run, f"what {variant} did on {uri}")
        return None
    if capture is not None and (found := _other(capture, uri, variant)):
        raise invalid(run.path, f"what is kept as that of {variant} on {uri} is of {found}")
    if capture is not None and _has_file(capture) and (making is None or making.artifact is None):
        raise _missing(run, f"how {variant} was made")
    if capture is not None and not _has_file(capture) and capture.failure is None and failure is None:
        raise _missing(run, f"which file of {variant} ran on {uri}")
    evidence = Evidence(uri, variant, plan, source, capture=capture, failure=failure, conversion=conversion)
    if making is None or making.artifact is None or not _has_file(capture):
        return evidence
    made, here = making.artifact, run.on_host(variant)
    if here is not None and here.device is not None and not here.device.is_host:
        raise invalid(run.path, f"what is kept as that of {variant} on this host is of {here.device.uri}")
    if not _is_of(made, capture):
        if run.closing.ended:
            raise _missing(run, f"what the file of {variant} did on {uri}")
        return None  # it is of an earlier file, and its place will be taken
    is_host = capture is not None and capture.device is not None and capture.device.is_host
    if not is_host and not _is_of(made, here):
        # It is taken before the device's; without it, a device that strays would pass for one that cannot be held
        # against this host.
        raise _missing(run, f"what the file of {variant} computes on this host")
    _need_all(run, run.reference, "what the reference says")
    if here is not None and _is_of(made, here):
        _need_all(run, here, f"what the file of {variant} computes on this host")
    return replace(
        evidence,
        reference=run.reference,
        float_host=run.float_host,
        variant_host=here if _is_of(made, here) else None,
        artifact=made,
    )


def _need_all(run: Run, capture: Capture, what: str) -> None:
    """Raise InputError (RUN_INVALID) where a capture that got to its end leaves out a case: what is not there is held
    against nothing, and would pass."""
    lost = untold(capture, [case.name for case in run.source.cases])
    if lost and capture.failure is None:
        raise _missing(run, f"{what} of case {', '.join(lost[:5])}")


def _missing(run: Run, what: str) -> InputError:
    return InputError("RUN_INVALID", f"{run.path}: {what} is missing", hint="A file of it was removed.")


def _other(capture: Capture, uri: str, variant: Variant) -> str | None:
    """Of what else a capture is than it lies there for; None where it is not."""
    if capture.variant not in (None, str(variant)):
        return capture.variant
    return None if capture.device is None or capture.device.uri == uri else capture.device.uri


def _has_file(capture: Capture | None) -> bool:
    return capture is not None and capture.artifact_sha256 is not None


def _is_of(artifact: Artifact, capture: Capture | None) -> bool:
    return capture is not None and capture.artifact_sha256 == artifact.sha256


def _was_run(evidence: Evidence) -> bool:
    return evidence.artifact is not None and evidence.capture is not None


def _of_the_whole(run: Run, plan: Plan, tried: int) -> list[Finding]:
    """What keeps the whole from being more than its parts."""
    closing = run.closing
    if not closing.ended:
        expected = len(plan.devices) * len(plan.variants)
        return [
            Finding(
                code="INTERRUPTED",
                severity="error",
                message=f"interrupted: {tried} of {expected} runs are in this report",
                remedy="`edgequant verify --resume RUN_DIR` does what is missing.",
            )
        ]
    if closing.source_now in (None, run.source.sha256):
        return []
    return [
        Finding(
            code="MODEL_CHANGED",
            severity="error",
            message="the model file was changed while it was being verified",
            evidence={"sha256": run.source.sha256, "now": closing.source_now},
            remedy="Run again when nothing writes to it.",
        )
    ]
