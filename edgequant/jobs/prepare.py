"""The part of a run that needs no device: read the model, make cases, compute the reference, convert to float MNN."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from edgequant.archive.folder import RunDirectory, safe_name
from edgequant.archive.outputs import Comparisons, OutputStore
from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin, spare
from edgequant.cases.images import ImageReader
from edgequant.cases.load import load_cases
from edgequant.cases.pictures import find_pictures, picture_findings, refuse_unused
from edgequant.clock import Clock
from edgequant.compare.table import Kind
from edgequant.errors import InputError, RunnerError, ToolError
from edgequant.findings import Finding
from edgequant.jobs.remarks import (
    conversion_failed,
    conversion_wrong,
    dropped,
    infinite_inputs,
    random_cases,
    unchecked,
)
from edgequant.judge.limits import defaults_for, resolve_limits
from edgequant.lab.session import Session
from edgequant.models import ModelGraph, find_risks, read_model
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.calibration import CalibrationOptions, check_early
from edgequant.quantize.convert import ConvertedModel, convert
from edgequant.quantize.recipe import Recipe
from edgequant.reference.reference import (
    CaseRefused,
    FileReference,
    MnnFloatReference,
    OrtReference,
    Reference,
    onnxruntime_available,
)
from edgequant.runner.client import Loaded, MnnRunner
from edgequant.spec import Variant
from edgequant.spec.function import looks_like_function
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

FLOAT = Variant(method="float")


@dataclass
class Prepared:
    """What every variant and device of a run shares.

    Attributes:
        graph: the source model's.
        inputs: what a case must hold.
        cases: in order; each has reference outputs in `expected`.
        expected: the reference outputs.
        kinds: output name -> "float" or "int", for the outputs the reference has.
        float_outputs: what float MNN computes on this host (the reference itself, where that is float MNN).
        conversion: float MNN on this host against the reference; None where float MNN is the reference.
        float_failed: cases that float MNN could not run on this host -> why.
        findings: about the model, the cases and the conversion.
    """

    graph: ModelGraph
    inputs: tuple[TensorSpec, ...]
    cases: list[Case]
    expected: OutputStore
    kinds: dict[str, Kind]
    reference: str
    reference_version: str | None
    reference_why: str
    float_model: ConvertedModel
    float_outputs: OutputStore
    conversion: Comparisons | None
    float_failed: dict[str, str]
    clock: Clock
    findings: list[Finding] = field(default_factory=list)
    converted: dict[str, ConvertedModel] = field(default_factory=dict)


@dataclass(frozen=True)
class Looked:
    """What is known before anything is run: the source's graph and, where it tells enough, the user's cases."""

    graph: ModelGraph
    cases: list[Case] | None


def look(request: Request, progress: Progress, clock: Clock) -> Looked:
    """Read the model and find the user's mistakes, before a device is troubled.  Raises InputError."""
    with clock.phase("read"):
        graph = read_model(request.model)
    progress.say(f"model: {graph.path.name}, {graph.format}, {graph.size / 1e6:.1f} MB, sha256 {graph.sha256[:12]}")
    _refuse_quantized_source(graph, request)
    for variant in request.variants:
        if variant.file is not None:
            Recipe.read(Path(variant.file))
    return Looked(graph, _check_early(request, graph))


def prepare(
    request: Request, looked: Looked, run_dir: RunDirectory, host: Session, progress: Progress, clock: Clock
) -> Prepared:
    """Do it.  Raises InputError, ToolError, DeviceError (the host's own runner)."""
    graph, given = looked.graph, looked.cases
    progress.say("converting to float MNN")
    with clock.phase("convert"):
        float_model = make_model(graph, FLOAT, run_dir, request.convert_timeout)
    runner = host.runner()
    with clock.phase("host"):
        loaded = _load_float(runner, float_model)
    inputs = _inputs(graph, loaded)
    findings = find_risks(graph)
    cases = given or _cases(request, inputs)
    if cases[0].generated:
        calibrated = [each for each in request.variants if each.calibrated and request.calibration is not None]
        findings.append(random_cases(request.options.seed, calibrated))
    findings += infinite_inputs(cases)
    findings += _of_pictures(request, inputs)

    reference, why = _reference(request, graph, cases, host, loaded, run_dir)
    progress.say(f"reference: {reference.name} {reference.version or ''} ({why})")
    if reference.name == MnnFloatReference.name:
        findings.append(unchecked(why))
    expected = OutputStore(run_dir, "reference")
    kept: list[Case] = []
    kinds: dict[str, Kind] = {}
    named: dict[str, set[str]] = {}
    try:
        with clock.phase("reference"):
            waiting, wanted = deque(cases), len(cases)
            spares = deque(spare(pin(inputs, request.shapes), request.options.seed) if cases[0].generated else ())
            while waiting or (spares and len(kept) < wanted):
                case = waiting.popleft() if waiting else spares.popleft()
                try:
                    outputs = reference.run(case)
                except CaseRefused as refusal:
                    findings.append(dropped(case, refusal.reason, reference.name))
                    continue
                kept.append(case)
                expected.put(case.name, outputs)
                run_dir.save_arrays("cases", case.name, case.inputs)
                kinds.update({name: _kind(array.dtype.name) for name, array in outputs.items()})
                named[case.name] = set(outputs)
    finally:
        reference.close()
    if not kept:
        raise InputError(
            "CASES_IMPOSSIBLE",
            f"{reference.name} can run the model with none of the random cases: "
            f"{findings[-1].evidence.get('reason', '')}",
            hint="Give shapes it can run with --shape NAME=..., or real inputs with --inputs.",
        )
    findings += _check_reference_names(request, kinds, named, loaded)
    prepared = Prepared(
        graph=graph,
        inputs=inputs,
        cases=kept,
        expected=expected,
        kinds=kinds,
        reference=reference.name,
        reference_version=reference.version,
        reference_why=why,
        float_model=float_model,
        float_outputs=expected,
        conversion=None,
        float_failed={},
        clock=clock,
        findings=findings,
        converted={FLOAT.file_key: float_model},
    )
    if reference.name != MnnFloatReference.name:
        prepared.float_outputs = OutputStore(run_dir, "host/float")
        progress.say("running float MNN on this host (the conversion error)")
        with clock.phase("host"):
            _measure_conversion(prepared, host, loaded)
    return prepared


