"""Where the error comes in: which stage, which layer, why, whether that is proven, and what to do next."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgequant.archive.folder import RunFolder, device_capture
from edgequant.archive.layers import LayerCapture
from edgequant.archive.open import Run, open_run
from edgequant.archive.types import Artifact
from edgequant.cases.case import Case
from edgequant.clock import Clock
from edgequant.errors import EdgequantError, InputError
from edgequant.findings import Finding
from edgequant.jobs.departure import Departure
from edgequant.jobs.devices import Devices, begin_host, end_host
from edgequant.jobs.diagnose_conversion import first_departing
from edgequant.jobs.diagnose_layers import Looking
from edgequant.jobs.export_case import export_case
from edgequant.jobs.verify import verify
from edgequant.judge.broken_stage import Stage, broken_stage, failing_outputs, worst_cases
from edgequant.judge.diagnosis import Diagnosis
from edgequant.judge.diagnosis import diagnose as judge_layers
from edgequant.judge.layer_births import STATES
from edgequant.judge.run import judge
from edgequant.judge.trial import limits_of
from edgequant.judge.types import Judgement, TrialJudgement
from edgequant.judge.verdict import Verdict
from edgequant.lab.session import Session
from edgequant.models import read_model
from edgequant.models.mnn.weights import read_weights
from edgequant.plan.request import Request
from edgequant.plan.stored import request_of
from edgequant.plan.words import options_of
from edgequant.progress import Progress
from edgequant.quantize.recipe import Rule, exactly, recipe_of
from edgequant.report.diagnosis import DiagnosisReport, rows
from edgequant.spec import Variant

RECIPE = "diagnosis-recipe.json"
CASE = "conversion-case"


@dataclass(frozen=True)
class Diagnosed:
    """The story, what it was made of (None where nothing was looked into), and the run's folder."""

    report: DiagnosisReport
    capture: LayerCapture | None
    folder: RunFolder


def diagnose(
    request: Request, progress: Progress | None = None, *, meanwhile: Callable[[], object] = lambda: None
) -> Diagnosed:
    """Verify one variant on one device, then look inside.

    Raises as `verify`; InputError (OPTION_INVALID) where there are several.
    """
    progress = progress or Progress()
    if len(request.devices) != 1 or len(request.variants) != 1:
        raise InputError(
            "OPTION_INVALID",
            f"diagnose takes one device and one variant, not {len(request.devices)} and {len(request.variants)}",
            hint="Give the one that fails.",
        )
    _, folder = verify(replace(request, latency=False), progress, meanwhile=meanwhile)
    with folder.alone():
        return look_inside(folder, request, progress)


def diagnose_run(
    run_dir: str | Path, *, device: str | None = None, variant: str | None = None, progress: Progress | None = None
) -> Diagnosed:
    """Look inside of what `verify` has made and captured, as it was asked for; nothing is verified anew.

    device, variant: of a run with several; None: the first that failed, else the first that was run.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, MODEL_CHANGED; OPTION_INVALID where the run has no such trial), and
    whatever using the device raises.
    """
    run = open_run(run_dir)
    wanted = None if variant is None else Variant.parse(variant)
    trials = [each for each in judge(run).trials if device in (None, each.uri) and wanted in (None, each.variant)]
    if not trials:
        raise InputError("OPTION_INVALID", f"{run.path}: no trial of that device and variant", hint="See its report.")
    trial = next((each for each in trials if each.verdict is Verdict.FAIL), trials[0])
    request = request_of(run.plan, run.path)
    if run.source.sha256 != read_model(request.model).sha256:
        raise InputError(
            "MODEL_CHANGED", f"{request.model}: it is not the file this run was made of", hint="Verify it anew."
        )
    folder = RunFolder(run.path)
    with folder.alone():
        return look_inside(
            folder, replace(request, devices=(trial.uri,), variants=(trial.variant,)), progress or Progress()
        )


