"""The part of a run that needs no device: read the model, make cases, compute the reference, convert to float MNN."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.folder import FLOAT_HOST, REFERENCE, RunFolder
from edgequant.archive.open import Run
from edgequant.archive.rollout import Rollout
from edgequant.archive.types import Artifact, Capture, CaseCapture, CaseFacts, ReferenceFacts, Source, TensorFacts
from edgequant.background import Background
from edgequant.blame import TABLE, models_own
from edgequant.cases.case import Case, usual
from edgequant.cases.generate import pin
from edgequant.cases.images import ImageReader
from edgequant.cases.pictures import find_pictures, picture_findings
from edgequant.clock import Clock
from edgequant.compare.table import Kind
from edgequant.devices.local import LocalDevice
from edgequant.errors import InputError, RunnerError, ToolError, as_input
from edgequant.findings import Finding
from edgequant.jobs.branches import with_conditions
from edgequant.jobs.look import Looked, kind_of, read_cases
from edgequant.jobs.predicted import rounding_costs
from edgequant.jobs.ranges import beyond_half
from edgequant.jobs.reference_cases import RandomCases, answer_given, answer_random
from edgequant.jobs.reference_checks import reference_findings
from edgequant.jobs.remarks import infinite_inputs, random_cases, unchecked
from edgequant.jobs.rollout import roll_reference, rollout_findings, rollout_of
from edgequant.lab.probes.rollout import PlaceRoller, take_rollout
from edgequant.lab.session import Session
from edgequant.lab.take import HOST_DEATHS, ModelFile, Place, device_capture_of, each_case, memory_of, refusal_of
from edgequant.models import ModelGraph, find_risks
from edgequant.models.decisions import find_decisions
from edgequant.models.tables import row_limits
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.maker import MOST_AT_ONCE, Maker
from edgequant.reference.reference import FileReference, MnnFloatReference, Reference
from edgequant.reference.runtime import RuntimeReference, begin, independent
from edgequant.runner.client import Loaded
from edgequant.spec import Variant
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

FLOAT = Variant(method="float")
_COUNTING = {"NonZero", "NonMaxSuppression", "Compress", "Unique", "WHERE", "UNIQUE", "NON_MAX_SUPPRESSION_V4",
             "NON_MAX_SUPPRESSION_V5"}  # fmt: skip
"""Operators that give as many rows as they find, be it none."""
_QUICK = 2.0
"""Seconds: where the reference takes no longer for all cases, float MNN is run while it computes their copy."""


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
        rollout: what is rolled out; None for nothing.
    """

    graph: ModelGraph
    inputs: tuple[TensorSpec, ...]
    cases: list[Case]
    expected: Expected
    kinds: dict[str, Kind]
    float_model: Artifact
    rollout: Rollout | None = None

    @property
    def usual(self) -> list[Case]:
        """Those of the cases that say how good a file is."""
        return usual(self.cases)


class Expected:
    """Outputs of a capture, by case."""

    def __init__(self, capture: Capture, arrays: ArraySink) -> None:
        self._refs = {each.case: each.outputs for each in capture.cases}
        self._arrays = arrays

    def get(self, case: str) -> dict[str, np.ndarray] | None:
        """The outputs of a case, None where there are none."""
        refs = self._refs.get(case)
        return None if refs is None else {name: self._arrays.get(ref) for name, ref in refs.items()}


