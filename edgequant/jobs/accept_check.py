"""What can be known to be wrong with an acceptance before anything is run: paths, names, functions, labels."""

from __future__ import annotations

from pathlib import Path

from edgequant.cases.load import CaseFile, find_cases
from edgequant.errors import EdgequantError, InputError
from edgequant.files import read_bounded, require_utf8
from edgequant.jobs.tasks import Task, look, read_labels
from edgequant.judge.acceptance import outputs_named
from edgequant.judge.bench import TELL
from edgequant.judge.bench_run import BenchRules
from edgequant.models import ModelGraph, read_model
from edgequant.pack import find_pack
from edgequant.plan.accept import Expanded
from edgequant.spec.accept import AcceptSpec, ModelEntry
from edgequant.spec.accept_file import load_accept
from edgequant.spec.file import MAX_BYTES
from edgequant.spec.function import PATTERN
from edgequant.spec.rule_metrics import metric_of


def read_spec(path: Path, baseline: Path | None = None) -> tuple[AcceptSpec, bytes]:
    """A spec and its text.  baseline: in place of its own.  Raises InputError (SPEC_NOT_FOUND, SPEC_INVALID,
    PATH_UNUSABLE)."""
    require_utf8(path)  # it is kept where the models are
    spec = load_accept(path)
    try:
        data = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise InputError("SPEC_NOT_FOUND", f"{path}: {error.strerror}") from None
    return (spec if baseline is None else spec.model_copy(update={"baseline": baseline})), data


def check(spec: AcceptSpec, expanded: Expanded, cwd: Path) -> dict[str, ModelGraph]:
    """Read every model, and look at what else the spec names.  Returns the models as far as they were read.

    cwd: of the spec: functions are looked for from there.

    Raises InputError, with the place in the spec: a mistake is told in a second, not after an hour of measuring.
    """
    found = {}
    for name, entry in spec.models.items():
        try:
            found[name] = _model(entry)
        except EdgequantError as error:
            hint = "Check the path; it is relative to the spec." if error.code == "MODEL_NOT_FOUND" else error.hint
            raise InputError(
                error.code, f"models.{name}: {error.message}", where=error.where, hint=hint,
                evidence=error.evidence,
            ) from None  # fmt: skip
    for part in expanded.parts:
        if part.request.access.wanted.pack is not None:
            find_pack(part.request.access.wanted.pack)
    try:
        BenchRules(spec.bench.within / 100, TELL, spec.bench.allow)
    except InputError as error:
        told = error.message.removeprefix("--allow ")
        raise InputError("SPEC_INVALID", f"bench.allow: {told}", hint=error.hint) from None
    _outputs(spec, found)
    for name, task in spec.tasks.items():
        match = PATTERN.fullmatch(task.function)
        if match is not None and match["module"].endswith(".py") and not Path(match["module"]).is_file():
            raise InputError("TASK_FAILED", f"tasks.{name}: there is no file {match['module']}")
        read_labels(task.labels)
        look(Task(name, task.function, task.labels, task.timeout, task.memory_mb), cwd)
    return found


def _model(entry: ModelEntry) -> ModelGraph:
    graph = read_model(entry.path)
    if entry.inputs is not None:
        cases = find_cases(entry.inputs, entry.images)
        if graph.inputs is not None and isinstance(cases[0], CaseFile):
            cases[0].load(graph.inputs)  # its names and shapes; the others are read when they are run
    if entry.reference is not None and not entry.reference.exists():
        raise InputError("REFERENCE_NOT_FOUND", f"{entry.reference}: no such file")
    return graph


def _outputs(spec: AcceptSpec, graphs: dict[str, ModelGraph]) -> None:
    """Raise InputError where a rule could never be evaluated: it names an output that a model it is meant for lacks
    (LIMIT_UNKNOWN_OUTPUT), or is for all outputs and each has one of its own (SPEC_INVALID)."""
    for key in spec.trials():
        outputs = graphs[key.model].outputs
        if outputs is None:
            continue
        names = [each.name for each in outputs]
        rules = spec.rules_of(key)
        for rule in rules:
            line = "" if rule.line is None else f"line {rule.line}: "
            of_all = rule.output is None and metric_of(rule.metric).per_output
            if of_all and names and outputs_named(rule, rules) >= set(names):
                raise InputError(
                    "SPEC_INVALID", f"{line}rule '{rule}': each output of {key.model} has one of its own in its place",
                    hint="Take it out, or say beside it which models it is for (model: NAME).",
                )  # fmt: skip
            if rule.output is not None and rule.output not in names:
                raise InputError(
                    "LIMIT_UNKNOWN_OUTPUT",
                    f"{line}rule '{rule.text}': {key.model} has no output '{rule.output}'",
                    hint=f"Its outputs are {', '.join(names[:20])}.  Say `model: NAME` beside the rule where it is "
                    "meant for another model.",
                )