def look_inside(folder: RunFolder, request: Request, progress: Progress) -> Diagnosed:
    """Look inside of what a finished run has made.  request: that of its one trial.  Raises EdgequantError."""
    run = open_run(folder.path)
    judgement = judge(run, run.plan.model_copy(update={"devices": request.devices, "variants": request.variants}))
    trial = judgement.trials[0]
    stage = broken_stage(trial, judgement.findings)
    told = DiagnosisReport(
        verdict=judgement.verdict,
        model=str(request.model),
        device=trial.uri,
        variant=str(trial.variant),
        stage=stage,
        run_dir=str(folder.path),
    )
    if trial.artifact is None or trial.capture is None or trial.failure is not None:
        why = "it was not run" if trial.failure is None else f"{trial.failure.code}: {trial.failure.message}"
        return Diagnosed(
            told.model_copy(update={"stage": None, "why": f"Nothing could be looked into: {why}."}), None, folder
        )
    if stage == "conversion":
        return Diagnosed(_of_conversion(told, judgement, run, folder, request, progress), None, folder)
    capture = _look(run, folder, request, trial, stage, progress)
    folder.save_layers(device_capture(trial.uri, trial.variant), capture)
    found = judge_layers(
        capture, tuple(run.source.kinds), {"engaged": trial.engaged.engaged, "findings": trial.findings}
    )
    return Diagnosed(_told(told, found, capture, run, request, trial, judgement), capture, folder)


def _of_conversion(
    told: DiagnosisReport, judgement: Judgement, run: Run, folder: RunFolder, request: Request, progress: Progress
) -> DiagnosisReport:
    """The first node of the source that float MNN computes otherwise; where none is found, what the run says of it."""
    named = [each for each in judgement.findings if each.severity == "fail"] or list(judgement.findings)
    departure, script = _departure(run, folder, request, progress)
    if departure is None:
        cause = next((each for each in named if each.code.startswith("CONVERSION_")), named[0] if named else None)
        how = "float MNN on this host does not compute what the source's own runtime computes"
        more = {"cause": cause, "proof": "proven", "how": how, "next": f"edgequant inspect {shlex.quote(told.model)}"}
        return told.model_copy(update={**more, "findings": [each for each in named if each is not cause]})
    follow = None if script is None else shlex.join(["python", str(script)])
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
    run: Run, folder: RunFolder, request: Request, progress: Progress
) -> tuple[Departure | None, Path | None]:
    """And the script of the case that shows it.  None where nothing departs, or inner tensors cannot be had."""
    graph = read_model(request.model)
    if graph.format not in ("onnx", "tflite"):
        return None, None
    cases = [
        Case(each.name, run.inputs(each.name), each.source, each.generated, each.kind)
        for each in run.source.cases
        if each.name in run.source.held
    ]
    starting = begin_host(request.options, folder, progress)
    try:
        with tempfile.TemporaryDirectory(prefix="edgequant-diagnose-") as work:
            departure = first_departing(
                graph, _float_model(run), starting.result(), cases, Path(work) / "work", say=progress.say
            )
            if departure is None or departure.reproduction is None:
                return departure, None
            return departure, export_case(departure, _free(folder.path / CASE))
    finally:
        end_host(starting)


def _free(path: Path) -> Path:
    """It, or the first that is free behind it: an earlier diagnosis is not overwritten."""
    names = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(each for each in names if not os.path.lexists(each))


def _look(
    run: Run, folder: RunFolder, request: Request, trial: TrialJudgement, stage: Stage | None, progress: Progress
) -> LayerCapture:
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
        return looking.capture()


def _float_model(run: Run) -> Path:
    """The float .mnn of a run.  Raises InputError (RUN_INVALID)."""
    if (path := run.float_file) is not None:
        return path
    raise InputError("RUN_INVALID", f"{run.path}: its float model is missing", hint="Diagnose the model anew.")


