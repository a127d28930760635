"""One variant on one device: its evidence, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from edgequant.archive.types import Artifact, Capture, DeviceCapture, Failure, Plan, Source
from edgequant.blame import models_own
from edgequant.findings import Finding, Severity
from edgequant.judge import device as on_device
from edgequant.judge import float_kernels, trust
from edgequant.judge.activations import activation_costs, beyond_activations
from edgequant.judge.advice import Beside, failure_hint, limit_remedy
from edgequant.judge.band import Bands
from edgequant.judge.claims import claims
from edgequant.judge.conversion import is_cause
from edgequant.judge.converter import made_otherwise
from edgequant.judge.curve import Drift
from edgequant.judge.decisions import LISTS, rematched, winners
from edgequant.judge.doubts import keeps_anything, own_output
from edgequant.judge.drift import Bounds, Sides, drift
from edgequant.judge.engaged import determinism, engagement, faint
from edgequant.judge.evidence import FLOAT, Evidence, has_normal, stage_errors
from edgequant.judge.independent import independent
from edgequant.judge.int8_cost import costs_more
from edgequant.judge.kernel_faults import i8mm_remark, known_faults, less_remark, pool_remark, resize_remark
from edgequant.judge.latency import latency_of, why_no_latency
from edgequant.judge.limits import default_limits, defaults_for, device_bands, resolve_limits
from edgequant.judge.reach import shows_less
from edgequant.judge.resembles import file_resembles
from edgequant.judge.residual import Residuals
from edgequant.judge.rounding import beyond_rounding, coarsely
from edgequant.judge.stages import Comparer, only, refused_cases, untold
from edgequant.judge.strain import strained
from edgequant.judge.types import NOTHING, JudgedOutput, Observed, Summaries, TrialJudgement
from edgequant.judge.verdict import Verdict, judge_output, worst
from edgequant.spec import Limit, MemoryMode, Variant


def limits_of(plan: Plan, source: Source, variant: Variant) -> dict[str, tuple[Limit, ...]]:
    """The limits of each output for a variant.  Raises InputError (LIMIT_UNKNOWN_OUTPUT, LIMIT_UNDEFINED)."""
    given = [*plan.limits, *(plan.goals if variant.method == "auto" else ())]
    return resolve_limits(source.kinds, defaults_for(variant.method), given)


def not_run(evidence: Evidence, others: Sequence[Beside]) -> TrialJudgement:
    """The judgement of a trial that was never begun."""
    capture = evidence.capture
    failure = evidence.failure or (None if capture is None else capture.failure)
    assert failure is not None, "there is a capture with a file or a failure, or else the folder was refused"
    device = None if capture is None else capture.device
    verdict = verdict_of(failure, host_too=device is not None and device.is_host)
    failure = failure.model_copy(update={"hint": failure_hint(failure, others)})
    return TrialJudgement(evidence.uri, evidence.variant, verdict, failure=failure, latency_why="it was not run")


def verdict_of(failure: Failure, *, host_too: bool) -> Verdict:
    """FAIL where it is the model's own, which no rerun changes; else ERROR.

    host_too: it happened on this host, or this host fails at the same."""
    return Verdict.FAIL if models_own(failure.code, host_too=host_too, evidence=failure.evidence) else Verdict.ERROR


class Trial:
    """One trial being judged.  What is measured comes first: advice needs to know of the trials beside it."""

    def __init__(self, evidence: Evidence, comparer: Comparer) -> None:
        assert evidence.artifact is not None
        assert evidence.capture is not None
        assert evidence.reference is not None
        self._e = evidence
        self._compare = comparer
        self.artifact: Artifact = evidence.artifact
        self.capture: Capture = evidence.capture
        self.device: DeviceCapture = evidence.capture.device or DeviceCapture(uri=evidence.uri)
        self.limits = limits_of(evidence.plan, evidence.source, evidence.variant)
        self._names = evidence.source.kinds
        self._refused_here = {**refused_cases(evidence.variant_host), **refused_cases(evidence.float_host)}
        self._reference = only(evidence.reference, evidence.source.held)
        self.total = comparer.between(self._reference, self.capture, self._names, refused=self._is_models)
        self.on_host: Summaries = {}
        if evidence.variant_host is not None and evidence.variant_host.failure is None:
            self.on_host = comparer.between(self._reference, evidence.variant_host, self._names)
        self.stages = stage_errors(evidence, self.artifact, self.capture, comparer)
        self.failure = self._failure()
        self.faults = known_faults(self.artifact.facts, self.device, evidence.plan.host)
        shapes = {case.name: {n: ref.shape for n, ref in case.inputs.items()} for case in evidence.source.cases}
        self.deterministic, self._repeat = determinism(self.capture, shapes, comparer)
        here = None if self.device.is_host else evidence.variant_host
        little = faint(here, self.capture, self._names, evidence.source.held, comparer)
        self.engaged, self._engagement = engagement(self.artifact, self.capture, self.deterministic, little)
        self._rematch()
        plain = {name: JudgedOutput(each, judge_output(each, self.limits[name])) for name, each in self.total.items()}
        self._innocent: tuple[str, ...] = ()
        if not self.device.is_host:
            self._innocent = on_device.innocent(plain, self.on_host, self.limits)
        self._band = NOTHING
        if not self.device.is_host:
            method = "static" if self.faults.static else self.artifact.run_as.method  # a recipe may be static as well
            self._band = on_device.outside_band(
                self.stages, plain, self.on_host, self.faults, self._bands(method, self.capture.memory_mode),
                evidence.plan.options, evidence.plan.limits, self.device,
            )  # fmt: skip
        self._kernels = self._float_kernels()
        self._int8 = self._costs_more()
        self._residual = self._systematic(Residuals(comparer, evidence.source))
        self._converter = made_otherwise(self.artifact)
        self._rounding = beyond_rounding(self.artifact)
        middle = self.capture if self.device.is_host else evidence.variant_host
        floats = evidence.float_host or evidence.reference
        costs = activation_costs(self.artifact, evidence.source, evidence.reference, floats, middle, comparer)
        self.stages = replace(self.stages, predicted=costs.predicted)
        self._activations = beyond_activations(costs)
        self._decisions = self._decided()
        self._drift, self._drifts = self._rolled()
        rounds = self.faults.static or self.capture.memory_mode == "low" or evidence.plan.options.precision == "low"
        self._trust = (
            *trust.looks(self.capture, self.deterministic, self.artifact.size),
            trust.settings(self.capture, comparer, rounds=rounds),
            *claims(self.capture, evidence.plan.options),
        )
        self._strain = strained(
            evidence.source, evidence.reference, evidence.float_host, self.capture, comparer, self.total,
            host_wrong=self.faults.less,
        )  # fmt: skip
        verdicts = [output.verdict.verdict for output in plain.values()]
        self._limits_verdict = worst([Verdict.PASS, *verdicts])
        self._broken = any(output.verdict.failed for output in plain.values())
        self._own = own_output(evidence.source.reference, self.artifact, self.total, evidence.conversion)
        self._loose = keeps_anything(self.total, self.limits)
        # Of a file that is not known to be what was asked for, nothing can be concluded.
        doubted = any(each.severity in ("error", "fail") for each in self.artifact.findings)
        made = Observed((), Verdict.INCONCLUSIVE if doubted else Verdict.PASS)
        self._precision = on_device.precision_ineffective(self.device, evidence.plan.options)
        less = (*self.artifact.findings, *evidence.source.findings)
        looks = (
            self._repeat, self._kernels, self._band, self._int8, *self._residual, self._decisions, self._engagement,
            self._converter, self._rounding, self._activations, self._strain, made, *self._trust, *self._drifts,
            self._own, self._loose, self._precision,
        )  # fmt: skip
        verdict = worst(
            [
                *verdicts,
                evidence.reached,
                shows_less(less),
                *(look.verdict for look in looks if look.verdict is not Verdict.PASS),
                *([verdict_of(self.failure, host_too=self._fails_here())] if self.failure is not None else []),
                *([Verdict.INCONCLUSIVE] if evidence.doubted else []),
            ]
        )
        self.verdict = Verdict.INCONCLUSIVE if evidence.void and verdict is Verdict.FAIL else verdict

    def _rematch(self) -> None:
        """Where a list or a set breaks its limits place by place, its rows are matched first."""
        self._rows: list[Finding] = []
        for name, decision in self._e.source.decisions.items():
            if decision not in LISTS or name not in self.total:
                continue
            # What is NaN, of another type or not there is wrong in whatever order.
            if set(self.total[name].problems.values()) - {"shape"}:
                continue
            if judge_output(self.total[name], self.limits[name]).verdict is not Verdict.FAIL:
                continue
            found = rematched(name, self._reference, self.capture, self._compare, last=decision == "set")
            if found is not None:
                self._rows.append(found.finding)
                if found.summary is not None:
                    self.total = {**self.total, name: found.summary}

    def _decided(self) -> Observed:
        """What is said of outputs that decide something."""
        e, method = self._e, self._e.variant.method
        allowed = next(limit.value for limit in default_limits(method, "int") if limit.metric == "mismatch")
        found = winners(e.source, self._reference, self.capture, self._compare, allowed, e.plan.decides)
        rows = Verdict.MARGINAL if self._rows else Verdict.PASS
        return Observed((*self._rows, *found.findings), worst([rows, found.verdict]))

    def _fails_here(self) -> bool:
        here = self._e.variant_host
        return self.device.is_host or (here is not None and here.failure is not None)

    def _is_models(self, case: str) -> bool:
        """Whether a case that the device refused is the model's failure: this host cannot run it either."""
        return self.device.is_host or case in self._refused_here

    def _bands(self, method: str, memory: MemoryMode | None) -> Bands:
        """How far the device may be from this host in what is computed so."""
        here, plan = self._e.variant_host, self._e.plan
        alike = plan.options.precision != "low" and self.device.mnn == plan.host.mnn
        moved = [each for each in here.moved if each.memory == memory] if here is not None and alike else []
        return Bands(self._names, method, plan.options.precision, plan.limits, moved, self._e.source.held,
                     self._e.source.decisions)  # fmt: skip

    def _rolled(self) -> tuple[Drift, tuple[Observed, ...]]:
        """What the rollout comes to, where there was one."""
        e, plan = self._e, self._e.plan
        assert e.reference is not None
        here = self.capture if self.device.is_host else e.variant_host
        sides = Sides(
            e.reference if e.float_host is not None and e.reference.rollout is not None else None,
            e.float_host or e.reference,
            here, self.capture, self.device.is_host, self.artifact.run_as != FLOAT,
        )  # fmt: skip
        method = "static" if self.faults.static else self.artifact.run_as.method
        bounds = Bounds(self.limits, method, plan.options.precision, plan.limits, self.device.mnn == plan.host.mnn)
        return drift(e.source.rollout, sides, self._names, bounds, self._compare)

    def _float_kernels(self) -> Observed:
        """Whether device and host part by more than float kernels do where nothing is int8."""
        here = self._e.variant_host
        if here is None or self.device.is_host or not has_normal(self.artifact, here):
            return NOTHING
        found = float_kernels.file_or_kernel(self.stages.kernels, self._bands("weight", "normal"))
        return found if found.findings else float_kernels.unchecked(here, self.capture)

    def _costs_more(self) -> Observed:
        """Whether int8 costs more on the device than here; not asked where this host computes otherwise, or wrong."""
        e, here = self._e, self._e.variant_host
        base = e.float_host or e.reference
        other = self.device.mnn != e.plan.host.mnn or e.plan.options.precision == "low" or self.faults.of_the_host
        if here is None or base is None or self.device.is_host or other or "device" in self.stages.why:
            return NOTHING
        return costs_more(self.artifact, e.source, base, here, self.capture, self._compare, self._accepted())

    def _systematic(self, residuals: Residuals) -> tuple[Observed, ...]:
        """What of the errors of quantization and device is no rounding."""
        e, looks = self._e, [self._e.conversion_residual]
        base = e.float_host or e.reference
        middle = self.capture if self.device.is_host else e.variant_host
        if base is not None and middle is not None and "quantization" not in self.stages.why:
            made = self.artifact.run_as
            coarse = coarsely(self.artifact, self.stages.quantization)
            looks.append(residuals.observed("quantization", base, middle, self._names, made=made, coarse=coarse))
        if middle is not None and "device" not in self.stages.why:
            own = None if self.artifact.run_as == FLOAT else base
            # Where this host is the one that is known to be wrong, nobody can say what the device adds.
            level: Severity = "warn" if self.faults.of_the_host else "fail"
            accepted = self._accepted()
            looks.append(
                residuals.observed(
                    "device", middle, self.capture, self._names, base=own, severity=level, accepted=accepted
                )
            )
        return tuple(looks)

    def _accepted(self) -> list[str]:
        """Outputs for which the user has opened the band of the device: all with precision low, whose functions are
        coarser there (a sigmoid is off by the same in every case)."""
        if self._e.plan.options.precision == "low":
            return list(self._names)
        method, plan = "static" if self.faults.static else self.artifact.run_as.method, self._e.plan
        usual = device_bands(self._names, method, plan.options.precision, ())
        asked = device_bands(self._names, method, plan.options.precision, plan.limits)
        return [name for name in usual if asked[name].value < usual[name].value]

    def _failure(self) -> Failure | None:
        """Why it did not get to its end: as captured, a case that is not in it, or one that this device refused and
        this host can run."""
        if self.capture.failure is not None:
            return self.capture.failure
        missing = untold(self.capture, [case.name for case in self._e.source.cases])
        if missing:
            return Failure(
                code="CAPTURE_INCOMPLETE",
                message=f"the capture says nothing of case {', '.join(missing[:5])}, though it was not interrupted",
                where=self._e.uri,
                hint="The run folder is damaged: run again.",
                evidence={"cases": missing[:1000]},
            )
        if self.device.is_host:
            return None
        for case, said in refused_cases(self.capture).items():
            if case not in self._refused_here:
                return Failure(
                    code="INFERENCE_FAILED",
                    message=said,
                    where=self._e.uri,
                    hint="MNN on this host runs this case: compare the MNN versions, or pin other sizes with --shape.",
                    evidence={"case": case},
                )
        return None

    def _remedy(self, output: str, other_variants: str) -> str:
        """Another variant helps no output that the conversion itself has broken."""
        if self._e.conversion is None or not is_cause(self._e.conversion.get(output)):
            return other_variants
        return "The conversion is the cause, not the variant: see what is said of the model."

    def beside(self) -> Beside:
        """What advice about other trials has to know of this one."""
        numbers = [summary.values.get("sqnr_db") for summary in self.total.values()]
        known = [value for value in numbers if value is not None]
        exact = bool(self.total) and all(summary.exact for summary in self.total.values())
        made = self.artifact
        return Beside(
            self._e.uri,
            str(self._e.variant),
            self.verdict,
            made.label or str(made.asked),
            math.inf if exact else min(known, default=-math.inf),
            self._broken,
            self.failure is None,
            made.size,
            made.calibration is not None and all(each.code != "CALIBRATION_RANDOM" for each in made.findings),
        )

    def judged(self, others: Sequence[Beside]) -> TrialJudgement:
        """The judgement, with advice that knows of the other trials on the same device."""
        e = self._e
        remedy = limit_remedy(self.beside(), others)
        outputs = {
            name: JudgedOutput(
                summary,
                # Of one whose error enters on the device, advice to quantize in another way would lead astray.
                judge_output(
                    summary,
                    self.limits[name],
                    output=name,
                    remedy=None if name in self._innocent else self._remedy(name, remedy),
                    refused=refused_cases(self.capture),
                ),
            )
            for name, summary in self.total.items()
        }
        after: tuple[Observed, ...] = (
            on_device.blame(self._innocent, self.faults, e.plan.options, self.device),
            self._kernels,
            self._band,
            self._int8,
            *self._residual,
            self._decisions,
            self._strain,
            *self._trust,
            *self._drifts,
            pool_remark(self.faults, is_host=self.device.is_host, verdict=self._limits_verdict),
            less_remark(self.faults, is_host=self.device.is_host, verdict=self._limits_verdict),
            i8mm_remark(self.faults, self.device),
            resize_remark(self.faults, self.device),
            on_device.device_limit_unused(e.plan.limits, only_host=e.only_host),
            self._engagement,
            self._converter,
            self._rounding,
            self._activations,
            on_device.versions_differ(self.device, e.plan.host.mnn),
            self._precision,
            self._own,
            self._loose,
        )
        if e.plan.job == "quantize" and self.failure is None:
            after = (*after, file_resembles(self._reference, self.capture, self._compare))
        findings: tuple[Finding, ...] = (
            *self.artifact.findings,
            *self._repeat.findings,
            *(finding for output in outputs.values() for finding in output.verdict.findings),
            *(finding for look in after for finding in look.findings),
        )
        return TrialJudgement(
            e.uri,
            e.variant,
            self.verdict,
            self.artifact,
            self.capture,
            self.failure,
            outputs,
            self.stages,
            self.engaged,
            latency_of(self.capture, e.plan.options),
            why_no_latency(self.capture, wanted=e.plan.latency),
            findings,
            e.source.decisions,
            self._drift,
            independent(self._compare, e.source, self.artifact),
        )
