"""Which node of a source float MNN computes otherwise, why, and the proof of it.

The source's runtime and float MNN hand out the same inner tensors.  Where the way to a wrong output begins to depart,
the node is cut out, converted alone and fed with the source's own tensors: only if it departs there too, it is blamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgequant.archive.types import Artifact
from edgequant.cases.case import Case
from edgequant.jobs.conversion_causes import Cause, cause_of
from edgequant.jobs.conversion_likeness import Suspect, liken, suspects
from edgequant.jobs.conversion_survey import Survey, known_tensors, survey_of, tapped, wrong_outputs
from edgequant.jobs.conversion_trial import Bench, Trial, shrink
from edgequant.jobs.departure import SHOWN, Departure, Proof, Reproduction, TensorFact
from edgequant.lab.session import Session
from edgequant.models import ModelGraph
from edgequant.models.onnx_cut import Node, OnnxFile
from edgequant.reference.inside import Inside, LiteInside
from edgequant.reference.lite_file import LiteFile
from edgequant.reference.reference import CaseRefused

CONVERTER_RUNS = 16
"""At most, for the proof and the smallest inputs."""
_MOST_SUSPECTS = 4
_BODIES = ("If", "Loop", "Scan")


def first_departing(
    graph: ModelGraph,
    float_model: Artifact | Path,
    host: Session,
    cases: Sequence[Case],
    work: Path,
    *,
    timeout: float = 300.0,
    runs: int = CONVERTER_RUNS,
    say: Callable[[str], None] = lambda _text: None,
) -> Departure | None:
    """The first node of an ONNX or TFLite source that departs; None where float MNN computes what the source does.

    The cases are tried in order until one shows something.

    Args:
        graph: of the source.
        float_model: float MNN, made of it.
        host: this host's session.
        cases: with the inputs that show it first, where that is known.
        work: an empty folder, whose contents `Departure.reproduction` needs.
        timeout: seconds for each thing that is run.
        runs: of the converter, at most.
        say: told what is being done.

    Raises InputError MODEL_INVALID where no runtime can load the source; ToolError; DeviceError where this host's
    runner cannot be kept alive; ValueError for a source that is neither.
    """
    mnn = float_model if isinstance(float_model, Path) else float_model.path
    work.mkdir(parents=True, exist_ok=True)
    if graph.format not in ("onnx", "tflite"):
        raise ValueError(f"inner tensors of {graph.format} sources cannot be had")
    with _opened(graph, work, timeout) as (file, inside):
        for case in cases:
            say(f"comparing inner tensors with {inside.name} (case '{case.name}')")
            try:
                survey = survey_of(inside, file.nodes, graph.outputs or (), mnn, host, case, file.constant)
            except CaseRefused:
                continue  # the source cannot run it, so nothing is known of it
            found = suspects(file.nodes, survey.seen, wrong_outputs(survey, graph.outputs or ()))
            if not found:
                continue
            parts = work / "parts"
            parts.mkdir(exist_ok=True)
            bench = Bench(graph, file, inside, host, case, parts, runs=runs, timeout=timeout)
            return _proven(graph, bench, survey, found, say)
    return None


@contextlib.contextmanager
def _opened(
    graph: ModelGraph, work: Path, timeout: float
) -> Iterator[tuple[OnnxFile, Inside] | tuple[LiteFile, LiteInside]]:
    """A source in pieces, and its runtime."""
    log = work / "reference.log"
    if graph.format == "tflite":
        with LiteInside(graph, log, timeout) as lite:
            yield LiteFile(graph, lite), lite
        return
    with OnnxFile(graph.path) as file, Inside(graph, file, work / "inside", log, timeout) as inside:
        yield file, inside


# ---- proof


def _proven(
    graph: ModelGraph, bench: Bench, survey: Survey, found: Sequence[Suspect], say: Callable[[str], None]
) -> Departure:
    """The first suspect that is proven, or the first as a suspicion."""
    for count, suspect in enumerate(found[:_MOST_SUSPECTS]):
        node = bench.file.nodes[suspect.place]
        say(f"proving {node.kind} {node.name} on its own")
        attempt = _attempt(bench, survey, suspect)
        if attempt is not None:
            trial, place, proven = attempt
            return _departure(graph, bench, survey, suspect, place, trial, proven, found[:count])
    how: Proof = "its tensors" if graph.format == "tflite" and _by_tensors(bench, survey, found[0]) else "none"
    return _departure(graph, bench, survey, found[0], found[0].place, None, how)


def _by_tensors(bench: Bench, survey: Survey, suspect: Suspect) -> bool:
    """Whether all that the one node reads was seen in the whole model, and is right there."""
    reads = [name for name in bench.file.nodes[suspect.place].reads
             if name not in bench.file.constant and name not in bench.case.inputs]  # fmt: skip
    return len(suspect.stretch) == 1 and all(name in survey.seen and not survey.seen[name].departs for name in reads)


def _attempt(bench: Bench, survey: Survey, suspect: Suspect) -> tuple[Trial, int, Proof] | None:
    """The least of the source that departs on its own: a node of the stretch, the stretch, or more before it."""
    nodes = bench.file.nodes
    refused = any(survey.seen[name].kind == "missing" for name in suspect.outputs if name in survey.seen)

    def shows(trial: Trial | None) -> bool:
        # One that MNN refuses alone may be refused for how it was cut; one that it dies of is not right.
        return trial is not None and (trial.departs or trial.died or (refused and trial.refused))

    for loose in (False, True) if bench.varies else (False,):
        # From the last on: that one's output is what is known to depart.
        for place in reversed(suspect.stretch):
            # What nothing reads, such as the indices of a pool, is nobody's fault.
            makes = nodes[place].makes
            outputs = suspect.outputs if place == suspect.place else [name for name in makes if name in suspect.unseen]
            trial = bench.attempt([place], outputs, loose=loose)
            if trial is not None and shows(trial):
                return trial, place, "alone"
        if len(suspect.stretch) > 1:
            trial = bench.attempt(suspect.stretch, suspect.outputs, loose=loose)
            if trial is not None and shows(trial):
                return trial, suspect.place, "alone"
        found = _with_more(
            bench, suspect, lambda trial: shows(trial) and _begins_there(bench, survey, trial), loose=loose
        )
        if found is not None:
            return found, suspect.place, "with those before it"
    return None


def _begins_there(bench: Bench, survey: Survey, trial: Trial | None) -> bool:
    """Whether what is right in the whole model is right in the part as well: it does not depart for another reason."""
    if trial is None or trial.failure is not None:
        return trial is not None
    makes = {name for place in trial.part.nodes for name in bench.file.nodes[place].makes}
    right = {name for name in makes if name in survey.seen and survey.seen[name].kind == "same"}
    names = sorted(right & known_tensors(trial.mnn))
    got = tapped(bench.host, trial.mnn, names, Case("part", trial.inputs, "inner tensors"))
    expected = bench.value(got)
    return all(not liken(expected[name], array).departs for name, array in got.items() if name in expected)


def _with_more(bench: Bench, suspect: Suspect, shows: Callable[[Trial | None], bool], *, loose: bool) -> Trial | None:
    """The stretch with as few steps of what is before it as still show it: more and more, then halves back."""
    parts = [frozenset(suspect.stretch)]
    while True:
        before = {bench.file.maker[name] for name in bench.inputs_of(parts[-1]) if name in bench.file.maker}
        if not before - parts[-1]:
            break
        parts.append(parts[-1] | before)
    without, steps, found = 0, 1, None
    while found is None and without < len(parts) - 1:
        steps = min(steps, len(parts) - 1)
        trial = bench.attempt(parts[steps], suspect.outputs, loose=loose)
        if shows(trial):
            found = trial
        else:
            without, steps = steps, steps * 2
            if bench.runs <= 0:
                return None
    while found is not None and steps - without > 1:
        middle = (steps + without) // 2
        trial = bench.attempt(parts[middle], suspect.outputs, loose=loose)
        if shows(trial):
            found, steps = trial, middle
        else:
            without = middle
    return found


def _departure(
    graph: ModelGraph,
    bench: Bench,
    survey: Survey,
    suspect: Suspect,
    place: int,
    trial: Trial | None,
    how: Proof,
    passed_over: Sequence[Suspect] = (),
) -> Departure:
    nodes = bench.file.nodes
    node = nodes[place]
    single = how == "alone" and trial is not None and len(trial.part.nodes) == 1
    stretch = () if single else suspect.stretch
    context: tuple[str, ...] = ()
    if trial is not None and how == "with those before it":
        context = tuple(nodes[each].name for each in trial.part.nodes if each not in suspect.stretch)
    cause = _open_sizes(trial) or cause_of(graph, node, [nodes[each] for each in stretch], trial, bench)
    if cause is not None and not single:
        node = next((nodes[each] for each in stretch if nodes[each].name == cause.node), node)
    trial = shrink(bench, trial) if trial is not None and trial.got else trial
    unseen = [f"{name}: {survey.unseen[name]}" for name in suspect.unseen if name in survey.unseen]
    if node.kind in _BODIES:
        unseen.insert(0, f"{node.name}: what is computed inside of it")
    found = Departure(
        node=node.name,
        operator=node.kind,
        attributes=dict(node.attributes),
        inputs=tuple(_fact(name, survey, bench) for name in node.reads if name not in bench.file.constant),
        outputs=tuple(_fact(name, survey, bench) for name in node.makes),
        case=bench.case.name,
        proof=how,
        proven_by=_how(bench, trial, how),
        stretch=tuple(nodes[each].name for each in stretch) if len(stretch) > 1 else (),
        context=context[:SHOWN],
        error={} if trial is None else {name: each.sqnr_db for name, each in trial.alike.items()},
        cause=None if cause is None else cause.code,
        why=None if cause is None else cause.what,
        cause_shown=cause is not None and cause.shown,
        remedy=cause.remedy if cause is not None else _unknown(node, how),
        unseen=tuple(unseen[:SHOWN]),
        passed_over=tuple(nodes[each.place].name for each in passed_over),
        smallest={} if trial is None else {name: array.shape for name, array in trial.inputs.items()},
        converter_runs=bench.used,
        reference=bench.inside.name,
    )
    if trial is not None:
        found._reproduction = Reproduction(trial.source, trial.mnn, trial.inputs, trial.expected, trial.got)
    return found


def _fact(name: str, survey: Survey, bench: Bench) -> TensorFact:
    if name in bench.case.inputs:
        return TensorFact(name=name, shape=bench.case.inputs[name].shape, what="an input of the model")
    return TensorFact.of(name, survey.seen.get(name))


def _open_sizes(trial: Trial | None) -> Cause | None:
    if trial is None or all(None not in sizes for _, sizes in trial.part.inputs.values()):
        return None
    return Cause(
        "LEADING_DIMENSION_FIXED",
        "it departs only where sizes are left open: the converter writes a first dimension that is open as 1",
        "Export the model with fixed sizes, or with a batch of 1 in front of the length.",
    )


def _how(bench: Bench, trial: Trial | None, how: Proof) -> str:
    if how == "its tensors":
        return f"in the whole model its inputs are those {bench.inside.name} has, and its output is not"
    if trial is None:
        return "nothing: fed with the source's own tensors, no part that was cut out computes something else"
    what = {"alone": "it", "with those before it": "it, with the nodes before it that it needs to show,"}.get(how, "")
    if len(trial.part.nodes) > 1 and how == "alone":
        what = f"the stretch of {len(trial.part.nodes)} nodes"
    if trial.failure is not None:
        return f"{what} was cut out, converted alone, and MNN cannot run it: {trial.failure.message}"
    worst = min((each.sqnr_db for each in trial.alike.values() if each.sqnr_db is not None), default=None)
    size = "" if worst is None else f" ({worst:.1f} dB)"
    return (
        f"{what} was cut out, converted alone and fed with what {bench.inside.name} computes: its output is off{size}"
    )


def _unknown(node: Node, how: Proof) -> str:
    if how == "none":
        return "Verify the model in parts, with this tensor as an output, before you change anything."
    return f"Export the model without this form of {node.kind}, and report the exported case to MNN."
