"""The part of a run that needs no device: read the model, make cases, compute the reference, convert to float MNN."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.folder import FLOAT_HOST, REFERENCE, RunFolder
from edgequant.archive.open import Run
from edgequant.archive.types import Artifact, Capture, CaseCapture, CaseFacts, ReferenceFacts, Source, TensorFacts
from edgequant.blame import TABLE, models_own
from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin, spare
from edgequant.cases.images import ImageReader
from edgequant.cases.load import load_cases
from edgequant.cases.pictures import find_pictures, picture_findings, refuse_unused
from edgequant.clock import Clock
from edgequant.compare.table import Kind
from edgequant.errors import InputError, RunnerError, ToolError, as_input
from edgequant.findings import Finding
from edgequant.jobs.remarks import dropped, infinite_inputs, random_cases, unchecked
from edgequant.judge.limits import defaults_for, resolve_limits
from edgequant.lab.session import Session
from edgequant.lab.take import HOST_DEATHS, ModelFile, Place, device_capture_of, each_case, memory_of, refusal_of
from edgequant.models import ModelGraph, find_risks, read_model
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.calibration import CalibrationOptions, check_early
from edgequant.quantize.maker import Maker
from edgequant.quantize.recipe import Recipe
from edgequant.reference.reference import (
    CaseRefused,
    FileReference,
    MnnFloatReference,
    OrtReference,
    Reference,
    onnxruntime_available,
)
from edgequant.runner.client import Loaded
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
        float_model: the float .mnn that was made of the source.
    """

    graph: ModelGraph
    inputs: tuple[TensorSpec, ...]
    cases: list[Case]
    expected: Expected
    kinds: dict[str, Kind]
    float_model: Artifact


class Expected:
    """Outputs of a capture, by case."""

    def __init__(self, capture: Capture, arrays: ArraySink) -> None:
        self._refs = {each.case: each.outputs for each in capture.cases}
        self._arrays = arrays

    def get(self, case: str) -> dict[str, np.ndarray] | None:
        """The outputs of a case, None where there are none."""
        refs = self._refs.get(case)
        return None if refs is None else {name: self._arrays.get(ref) for name, ref in refs.items()}


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
    request: Request,
    looked: Looked,
    folder: RunFolder,
    host: Callable[[], Session],
    maker: Maker,
    progress: Progress,
    clock: Clock,
) -> Prepared:
    """Convert to float MNN, make or read the cases, compute their reference, and run float MNN on this host.

    All of it is in the archive afterwards.  `host` gives this host's session, once it is there.

    Raises InputError, ToolError, DeviceError (the host's own runner).
    """
    graph, given = looked.graph, looked.cases
    progress.say("converting to float MNN")
    with clock.phase("convert"):
        float_model = maker.make(FLOAT)
    with clock.phase("host"):
        try:
            place = Place.load(host(), ModelFile(float_model.path, "normal", float_model.sha256, "normal"))
        except RunnerError as error:
            if models_own(error.code, host_too=True, evidence=error.evidence):
                raise as_input(error, "MNN cannot run this model: try another export (opset, fixed shapes).") from None
            raise
    inputs = _inputs(graph, place.loaded)
    findings = find_risks(graph)
    cases = given or _cases(request, inputs)
    if cases[0].generated:
        calibrated = [each for each in request.variants if each.calibrated and request.calibration is not None]
        findings.append(random_cases(request.options.seed, calibrated))
    findings += infinite_inputs(cases)
    findings += _of_pictures(request, inputs)
    reference, why = _reference(request, graph, cases, place, folder)
    progress.say(f"reference: {reference.name} {reference.version or ''} ({why})")
    if reference.name == MnnFloatReference.name:
        findings.append(unchecked(why))
    try:
        with clock.phase("reference"):
            spares = spare(pin(inputs, request.shapes), request.options.seed) if cases[0].generated else ()
            kept, captured, refused = _run_reference(reference, cases, spares, folder)
    finally:
        reference.close()
    findings += refused
    if not kept:
        raise InputError(
            "CASES_IMPOSSIBLE",
            f"{reference.name} can run the model with none of the random cases: "
            f"{findings[-1].evidence.get('reason', '')}",
            hint="Give shapes it can run with --shape NAME=..., or real inputs with --inputs.",
        )
    kinds = {name: _kind(ref.dtype) for case in captured for name, ref in (case.outputs or {}).items()}
    named = {case.case: set(case.outputs or {}) for case in captured}
    findings += _check_reference_names(request, kinds, named, place.loaded)
    expected = Capture(trial="reference", role="reference", cases=tuple(captured))
    folder.save_capture(REFERENCE, expected)
    if reference.name != MnnFloatReference.name:
        progress.say("running float MNN on this host (the conversion error)")
        with clock.phase("host"):
            _run_float(place, kept, folder)
    folder.save_source(
        Source(
            path=str(request.model),
            format=graph.format,
            sha256=graph.sha256,
            size=graph.size,
            inputs=tuple(_facts(spec) for spec in inputs),
            declared=tuple(_facts(spec) for spec in graph.outputs or ()),
            cases=tuple(_case_facts(case, folder) for case in kept),
            reference=ReferenceFacts(kind=reference.name, version=reference.version, why=why),
            kinds=kinds,
            float_sha256=float_model.sha256,
            findings=tuple(findings),
        )
    )
    return Prepared(graph, inputs, kept, Expected(expected, folder.array_folder), kinds, float_model)


