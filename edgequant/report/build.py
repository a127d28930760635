"""From an archive and its judgement to the report."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from edgequant.archive.open import Run
from edgequant.archive.types import Artifact, Capture, DeviceCapture, Plan, TensorFacts, now
from edgequant.compare.summary import summarize
from edgequant.judge.curve import OutputDrift
from edgequant.judge.independent import failing_share
from edgequant.judge.types import Judgement, Stages, Summaries, TrialJudgement
from edgequant.judge.verdict import GOOD
from edgequant.report import model as report
from edgequant.report.diagnosis import DiagnosisReport


def build_report(
    run: Run, judgement: Judgement, plan: Plan | None = None, created: datetime | None = None
) -> report.Report:
    """The report of a run; the same archive and judgement give the same one but for `created`.

    plan: with the limits it was judged by, where these are others than the run's own.
    """
    plan, source = plan or run.plan, run.source
    reference = source.reference
    # By other limits, or of other decisions, another layer might be to blame.
    diagnosed = (plan.limits, plan.decides) == (run.plan.limits, run.plan.decides)
    return report.Report(
        verdict=judgement.verdict,
        created=created or now(),
        edgequant=plan.edgequant,
        mnn=plan.host.mnn,
        model=report.ModelInfo(
            path=source.path,
            sha256=source.sha256,
            inputs=[_tensor(each) for each in source.inputs],
            outputs=[_tensor(each) for each in source.declared],
            format=source.format,
            bytes=source.size,
        ),
        reference=None
        if reference is None
        else report.ReferenceInfo(kind=reference.kind, version=reference.version, why=reference.why),
        cases=[
            report.CaseInfo(
                name=case.name,
                shapes={name: list(ref.shape) for name, ref in case.inputs.items()},
                source=case.source,
            )
            for case in source.cases
        ],
        options=_options(plan),
        runs=[_run(trial, run, diagnosed=diagnosed) for trial in judgement.trials],
        findings=list(judgement.findings),
        timing_s=dict(run.closing.seconds),
    )


def _options(plan: Plan) -> dict[str, Any]:
    return {
        "limits": [str(limit) for limit in plan.limits],
        "decides": dict(plan.decides),
        "calibration": plan.calibration,
        "images": plan.images,
        "fallback": plan.fallback,
        "shapes": {name: list(shape) for name, shape in plan.shapes.items()},
        **plan.options.model_dump(),
    }


def _run(trial: TrialJudgement, run: Run, *, diagnosed: bool) -> report.Run:
    artifact, capture = trial.artifact, trial.capture
    failure = None if trial.failure is None else report.Failure(**trial.failure.model_dump())
    if artifact is None or capture is None:
        return report.Run(
            device=report.DeviceInfo(uri=trial.uri),
            variant=str(trial.variant),
            verdict=trial.verdict,
            error=failure,
            steps=[] if trial.failure is None else list(trial.failure.evidence.get("steps", ())),
            latency_why=trial.latency_why,
            memory_why="it was not run",
        )
    return report.Run(
        device=_device(trial.uri, capture.device),
        variant=str(trial.variant),
        made_as=artifact.label or str(artifact.asked),
        steps=list(artifact.steps),
        calibration=_calibration(artifact),
        verdict=trial.verdict,
        counts=artifact.facts.counts,
        independent_cases=trial.independent,
        failing_share_95=failing_share(trial.independent) if trial.verdict in GOOD else None,
        low_memory_engaged=trial.engaged.engaged,
        low_memory_why=trial.engaged.why,
        outputs={
            name: report.output_report(output.summary, output.verdict, trial.decisions.get(name))
            for name, output in trial.outputs.items()
        },
        errors=_stages(trial.stages),
        rollout_steps=trial.drift.done if trial.drift.asked else None,
        drift={name: _drift(each) for name, each in trial.drift.outputs.items()},
        latency_ms=trial.latency,
        latency_why=trial.latency_why,
        memory_mb=_memory(capture, artifact),
        findings=list(trial.findings),
        diagnosis=run.diagnosis(trial.uri, trial.variant, DiagnosisReport) if diagnosed else None,
        error=failure,
        file=artifact.path.name,
        sha256=artifact.sha256,
        options={
            **run.plan.options.model_dump(),
            "memory": capture.memory_mode,
            "threads": capture.threads or run.plan.options.threads,
            "pushed_bytes": capture.pushed_bytes,
            "runtime_bytes": capture.runtime_bytes,
            "low_memory_evidence": dict(trial.engaged.evidence),
        },
    )


def _device(uri: str, told: DeviceCapture | None) -> report.DeviceInfo:
    if told is None:
        return report.DeviceInfo(uri=uri)
    return report.DeviceInfo(
        uri=told.uri,
        arch=told.arch,
        cpu=told.cpu,
        features=list(told.features),
        mnn=told.mnn,
        cores=told.cores,
        ram_mb=told.ram_mb,
        emulated=told.emulator is not None,
        is_host=told.is_host,
        os=told.os,
        facts=dict(told.facts),
    )


def _calibration(artifact: Artifact) -> report.CalibrationInfo | None:
    used = artifact.calibration
    if used is None:
        return None
    return report.CalibrationInfo(
        source=used.source,
        samples=used.samples,
        shapes=[
            report.CalibrationShapes(samples=each.samples, inputs={k: list(v) for k, v in each.inputs.items()})
            for each in used.shapes
        ],
        images=used.images,
        cases=any(finding.code == "CALIBRATED_ON_CASES" for finding in artifact.findings),
    )


def _stages(stages: Stages) -> report.ErrorsByStage:
    def entries(found: Summaries) -> dict[str, report.ErrorEntry]:
        return {name: report.error_entry(summary) for name, summary in found.items()}

    return report.ErrorsByStage(
        conversion=entries(stages.conversion),
        quantization=entries(stages.quantization),
        device=entries(stages.device),
        weights=entries(stages.weights),
        activations=entries(stages.activations),
        kernels=entries({name: summarize(cases) for name, cases in stages.kernels.items()}),
        predicted=dict(stages.predicted),
        why_null=dict(stages.why),
    )


def _drift(found: OutputDrift) -> report.OutputDrift:
    return report.OutputDrift(
        curves={
            stage: report.DriftCurve(
                octaves=list(each.octaves), kind=each.kind, slope_db=each.slope_db, slope_error=each.slope_error
            )
            for stage, each in found.curves.items()
        },
        limit=None if found.bound is None else str(found.bound),
        breaks_at=found.breaks,
        stage=found.stage,
    )


def _memory(capture: Capture, artifact: Artifact) -> report.Memory:
    emulator = None if capture.device is None else capture.device.emulator

    def mb(kib: int | None) -> float | None:
        return None if kib is None or emulator is not None else kib * 1024 / 1e6

    seen = capture.readings
    peak = seen[-1].rss_peak
    pss = max((each.pss for each in seen if each.pss is not None), default=None)
    session = capture.session
    why = {}
    if session is None or session.mb is None:
        why["session"] = (session.why if session is not None else None) or "the run ended before it was measured"
    for name, value in (("rss_load", capture.loaded.rss), ("rss_peak", peak), ("pss_peak", pss)):
        if emulator is not None:
            why[name] = f"it would be that of {emulator}"
        elif value is None:
            why[name] = "the device does not tell" if capture.load_ms is not None else "the model was not loaded"
    return report.Memory(
        model_file=artifact.size / 1e6,
        session=None if session is None or session.mb is None else session.mb * (1 << 20) / 1e6,
        rss_before=mb(capture.before.rss),
        rss_load=mb(capture.loaded.rss),
        rss_peak=mb(peak),
        pss_peak=mb(pss),
        why_null=why,
    )


def _tensor(spec: TensorFacts) -> report.TensorInfo:
    return report.TensorInfo(name=spec.name, dtype=spec.dtype, shape=None if spec.shape is None else list(spec.shape))