def make_model(graph: ModelGraph, variant: Variant, run_dir: RunDirectory, timeout: float) -> ConvertedModel:
    """Convert to one variant, kept in the run directory.  Raises InputError, ToolError."""
    name = safe_name(variant.file_key.replace(":", "").replace(",", "-"))
    made = convert(
        graph.path,
        graph.format,
        variant,
        run_dir.models / f"{name}.mnn",
        log_dir=run_dir.logs,
        timeout=timeout,
        memory_limit=memory_limit(),
    )
    # With its hash in the name, a file that has left this folder still says which run it belongs to.
    return replace(made, path=made.path.rename(made.path.with_name(f"{name}-{made.sha256[:16]}.mnn")))


def memory_limit() -> int:
    """Bytes the converter may take: what is free now, less a tenth, so that it dies before this host starts to swap."""
    return max(1 << 30, int(psutil.virtual_memory().available * 0.9))


def _refuse_quantized_source(graph: ModelGraph, request: Request) -> None:
    if graph.format == "mnn" and graph.weights == "quantized" and request.reference is None:
        raise InputError(
            "SOURCE_ALREADY_QUANTIZED",
            f"{graph.path.name} is quantized already, so there is no float model to hold it against",
            hint="Give the float source (ONNX, TFLite, .pb or float .mnn), or reference outputs with --reference. "
            "`edgequant run` runs it as it is.",
        )


def _load_float(runner: MnnRunner, model: ConvertedModel) -> Loaded:
    """Float MNN in full precision, whatever the variants are run with: it is what they are measured against."""
    return runner.load(str(model.path.resolve()), "normal", precision="normal")


def _check_early(request: Request, graph: ModelGraph) -> list[Case] | None:
    """Find the user's mistakes before the long part, where the format tells enough; returns the cases, if given."""
    own = request.calibration is not None and looks_like_function(request.calibration)
    refuse_unused(request.images, request.inputs, None if own else request.calibration)
    if request.reference is not None and not request.reference.exists():
        raise InputError("REFERENCE_NOT_FOUND", f"{request.reference}: no such file or folder")
    if graph.outputs:
        kinds: dict[str, Kind] = {spec.name: _kind(spec.dtype) for spec in graph.outputs}
        resolve_limits(kinds, defaults_for("float"), request.limits)
    if graph.inputs is None:
        return None
    pin(graph.inputs, request.shapes)
    if any(variant.calibrated for variant in request.variants):
        images = CalibrationOptions(images=request.images or ImageOptions())
        check_early(request.calibration, pin(graph.inputs, request.shapes), images)
    return None if request.inputs is None else _cases(request, graph.inputs)


def _kind(dtype: str) -> Kind:
    return "int" if np.dtype(dtype).kind in "biu" else "float"


def _inputs(graph: ModelGraph, loaded: Loaded) -> tuple[TensorSpec, ...]:
    """What a case must hold: the source's own inputs where it tells them, else MNN's."""
    declared = {entry.name: entry for entry in loaded.answer.inputs}
    if graph.inputs is None:
        return tuple(
            TensorSpec(
                entry.name, entry.dtype, tuple(size if size > 0 else None for size in entry.shape), None, entry.layout
            )
            for entry in loaded.answer.inputs
        )
    known = {spec.name for spec in graph.inputs}
    strangers = [name for name in declared if name not in known]
    if strangers:
        raise ToolError(
            "CONVERSION_INPUTS",
            f"the MNN model wants inputs the source does not have: {', '.join(strangers)}",
            where=graph.path.name,
            hint="The conversion changed the model's inputs; export it again with plain names.",
        )
    return tuple(
        TensorSpec(
            spec.name,
            spec.dtype,
            spec.shape,
            spec.dims,
            spec.layout or (declared[spec.name].layout if spec.name in declared else None),
        )
        for spec in graph.inputs
    )