def _run_reference(
    reference: Reference, cases: Sequence[Case], spares: Iterable[Case], folder: RunFolder
) -> tuple[list[Case], list[CaseCapture], list[Finding]]:
    """The cases that the reference can run, what came out of them, and what is to be said of the others."""
    kept: list[Case] = []
    captured: list[CaseCapture] = []
    findings: list[Finding] = []
    waiting, more, wanted = deque(cases), deque(spares), len(cases)
    while waiting or (more and len(kept) < wanted):
        case = waiting.popleft() if waiting else more.popleft()
        try:
            outputs = reference.run(case)
        except CaseRefused as refusal:
            findings.append(dropped(case, refusal.reason, reference.name))
            continue
        refs = {name: folder.array_folder.put(array) for name, array in outputs.items()}
        captured.append(CaseCapture(case=case.name, outputs=refs))
        folder.save_case(case.name, case.inputs)
        kept.append(case)
    return kept, captured, findings


def _run_float(place: Place, cases: Sequence[Case], folder: RunFolder) -> None:
    """Float MNN on this host, every case.  Raises DeviceError where its runner cannot be kept alive."""
    captured: list[CaseCapture] = []
    for case, result in each_case(place, cases, deaths=HOST_DEATHS):
        if isinstance(result, RunnerError):
            if TABLE.get(result.code) == "user":
                raise as_input(result, "Give other inputs with --inputs.")
            captured.append(refusal_of(case, result))
            continue
        refs = {name: folder.array_folder.put(array) for name, array in result.outputs.items()}
        captured.append(CaseCapture(case=case.name, outputs=refs, ms=result.ms, memory=memory_of(result.memory)))
    found = Capture(
        trial=FLOAT_HOST,
        role="float-host",
        variant=str(FLOAT),
        artifact_sha256=place.model.sha256,
        memory_mode="normal",
        device=device_capture_of(place.session),
        cases=tuple(captured),
    )
    folder.save_capture(FLOAT_HOST, found)


def _facts(spec: TensorSpec) -> TensorFacts:
    return TensorFacts(name=spec.name, dtype=spec.dtype, shape=spec.shape, dims=spec.dims, layout=spec.layout)


def _case_facts(case: Case, folder: RunFolder) -> CaseFacts:
    refs = {name: folder.array_folder.put(array) for name, array in case.inputs.items()}
    return CaseFacts(name=case.name, source=case.source, generated=case.generated, inputs=refs)


def _refuse_quantized_source(graph: ModelGraph, request: Request) -> None:
    if graph.format == "mnn" and graph.weights == "quantized" and request.reference is None:
        raise InputError(
            "SOURCE_ALREADY_QUANTIZED",
            f"{graph.path.name} is quantized already, so there is no float model to hold it against",
            hint="Give the float source (ONNX, TFLite, .pb or float .mnn), or reference outputs with --reference. "
            "`edgequant run` runs it as it is.",
        )


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
    request: Request, graph: ModelGraph, cases: list[Case], place: Place, folder: RunFolder
) -> tuple[Reference, str]:
    if request.reference is not None:
        return FileReference(request.reference, cases), str(request.reference)
    if graph.format == "onnx":
        if onnxruntime_available():
            log = folder.log("reference")
            return OrtReference(graph.path, log, request.options.timeout), "the source model itself"
        why = "ONNX Runtime is not installed (pip install onnxruntime); the conversion itself stays unchecked"
    else:
        why = f"no independent runtime for {graph.format} sources here; the conversion itself stays unchecked"
    return MnnFloatReference(place.runner, place.loaded), why


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


def source_of(graph: ModelGraph, request: Request) -> Source:
    """What is known of a source before anything is run."""
    return Source(
        path=str(request.model),
        format=graph.format,
        sha256=graph.sha256,
        size=graph.size,
        inputs=tuple(_facts(spec) for spec in graph.inputs or ()),
        declared=tuple(_facts(spec) for spec in graph.outputs or ()),
    )


def prepared_again(run: Run, looked: Looked, folder: RunFolder, maker: Maker, clock: Clock) -> Prepared:
    """What an interrupted run had prepared; only float MNN is made again."""
    source = run.source
    cases = [Case(each.name, run.inputs(each.name), each.source, each.generated) for each in source.cases]
    inputs = tuple(TensorSpec(each.name, each.dtype, each.shape, each.dims, each.layout) for each in source.inputs)
    with clock.phase("convert"):
        float_model = maker.make(FLOAT)
    expected = Expected(run.reference, folder.array_folder)
    kinds: dict[str, Kind] = dict(source.kinds)
    return Prepared(looked.graph, inputs, cases, expected, kinds, float_model)
