"""Where the error comes in: which stage, which layer, why, whether that is proven, and what to do next."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgequant.archive.folder import RunFolder, device_capture
from edgequant.archive.layers import LayerCapture
from edgequant.archive.manifest import amended
from edgequant.archive.open import Run, open_run
from edgequant.cases.case import Case
from edgequant.clock import Clock
from edgequant.errors import EdgequantError, InputError
from edgequant.findings import Finding
from edgequant.jobs.activation_limits import activation_limits
from edgequant.jobs.departure import Departure
from edgequant.jobs.devices import Devices, begin_host, end_host
from edgequant.jobs.diagnose_conversion import first_departing
from edgequant.jobs.diagnose_layers import Looking
from edgequant.jobs.export_case import export_case
from edgequant.jobs.export_layer import export_layer
from edgequant.jobs.model_explorer import write_overlay
from edgequant.jobs.next_command import next_command
from edgequant.jobs.reporting import Reporter
from edgequant.jobs.verify import verify
from edgequant.jobs.wanted import NOTHING, Wanted
from edgequant.judge.broken_stage import Stage, broken_stage, failing_outputs, stages_db, worst_cases
from edgequant.judge.diagnosis import Diagnosis
from edgequant.judge.diagnosis import diagnose as judge_layers
from edgequant.judge.layer_births import STATES
from edgequant.judge.run import judge
from edgequant.judge.trial import limits_of
from edgequant.judge.types import Judgement, TrialJudgement
from edgequant.judge.verdict import Verdict
from edgequant.lab.session import Session
from edgequant.models import read_model
from edgequant.plan.request import Request
from edgequant.plan.stored import request_of
from edgequant.progress import Progress
from edgequant.report.diagnosis import DiagnosisReport, rows
from edgequant.report.model import Report
from edgequant.spec import Variant

CASE = "conversion-case"


@dataclass(frozen=True)
class Diagnosed:
    """The story, what it was made of (None where nothing was looked into), the run's folder and its whole report.

    problem: why something that was wanted could not be written, though all else is there.
    """

    report: DiagnosisReport
    capture: LayerCapture | None
    folder: RunFolder
    whole: Report
    problem: EdgequantError | None = None


def diagnose(
    request: Request, progress: Progress | None = None, *, wanted: Wanted = NOTHING,
    meanwhile: Callable[[], object] = lambda: None,
) -> Diagnosed:  # fmt: skip
    """Verify one variant on one device, then look inside.

    Raises as `verify`; InputError (OPTION_INVALID) where there are several, and what `Wanted.check` raises.
    """
    progress = progress or Progress()
    wanted.check(request)
    if len(request.devices) != 1 or len(request.variants) != 1:
        raise InputError(
            "OPTION_INVALID",
            f"diagnose takes one device and one variant, not {len(request.devices)} and {len(request.variants)}",
            hint="Give the one that fails.",
        )
    made: list[Reporter] = []

    def reporter(folder: RunFolder) -> Reporter:
        made.append(Reporter(folder))
        return made[-1]

    _, folder = verify(replace(request, latency=False), progress, meanwhile=meanwhile, reporter=reporter)
    with folder.alone(), amended(folder.path):
        return look_inside(folder, request, progress, made[-1], wanted)


def diagnose_run(
    run_dir: str | Path, *, device: str | None = None, variant: str | None = None, wanted: Wanted = NOTHING,
    progress: Progress | None = None,
) -> Diagnosed:  # fmt: skip
    """Look inside of what `verify` has made and captured, as it was asked for; nothing is verified anew.

    device, variant: of a run with several; None: the first that failed, else the first that was run.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, MODEL_CHANGED; OPTION_INVALID where the run has no such trial), and
    whatever using the device raises.
    """
    run = open_run(run_dir)
    only = None if variant is None else Variant.parse(variant)
    reporter = Reporter(RunFolder(run.path))
    held = judge(run, comparer=reporter.comparer).trials
    trials = [each for each in held if device in (None, each.uri) and only in (None, each.variant)]
    if not trials:
        there = ", ".join(f"{each.variant} on {each.uri}" for each in held[:8])
        raise InputError(
            "OPTION_INVALID",
            f"{run.path}: nothing was run there of that device and variant",
            hint=f"It has {there}: --variant and --device take these." if there else "Verify the model.",
        )
    trial = next((each for each in trials if each.verdict is Verdict.FAIL), trials[0])
    request = request_of(run.plan, run.path)
    if not os.path.lexists(request.model):
        raise InputError(
            "MODEL_NOT_FOUND",
            f"{request.model}: the model of this run is not there any more",
            hint="Put it back there, or verify it anew where it is now.",
        )
    if run.source.sha256 != read_model(request.model).sha256:
        raise InputError(
            "MODEL_CHANGED", f"{request.model}: it is not the file this run was made of", hint="Verify it anew."
        )
    wanted.check(request)
    folder = RunFolder(run.path)
    request = replace(request, devices=(trial.uri,), variants=(trial.variant,))
    with folder.alone(), amended(folder.path):
        return look_inside(folder, request, progress or Progress(), reporter, wanted)


def look_inside(
    folder: RunFolder, request: Request, progress: Progress, reporter: Reporter, wanted: Wanted = NOTHING
) -> Diagnosed:
    """Look inside of what a finished run has made, and keep what is found there, in its report too.

    request: that of its one trial.  reporter: has compared what is in the folder before.  Raises EdgequantError.
    """
    run = open_run(folder.path)
    asked = run.plan.model_copy(update={"devices": request.devices, "variants": request.variants})
    judgement = judge(run, asked, reporter.comparer)
    trial = judgement.trials[0]
    stage = broken_stage(trial, judgement.findings)
    worst, by_stage = stages_db(trial)
    memory = None if trial.artifact is None else request.options.memory_for(trial.artifact.run_as)
    told = DiagnosisReport(
        verdict=judgement.verdict,
        model=str(request.model),
        device=trial.uri,
        variant=str(trial.variant),
        stage=stage,
        random_inputs=any(each.code == "RANDOM_INPUTS" for each in judgement.findings),
        ran={"precision": request.options.precision, "memory": str(memory)} if memory else {},
        run_dir=str(folder.path),
        stages_of=worst,
        stages_db=by_stage,
    )
    exporting = _Exporting(wanted.case)
    capture = None
    if trial.artifact is None or trial.capture is None or trial.failure is not None:
        why = "it was not run" if trial.failure is None else f"{trial.failure.code}: {trial.failure.message}"
        told = told.model_copy(update={"stage": None, "why": f"Nothing could be looked into: {why}."})
    elif stage == "conversion":
        told = _of_conversion(told, judgement, run, folder, request, progress, exporting)
    else:
        capture, found = _look(run, folder, request, trial, stage, progress, exporting)
        folder.save_layers(device_capture(trial.uri, trial.variant), capture)
        told = _told(told, found, capture, run, request, trial, judgement)
    told = told.model_copy(update={"case": exporting.script})
    if wanted.overlay is not None:
        try:
            said = write_overlay(told, capture, read_model(request.model), wanted.overlay)
            told = told.model_copy(update={"overlay": str(wanted.overlay), "overlaid": said})
        except EdgequantError as error:
            exporting.problem = exporting.problem or error
    folder.save_diagnosis(device_capture(trial.uri, trial.variant), told.model_copy(update={"run_dir": None}))
    return Diagnosed(told, capture, folder, reporter.report(), exporting.problem)


@dataclass
class _Exporting:
    """The wanted folder of a case; its script once it is there, or why it is not."""

    out: Path | None
    script: str | None = None
    problem: EdgequantError | None = None

    def by(self, write: Callable[[Path], Path]) -> None:
        if self.out is None:
            return
        try:
            self.script = str(write(self.out))
        except EdgequantError as error:  # the diagnosis is worth showing all the same
            self.problem = error


def _of_conversion(
    told: DiagnosisReport, judgement: Judgement, run: Run, folder: RunFolder, request: Request, progress: Progress,
    exporting: _Exporting,
) -> DiagnosisReport:  # fmt: skip
    """The first node of the source that float MNN computes otherwise; where none is found, what the run says of it."""
    drifts = [each for each in judgement.trials[0].findings if each.evidence.get("stage") == "conversion"]
    named = [each for each in (*judgement.findings, *drifts) if each.severity == "fail"] or list(judgement.findings)
    first = [str(case) for each in drifts for case in each.evidence.get("cases", ())]
    departure, script = _departure(run, folder, request, progress, exporting, first)
    if departure is None:
        # What is lost of a state says more than that outputs differ.
        ranked = [*(each for each in named if each.code in STATES),
                  *(each for each in named if each.code.startswith("CONVERSION_")), *named]  # fmt: skip
        cause = next(iter(ranked), None)
        how = "float MNN on this host does not compute what the source's own runtime computes"
        more = {"cause": cause, "proof": "proven", "how": how, "next": f"edgequant inspect {shlex.quote(told.model)}"}
        return told.model_copy(update={**more, "findings": [each for each in named if each is not cause]})
    follow = f"edgequant inspect {shlex.quote(told.model)}"
    if script is not None:
        follow = shlex.join(["python", str(script)])
    return told.model_copy(
        update={
            "layers": [departure.node],
            "cause": departure.finding(),
            "proof": "proven" if departure.proven else "suspicion",
            "how": departure.proven_by.rstrip("."),
            "findings": named,
            "cases": [departure.case],
            "next": follow,
        }
    )


def _departure(
    run: Run, folder: RunFolder, request: Request, progress: Progress, exporting: _Exporting, first: Sequence[str]
) -> tuple[Departure | None, Path | None]:
    """And the script of the case that shows it.  None where nothing departs, or inner tensors cannot be had.

    first: the names of cases that show it, where no others do.
    """
    graph = read_model(request.model)
    if graph.format not in ("onnx", "tflite"):
        return None, None
    cases = [
        Case(each.name, run.inputs(each.name), each.source, each.generated, each.kind)
        for each in run.source.cases
        if each.name in (first or run.source.held)
    ]
    starting = begin_host(request.options, folder, progress)
    try:
        with tempfile.TemporaryDirectory(prefix="edgequant-diagnose-") as work:
            departure = first_departing(
                graph, _float_model(run), starting.result(), cases, Path(work) / "work", say=progress.say
            )
            if departure is None or departure.reproduction is None:
                return departure, None
            exporting.by(lambda out: export_case(departure, out))
            if exporting.script is not None:
                return departure, Path(exporting.script)
            return departure, export_case(departure, _free(folder.path / CASE))
    finally:
        end_host(starting)


def _free(path: Path) -> Path:
    """It, or the first that is free behind it: an earlier diagnosis is not overwritten."""
    names = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(each for each in names if not os.path.lexists(each))


def _look(
    run: Run, folder: RunFolder, request: Request, trial: TrialJudgement, stage: Stage | None, progress: Progress,
    exporting: _Exporting,
) -> tuple[LayerCapture, Diagnosis]:  # fmt: skip
    """What is inside, and what it comes to."""
    artifact = trial.artifact
    assert artifact is not None
    made = folder.path / artifact.path
    plain = _float_model(run)
    held = [each for each in run.source.cases if each.name in run.source.held]
    order = {name: number for number, name in enumerate(worst_cases(trial))}
    held.sort(key=lambda each: order.get(each.name, len(order)))
    cases = [Case(each.name, run.inputs(each.name), each.source, each.generated, each.kind) for each in held]
    clock = Clock()
    starting = begin_host(request.options, folder, progress)
    with contextlib.ExitStack() as stack:
        stack.callback(end_host, starting)
        device: Session | None = None
        capture = trial.capture
        is_host = capture is not None and capture.device is not None and capture.device.is_host
        if not is_host:
            devices = stack.enter_context(
                Devices(request.devices, request.access, request.options, folder, progress, clock)
            )
            met = devices.met()[request.devices[0]]
            if isinstance(met, EdgequantError):
                raise met
            device = met
            device.own()
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgequant-diagnose-")))
        looking = Looking(
            variant=str(trial.variant),
            uri=trial.uri,
            plain=plain,
            made=made,
            memory=request.options.memory_for(artifact.run_as),
            precision=request.options.precision,
            stage=stage,
            cases=cases,
            expected=lambda name: run.outputs(run.reference, name) or {},
            limits=limits_of(run.plan, run.source, trial.variant),
            host=starting.result(),
            work=work,
            device=device,
            failing=failing_outputs(trial),
            progress=progress,
        )
        inside = looking.capture()
        limits = activation_limits(
            read_model(request.model), inside.taps, device or starting.result(), inside.precision, inside.memory
        )
        inside = inside.model_copy(update={"activations": limits})
        named = next((each for each in trial.findings if each.code == "QUANTIZATION_BEYOND_ROUNDING"), None)
        drift = next((each for each in trial.findings if each.severity == "fail" and each.evidence.get("step")), None)
        more = {
            "engaged": trial.engaged.engaged,
            "findings": trial.findings,
            "failing": failing_outputs(trial),
            "beyond_rounding": named,
            "over_steps": drift,
        }
        found = judge_layers(inside, tuple(run.source.kinds), more)
        if found.stage is not None:
            exporting.by(lambda out: export_layer(looking, inside, found, request.options, out))
        return inside, found


def _float_model(run: Run) -> Path:
    """The float .mnn of a run.  Raises InputError (RUN_INVALID)."""
    if (path := run.float_file) is not None:
        return path
    raise InputError("RUN_INVALID", f"{run.path}: its float model is missing", hint="Diagnose the model anew.")


def _versions(mnn: Mapping[str, str]) -> dict[str, str]:
    """The device's, and this host's where it is another."""
    here, there = mnn.get("here"), mnn.get("there")
    if here and there and here != there:
        return {"mnn": f"{there} there, {here} on this host"}
    return {"mnn": there or here or ""} if there or here else {}


def _told(
    told: DiagnosisReport, found: Diagnosis, capture: LayerCapture, run: Run, request: Request, trial: TrialJudgement,
    judgement: Judgement,
) -> DiagnosisReport:  # fmt: skip
    verdict = judgement.verdict
    born = [each for each in (found.cause, *found.findings) if each is not None and each.code.startswith("NAN_")]
    if born and verdict.exit_code == 0:
        verdict = Verdict.FAIL
    fails: list[Finding] = [each for each in trial.findings if each.severity in ("fail", "error")]
    why = None
    if found.stage is None:
        why = "Nothing is to be blamed: every limit is kept."
        if verdict.exit_code:
            why = "No layer is to be blamed: what keeps this from a PASS is no error of the outputs"
            why += "." if not fails else f": {fails[0].message} ({fails[0].code}).  {fails[0].remedy or ''}".rstrip()
    return told.model_copy(
        update={
            "verdict": verdict,
            "stage": found.stage,
            "why": why,
            "layers": list(found.blame.layers),
            "proof": found.blame.proof if found.stage is not None else None,
            "how": found.blame.how,
            "cause": found.cause or (next(iter(fails), None) if found.stage is not None else None),
            "findings": [*(fails if verdict.exit_code else []), *found.findings],
            "next": None if found.stage is None else next_command(found, run, request, trial),
            "ran": {**_versions(capture.mnn), **told.ran},
            "cases": list(capture.cases),
            "table": rows(found),
            "device_memory_mb": None
            if (memory := capture.memory_mb) is None
            else {"own": memory.own, "peak": memory.peak, "above": memory.above},
            "loops": list(capture.loops),
            "unseen": dict(capture.unseen),
            "only_float": list(capture.only_float),
            "only_quantized": list(capture.only_quantized),
        }
    )