def prepare(
    request: Request,
    looked: Looked,
    folder: RunFolder,
    host: Callable[[], Session],
    maker: Maker,
    progress: Progress,
    clock: Clock,
    *,
    meanwhile: Callable[[], object],
) -> Prepared:
    """Convert to float MNN, make or read the cases, compute their reference, and run float MNN on this host.

    All of it is in the archive afterwards.  `host` gives this host's session, once it is there.
    `meanwhile` is called when all that can be started has been.

    Raises InputError, ToolError, DeviceError (the host's own runner).
    """
    graph, given = looked.graph, looked.cases
    with contextlib.ExitStack() as stack:
        # The source's own runtime starts beside the conversion, where both at once are not too much for this host.
        early: RuntimeReference | None = None
        if request.reference is None and graph.size <= MOST_AT_ONCE:
            early = begin(graph.format, graph.path, folder.log("reference"), request.options.timeout)
        if early is not None:
            stack.callback(early.close)
        meanwhile()
        progress.say("converting to float MNN")
        with clock.phase("convert"):
            float_model = maker.make(FLOAT)
        with clock.phase("host"):
            try:
                place = Place.load(host(), ModelFile(float_model.path, "normal", float_model.sha256, "normal"))
            except RunnerError as error:
                if models_own(error.code, host_too=True, evidence=error.evidence):
                    raise as_input(
                        error, "MNN cannot run this model: try another export (opset, fixed shapes)."
                    ) from None
                raise
        inputs = _inputs(graph, place.loaded)
        findings = find_risks(graph)
        cases = given or read_cases(request, inputs, graph)
        if cases[0].generated:
            calibrated = [each for each in request.variants if each.calibrated and request.calibration is not None]
            findings.append(random_cases(request.options.seed, calibrated))
        findings += infinite_inputs(cases)
        findings += _of_pictures(request, inputs)
        reference, why = _reference(request, graph, cases, place, folder, early)
        progress.say(f"reference: {reference.name} {reference.version or ''} ({why})")
        if reference.name == MnnFloatReference.name:
            findings.append(unchecked(graph.format, why))
        floating: Background[Capture] | None = None
        try:
            with clock.phase("reference"):
                begun = time.monotonic()
                counts = any(op.type in _COUNTING for op in graph.ops)
                random = RandomCases(pin(inputs, request.shapes), request.options.seed, row_limits(graph), counts)
                if cases[0].generated and request.reference is None:
                    kept, captured, refused = answer_random(reference, cases, random, folder)
                else:
                    kept, captured = answer_given(reference, cases, folder)
                    refused = []
                rollout = rollout_of(request, kept, captured, random, folder.array_folder)
                rolled = None if rollout is None else roll_reference(reference, rollout, folder.array_folder)
                quick = time.monotonic() - begun < _QUICK  # or the copy with rounding might take too long beside it
                if early is not None and reference is early and kept and quick:
                    progress.say("running float MNN on this host (the conversion error)")
                    floating = stack.enter_context(_beside(place, kept, folder, rollout))
                captured, branched = with_conditions(graph, reference, kept, captured, folder.array_folder)
                rounded, unknown = rounding_costs(request, graph, reference, kept, captured, folder.array_folder)
        finally:
            reference.close()
        findings += [*refused, *branched, *unknown]
        if not kept:
            raise InputError(
                "CASES_IMPOSSIBLE",
                f"{reference.name} can run the model with none of the random cases: "
                f"{findings[-1].evidence.get('reason', '')}",
                hint="Give shapes it can run with --shape NAME=..., or real inputs with --inputs.",
            )
        kinds = {name: kind_of(ref.dtype) for case in captured for name, ref in (case.outputs or {}).items()}
        named = {case.case: set(case.outputs or {}) for case in captured}
        findings += _check_reference_names(request, kinds, named, place.loaded)
        expected = Capture(trial="reference", role="reference", cases=tuple(captured), moved=rounded, rollout=rolled)
        folder.save_capture(REFERENCE, expected)
        if reference.name != MnnFloatReference.name:
            if floating is None:
                progress.say("running float MNN on this host (the conversion error)")
            with clock.phase("host"):
                host_capture = _run_float(place, kept, folder, rollout) if floating is None else floating.result()
            folder.save_capture(FLOAT_HOST, host_capture)
            if request.reference is not None:
                findings += reference_findings(expected, host_capture, folder.array_folder, float_model.path)
        if request.options.precision == "low":
            work = folder.path / "models" / ".half"
            findings += beyond_half(float_model.path, usual(kept), inputs, work, request.options.timeout)
        with clock.phase("convert"):
            findings += maker.repeated()
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
                decisions={name: decision for name, decision in find_decisions(graph).items() if name in kinds},
                float_sha256=float_model.sha256,
                findings=(*findings, *(rollout_findings(rollout) if rollout is not None else ())),
                rollout=rollout,
            )
        )
        return Prepared(graph, inputs, kept, Expected(expected, folder.array_folder), kinds, float_model, rollout)


def _run_float(place: Place, cases: Sequence[Case], folder: RunFolder, rollout: Rollout | None) -> Capture:
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
    return Capture(
        trial=FLOAT_HOST,
        role="float-host",
        variant=str(FLOAT),
        artifact_sha256=place.model.sha256,
        memory_mode="normal",
        device=device_capture_of(place.session),
        cases=tuple(captured),
        rollout=None if rollout is None else take_rollout(PlaceRoller(place), rollout, folder.array_folder),
    )


@contextlib.contextmanager
def _beside(
    place: Place, cases: Sequence[Case], folder: RunFolder, rollout: Rollout | None
) -> Iterator[Background[Capture]]:
    """`_run_float`, while the reference computes something else; nothing of it is left where the caller fails."""
    work = Background(lambda: _run_float(place, cases, folder, rollout))
    try:
        yield work
    except BaseException:
        if not work.done:
            assert isinstance(place.session.device, LocalDevice)
            place.session.device.stop()
        work.wait()
        raise


def _facts(spec: TensorSpec) -> TensorFacts:
    return TensorFacts(name=spec.name, dtype=spec.dtype, shape=spec.shape, dims=spec.dims, layout=spec.layout)


def _case_facts(case: Case, folder: RunFolder) -> CaseFacts:
    refs = {name: folder.array_folder.put(array) for name, array in case.inputs.items()}
    return CaseFacts(name=case.name, source=case.source, generated=case.generated, kind=case.kind, inputs=refs)


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


def _of_pictures(request: Request, inputs: tuple[TensorSpec, ...]) -> list[Finding]:
    """What was done to the pictures that are cases."""
    pictures = None if request.inputs is None else find_pictures(request.inputs)
    if pictures is None:
        return []
    reader = ImageReader(pin(inputs, request.shapes), request.images or ImageOptions())
    return picture_findings(pictures.files, reader, prefix="INPUT")


def _reference(
    request: Request,
    graph: ModelGraph,
    cases: list[Case],
    place: Place,
    folder: RunFolder,
    early: RuntimeReference | None,
) -> tuple[Reference, str]:
    if request.reference is not None:
        return FileReference(request.reference, cases), str(request.reference)
    found = independent(graph.format, graph.path, folder.log("reference"), request.options.timeout, early)
    if found.reference is not None:
        return found.reference, found.why
    return MnnFloatReference(place.runner, place.loaded), f"{found.why}; the conversion itself stays unchecked"


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
    cases = [Case(each.name, run.inputs(each.name), each.source, each.generated, each.kind) for each in source.cases]
    inputs = tuple(TensorSpec(each.name, each.dtype, each.shape, each.dims, each.layout) for each in source.inputs)
    with clock.phase("convert"):
        float_model = maker.make(FLOAT)
    expected = Expected(run.reference, folder.array_folder)
    kinds: dict[str, Kind] = dict(source.kinds)
    return Prepared(looked.graph, inputs, cases, expected, kinds, float_model, source.rollout)