def _told(
    told: DiagnosisReport, found: Diagnosis, capture: LayerCapture, run: Run, request: Request, trial: TrialJudgement,
    judgement: Judgement,
) -> DiagnosisReport:  # fmt: skip
    verdict = judgement.verdict
    if found.cause is not None and found.cause.code.startswith("NAN_") and verdict.exit_code == 0:
        verdict = Verdict.FAIL
    why = None
    if found.stage is None:
        why = "Nothing is to be blamed: every limit is kept."
        if verdict.exit_code:
            why = "No layer is to be blamed: what keeps this from a PASS is no error of the outputs (see the verdict)."
    fails: list[Finding] = [each for each in trial.findings if each.severity in ("fail", "error")]
    return told.model_copy(
        update={
            "verdict": verdict,
            "stage": found.stage,
            "why": why,
            "layers": list(found.blame.layers),
            "proof": found.blame.proof if found.stage is not None else None,
            "how": found.blame.how,
            "cause": found.cause,
            "findings": [*(fails if verdict.exit_code else []), *found.findings],
            "next": None if found.stage is None else _next(found, run, request, trial),
            "cases": list(capture.cases),
            "table": rows(found),
            "loops": list(capture.loops),
            "unseen": dict(capture.unseen),
            "only_float": list(capture.only_float),
            "only_quantized": list(capture.only_quantized),
        }
    )


def _next(found: Diagnosis, run: Run, request: Request, trial: TrialJudgement) -> str | None:
    """The command to go on with: the remedy, as far as one command is it."""
    variant = str(trial.variant)
    code = "" if found.cause is None else found.cause.code
    if code.startswith("FP16_"):
        request = replace(request, options=request.options.model_copy(update={"precision": "normal"}))
    elif code in ("OTHER_MNN", "LOW_MEMORY_NOT_ENGAGED"):
        request = replace(request, access=replace(request.access, runtime="pack"))
    elif code in _NO_COMMAND:
        return None
    elif found.blame.spread or not found.blame.layers:
        variant = _rounds_less(trial)
    elif trial.variant.method == "static" and trial.artifact is not None and "static" in str(trial.artifact.run_as):
        names = [name for name in found.blame.layers if _plain(name)]
        if not names:
            return None
        variant = f"{variant},skip={':'.join(names)}"
    elif (recipe := _recipe(found, run, trial.artifact)) is not None:
        variant = f"recipe:{recipe}"
    else:
        return None
    asked = ["edgequant", "verify", str(request.model), "--device", trial.uri, "--variant", variant]
    return shlex.join([*asked, *options_of(replace(request, latency=True))])


_NO_COMMAND = ("INPUT_UNLIKE_CALIBRATION", "SHAPE_WRONG", "ORDER_OF_EQUALS", *STATES)
"""Causes whose remedy needs something of the user's that no command here knows."""


def _rounds_less(trial: TrialJudgement) -> str:
    """A variant for a model whose error comes from many layers."""
    variant = trial.variant
    if variant.method in ("dynamic", "weight") and (variant.bits or 8) < 8:
        return f"{variant.method}:8"
    return "auto" if variant.method != "auto" else "weight:8"


def _plain(name: str) -> bool:
    return not set(name) & set(",: ")


def _recipe(found: Diagnosis, run: Run, artifact: Artifact | None) -> Path | None:
    """A recipe of the file as it is, with the blamed layers in float; None where there is none for it."""
    if artifact is None or artifact.run_as.method not in ("dynamic", "weight", "recipe"):
        return None
    layers = read_weights(run.path / artifact.path)
    keys = {f"{each.subgraph}/{each.name}" if each.subgraph else each.name: each for each in layers}
    blamed = [keys[name] for name in found.blame.layers if name in keys]
    if not blamed or any(each.kept not in ("quantized", "float") for each in layers):
        return None
    recipe = recipe_of(layers, "low" if artifact.run_as.method == "dynamic" else "normal")
    if artifact.run_as.hqq or artifact.asked.hqq:
        changed = [rule.model_copy(update={"hqq": True}) if 2 <= rule.bits <= 8 else rule for rule in recipe.rules]
        recipe = recipe.model_copy(update={"rules": tuple(changed)})
    floats = [Rule(name=exactly(each.name), subgraph=exactly(each.subgraph), bits=0) for each in blamed]
    recipe = recipe.model_copy(update={"rules": (*recipe.rules, *floats)})
    path = run.path / RECIPE
    recipe.write(path)
    return path
