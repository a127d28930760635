"""From what was measured to the report.  Judges; measures nothing."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgequant.archive.outputs import OutputStore
from edgequant.clock import Clock
from edgequant.compare.summary import OutputSummary
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.jobs.made_variant import MadeVariant
from edgequant.jobs.prepare import FLOAT, Looked, Prepared
from edgequant.judge.device import (
    Limits,
    blame,
    device_limit_unused,
    outside_band,
    precision_ineffective,
    stage_error,
    versions_differ,
)
from edgequant.judge.kernel_faults import i8mm_remark, known_faults, pool_remark
from edgequant.judge.latency import Latency, latency_summary
from edgequant.judge.verdict import Verdict, judge_output, worst
from edgequant.lab.measure import Capture
from edgequant.lab.session import Session
from edgequant.models.model import ModelGraph
from edgequant.plan.request import Request
from edgequant.quantize.convert import ConvertedModel
from edgequant.report import model as report
from edgequant.spec import Variant
from edgequant.tensors import TensorSpec

if TYPE_CHECKING:
    from edgequant.jobs.verify import HostRun

_EXPECTED = ("the model has subgraphs", "an input is left out")
"""What the converter says of nearly every recurrent model; the risks of the source say it better."""


def failed_run(uri: str, variant: Variant, error: EdgequantError) -> report.Run:
    """The run of a variant that never started on a device."""
    return report.Run(
        device=report.DeviceInfo(uri=uri),
        variant=str(variant),
        verdict=Verdict.ERROR,
        error=report.Failure(**error.as_dict()),
        steps=list(error.evidence.get("steps", ())),
        latency_why="it was not run",
        memory_why="it was not run",
    )


def build_run(
    prepared: Prepared,
    request: Request,
    target: Session,
    made: MadeVariant,
    capture: Capture,
    outputs: OutputStore,
    middle: HostRun,
    limits: Limits,
    *,
    host_mnn: str,
    runtime_bytes: int,
) -> report.Run:
    """The report of one variant on one device.  runtime_bytes: sent of runner and pack on its behalf."""
    variant, model = made.run_as, made.model
    findings = [*made.findings, *capture.findings]
    judged: dict[str, report.OutputReport] = {}
    for name, summary in capture.total.summaries().items():
        verdict = judge_output(summary, limits[name], output=name)
        findings += verdict.findings
        judged[name] = report.output_report(summary, verdict)
    verdicts = [output.verdict for output in judged.values()]
    if capture.deterministic is False:
        verdicts.append(Verdict.INCONCLUSIVE)
    device = _device_info(target)
    faults = known_faults(model.path, device, platform.machine(), host_mnn)
    if Verdict.FAIL in verdicts and not target.device.is_host:
        findings = blame(prepared, middle, faults, limits, judged, findings)
    errors = _errors(prepared, target, variant, outputs, middle)
    if not target.device.is_host:
        findings += outside_band(prepared, request, variant, errors, judged, middle, faults, verdicts)
    findings += pool_remark(faults, is_host=target.device.is_host, verdicts=verdicts)
    findings += i8mm_remark(faults, device)
    findings += device_limit_unused(request)
    findings += _low_memory(capture, variant, verdicts)
    findings += [*_conversion_notes(model, variant, verdicts), *model.findings]
    findings += versions_differ(device, host_mnn)
    findings += precision_ineffective(device, request)
    if capture.error is not None:
        verdicts.append(Verdict.ERROR)
    return report.Run(
        device=device,
        variant=str(made.asked),
        made_as=made.label or str(made.asked),
        steps=[step.as_dict() for step in made.steps],
        calibration=_calibration(made),
        verdict=worst(verdicts),
        low_memory_engaged=capture.low_memory_engaged,
        low_memory_why=capture.low_memory_why,
        outputs=judged,
        errors=errors,
        latency_ms=_latency(capture, request),
        latency_why=_latency_why(capture, request, target.device.emulated),
        memory_mb=_memory(capture, model, target.device.emulated),
        findings=findings,
        error=None if capture.error is None else report.Failure(**capture.error.as_dict()),
        file=str(model.path.name),
        sha256=model.sha256,
        options={
            **request.options.model_dump(),
            "memory": capture.memory_mode,
            "threads": device.facts.get("threads", request.options.threads),
            "pushed_bytes": capture.pushed_bytes,
            "runtime_bytes": runtime_bytes,
            "low_memory_evidence": capture.low_memory_evidence,
        },
    )


def _calibration(made: MadeVariant) -> report.CalibrationInfo | None:
    used = made.calibration
    if used is None:
        return None
    return report.CalibrationInfo(
        source=used.source,
        samples=len(used),
        shapes=[
            report.CalibrationShapes(samples=count, inputs={name: list(shape) for name, shape in shapes})
            for shapes, count in used.shapes.most_common(100)
        ],
        images=used.images,
        cases=any(finding.code == "CALIBRATED_ON_CASES" for finding in made.findings),
    )


def _low_memory(capture: Capture, variant: Variant, verdicts: list[Verdict]) -> list[Finding]:
    """Where dynamic quantization was wanted but did not take place, the run says nothing about it: INCONCLUSIVE."""
    if variant.method != "dynamic" or capture.low_memory_engaged is True:
        return []
    if capture.error is not None and capture.low_memory_why is None:
        capture.low_memory_why = "the run ended before it could be proven"
        return []
    verdicts.append(Verdict.INCONCLUSIVE)
    capture.low_memory_why = capture.low_memory_why or "no case could be run"
    return [
        Finding(
            code="LOW_MEMORY_NOT_ENGAGED",
            severity="error",
            message=f"dynamic quantization did not take place: {capture.low_memory_why}"
            if capture.low_memory_engaged is False
            else f"dynamic quantization could not be proven: {capture.low_memory_why}",
            evidence=dict(capture.low_memory_evidence),
            remedy="It needs quantized weights, memory low, and an MNN built with MNN_LOW_MEMORY (PyPI's is).  To "
            "judge the weight-quantized file run in float, use weight:N.",
        )
    ]


def _conversion_notes(model: ConvertedModel, variant: Variant, verdicts: list[Verdict]) -> list[Finding]:
    """What the converter did other than it was asked.  Weights that stayed float prove nothing about quantized ones."""
    if variant.method == "weight" and not model.quantized_layers:
        verdicts.append(Verdict.INCONCLUSIVE)
        return [
            Finding(
                code="NOTHING_QUANTIZED",
                severity="error",
                message="no layer has weights of a kind or size that MNN quantizes: the file is a float model",
                evidence={"float_layers": model.float_layers, "log": model.log.name},
                remedy="There is nothing to gain from quantizing this model: use fp16 or float.",
            )
        ]
    if variant.method == "dynamic" and not model.quantized_layers:
        return []  # the finding about low memory says so
    return [
        Finding(code="CONVERTER_WARNING", severity="warn", message=text, evidence={"log": model.log.name})
        for text in model.warnings
        if not text.startswith(_EXPECTED)
    ]


def _device_info(target: Session) -> report.DeviceInfo:
    runner, chosen, device = target.known_runner, target.chosen, target.facts
    if runner is None or chosen is None or device is None:
        return report.DeviceInfo(uri=target.uri)
    facts = device.model_dump(mode="json")
    top = {key: facts.pop(key) for key in ("arch", "cpu", "features", "cores", "ram_mb", "os")}
    return report.DeviceInfo(
        uri=target.uri,
        **{**top, "features": top["features"] or []},
        mnn=runner.hello.mnn,
        emulated=target.device.emulated is not None,
        facts={
            **facts,
            "emulator": target.device.emulated,
            "mnn_kernels": runner.facts.mnn_kernels,
            "usable_cores": runner.facts.usable_cores,
            "python": runner.hello.python,
            "numpy": runner.hello.numpy,
            "threads": runner.threads,
            "runtime": chosen.runtime,
            "pack": chosen.pack,
            "why_not_pack": None if chosen.instead is None else f"{chosen.instead.code}: {chosen.instead}",
        },
    )


def _errors(
    prepared: Prepared, target: Session, variant: Variant, outputs: OutputStore, middle: HostRun
) -> report.ErrorsByStage:
    """The three errors that are never mixed up: conversion, quantization, device."""
    why: dict[str, str] = {}
    conversion: dict[str, OutputSummary] = {}
    if prepared.conversion is None:
        why["conversion"] = prepared.reference_why if prepared.reference == "mnn-float" else "not measured"
    else:
        conversion = prepared.conversion.summaries()
    if variant == FLOAT:
        why["quantization"] = "nothing is quantized"
    elif middle.why is not None:
        why["quantization"] = middle.why
    if target.device.is_host:
        why["device"] = "the device is this host"
    elif middle.why is not None:
        why["device"] = middle.why
    quantization = {} if "quantization" in why else stage_error(prepared, prepared.float_outputs, middle.outputs)
    device = {} if "device" in why else stage_error(prepared, middle.outputs, outputs)
    return report.ErrorsByStage(
        conversion={name: report.error_entry(summary) for name, summary in conversion.items()},
        quantization={name: report.error_entry(summary) for name, summary in quantization.items()},
        device={name: report.error_entry(summary) for name, summary in device.items()},
        why_null=why,
    )


def _latency(capture: Capture, request: Request) -> Latency | None:
    if capture.timing is None:
        return None
    why = []
    if capture.timing.end is None:
        why.append("the runner did not get to the end of the timing")
    elif not capture.timing.end.complete:
        why.append(f"{len(capture.timing.samples)} samples in the time there was, {request.options.repeat} were wanted")
    elif capture.timing.warmup < request.options.warmup:
        why.append("the time was over before the warm-up was")
    latency = latency_summary(
        capture.timing.samples, capture.timing.warmup, capture.load_ms, capture.first_ms, why_invalid=why
    )
    return latency.model_copy(update={"case": capture.timing_case})


def _latency_why(capture: Capture, request: Request, emulator: str | None) -> str | None:
    if emulator is not None:
        return f"emulated by {emulator}: times would say nothing about the CPU"
    if capture.timing is not None:
        return f"one inference of case '{capture.timing_case}'"
    return "not asked for" if not request.latency else "the run ended before it was timed"


def _memory(capture: Capture, model: ConvertedModel, emulator: str | None) -> report.Memory:
    def mb(kib: int | None) -> float | None:
        return None if kib is None or emulator is not None else kib * 1024 / 1e6

    why = {}
    if capture.session_mb is None:
        why["session"] = capture.session_why or "the run ended before it was measured"
    for name, value in (
        ("rss_load", capture.loaded.rss),
        ("rss_peak", capture.peak.rss_peak),
        ("pss_peak", capture.pss_peak),
    ):
        if emulator is not None:
            why[name] = f"it would be that of {emulator}"
        elif value is None:
            why[name] = "the device does not tell" if capture.load_ms is not None else "the model was not loaded"
    return report.Memory(
        model_file=model.size / 1e6,
        session=None if capture.session_mb is None else capture.session_mb * (1 << 20) / 1e6,
        rss_before=mb(capture.before.rss),
        rss_load=mb(capture.loaded.rss),
        rss_peak=mb(capture.peak.rss_peak),
        pss_peak=mb(capture.pss_peak),
        why_null=why,
    )


def _tensor(spec: TensorSpec) -> report.TensorInfo:
    return report.TensorInfo(name=spec.name, dtype=spec.dtype, shape=None if spec.shape is None else list(spec.shape))


def build_report(
    request: Request,
    prepared: Prepared,
    runs: list[report.Run],
    findings: list[Finding],
    verdict: Verdict,
    version: str,
    mnn: str,
) -> report.Report:
    """The report of all runs."""
    return report.Report(
        verdict=verdict,
        edgequant=version,
        mnn=mnn,
        model=_model(request, prepared.graph, prepared.inputs),
        reference=report.ReferenceInfo(
            kind=prepared.reference, version=prepared.reference_version, why=prepared.reference_why
        ),
        cases=[
            report.CaseInfo(
                name=case.name,
                shapes={name: list(shape) for name, shape in case.shapes.items()},
                source=case.source,
            )
            for case in prepared.cases
        ],
        options=_options(request),
        runs=runs,
        findings=findings,
        timing_s=dict(prepared.clock.seconds),
    )


def build_unused(
    request: Request, looked: Looked, errors: Mapping[str, EdgequantError], clock: Clock, version: str, mnn: str
) -> report.Report:
    """The report where no device can be used: nothing was made, nothing was run."""
    return report.Report(
        verdict=Verdict.ERROR,
        edgequant=version,
        mnn=mnn,
        model=_model(request, looked.graph, looked.graph.inputs or ()),
        options=_options(request),
        runs=[failed_run(uri, variant, error) for uri, error in errors.items() for variant in request.variants],
        timing_s=dict(clock.seconds),
    )


def _model(request: Request, graph: ModelGraph, inputs: Sequence[TensorSpec]) -> report.ModelInfo:
    return report.ModelInfo(
        path=str(request.model),
        sha256=graph.sha256,
        inputs=[_tensor(spec) for spec in inputs],
        outputs=[_tensor(spec) for spec in graph.outputs or ()],
        format=graph.format,
        bytes=graph.size,
    )


def _options(request: Request) -> dict[str, object]:
    return {
        "limits": [str(limit) for limit in request.limits],
        "calibration": request.calibration,
        "images": None if request.images is None else request.images.model_dump(mode="json"),
        "fallback": request.fallback,
        "shapes": {name: list(shape) for name, shape in request.shapes.items()},
        **request.options.model_dump(),
    }