def _cases(request: Request, inputs: tuple[TensorSpec, ...]) -> list[Case]:
    if request.inputs is not None:
        # A shape that is pinned says what pictures are scaled to; of other cases it is checked below.
        specs = inputs if find_pictures(request.inputs) is None else pin(inputs, request.shapes)
        cases = load_cases(request.inputs, specs, request.images)
        for name, shape in request.shapes.items():
            for case in cases:
                if name in case.inputs and tuple(case.inputs[name].shape) != shape:
                    raise InputError(
                        "INPUT_SHAPE",
                        f"{case.source}: input '{name}' has shape {list(case.inputs[name].shape)}, "
                        f"--shape asks for {list(shape)}",
                    )
        pin(inputs, request.shapes)
        return cases
    return generate(pin(inputs, request.shapes), request.options.seed)


def _of_pictures(request: Request, inputs: tuple[TensorSpec, ...]) -> list[Finding]:
    """What was done to the pictures that are cases."""
    pictures = None if request.inputs is None else find_pictures(request.inputs)
    if pictures is None:
        return []
    reader = ImageReader(pin(inputs, request.shapes), request.images or ImageOptions())
    return picture_findings(pictures.files, reader, prefix="INPUT")


def _reference(
    request: Request, graph: ModelGraph, cases: list[Case], host: Session, loaded: Loaded, run_dir: RunDirectory
) -> tuple[Reference, str]:
    if request.reference is not None:
        return FileReference(request.reference, cases), str(request.reference)
    if graph.format == "onnx":
        if onnxruntime_available():
            log = run_dir.log("reference")
            return OrtReference(graph.path, log, request.options.timeout), "the source model itself"
        why = "ONNX Runtime is not installed (pip install onnxruntime); the conversion itself stays unchecked"
    else:
        why = f"no independent runtime for {graph.format} sources here; the conversion itself stays unchecked"
    return MnnFloatReference(host.runner(), loaded), why


def _check_reference_names(
    request: Request, kinds: dict[str, Kind], named: dict[str, set[str]], loaded: Loaded
) -> list[Finding]:
    """Refuse a reference for outputs the model lacks; tell which outputs it says nothing about."""
    if request.reference is None:
        return []
    unknown = [name for name in kinds if name not in loaded.answer.outputs]
    if unknown:
        raise InputError(
            "REFERENCE_OUTPUTS",
            f"{request.reference}: the model has no output {', '.join(unknown)}",
            hint=f"Its outputs are {', '.join(loaded.answer.outputs)}.",
        )
    left = [
        name if name not in kinds else f"{name} in {', '.join(without[:5])}"
        for name in loaded.answer.outputs
        if (without := [case for case, names in named.items() if name not in names])
    ]
    if not left:
        return []
    return [
        Finding(
            code="OUTPUTS_NOT_JUDGED",
            severity="warn",
            message=f"the reference says nothing about {len(left)} of the outputs, so neither does the verdict: "
            + ", ".join(left[:20]),
            evidence={"outputs": left[:1000]},
            remedy="Put every output into the reference file.",
        )
    ]


def feed(loaded: Loaded, case: Case) -> dict[str, np.ndarray]:
    """The inputs the MNN model still has: the converter drops those that nothing reads."""
    strangers = [entry.name for entry in loaded.answer.inputs if entry.name not in case.inputs]
    if strangers:
        raise RunnerError(
            "RUNNER_PROTOCOL", f"the runner wants inputs the model does not have: {', '.join(strangers)[:200]}"
        )
    return {entry.name: case.inputs[entry.name] for entry in loaded.answer.inputs}


def _measure_conversion(prepared: Prepared, host: Session, loaded: Loaded) -> None:
    """Float MNN on this host against the reference, every case; findings where it is not the same model."""
    stage = prepared.conversion = Comparisons()
    for case in prepared.cases:
        expected = prepared.expected.get(case.name)
        assert expected is not None
        try:
            got = host.runner().run(loaded, feed(loaded, case)).outputs
        except RunnerError as error:
            if error.code not in ("INFERENCE_FAILED", "RUNNER_DIED", "RUNNER_OUT_OF_MEMORY"):
                raise
            stage.add(case.name, expected, None)
            prepared.float_failed[case.name] = error.message
            prepared.findings.append(conversion_failed(case, error))
            if error.code != "INFERENCE_FAILED":
                host.drop_runner()
                loaded = _load_float(host.runner(), prepared.float_model)
            continue
        prepared.float_outputs.put(case.name, got)
        stage.add(case.name, expected, got)
    for name, summary in stage.summaries().items():
        prepared.findings += conversion_wrong(name, summary, own=prepared.reference == FileReference.name)
