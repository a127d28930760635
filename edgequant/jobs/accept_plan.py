"""What an acceptance would run, and how long that takes by what earlier runs took.  No device is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.acceptance import AcceptFolder, is_acceptance, open_acceptance
from edgequant.errors import EdgequantError
from edgequant.jobs.accept import Accepting, attempts_of, bad_baseline, plan_of
from edgequant.jobs.accept_check import check, read_spec
from edgequant.jobs.accept_judge import baseline_bytes, check_baseline, own_spec
from edgequant.plan.accept import BenchPart, Expanded, VerifyPart, expand
from edgequant.progress import Progress
from edgequant.report.read import load
from edgequant.spec.accept import AcceptSpec, TrialKey
from edgequant.spec.rule_metrics import metric_of

Cell = tuple[str, str, str]


@dataclass(frozen=True)
class PlannedPart:
    """One part.  kind: verify or bench.  seconds: it took so long before; None where nobody knows.  least: it takes
    at least so long.  done: it is there already."""

    kind: str
    name: str
    trials: tuple[TrialKey, ...]
    limits: tuple[str, ...]
    seconds: float | None
    least: float = 0.0
    done: bool = False


@dataclass(frozen=True)
class Planned:
    """The whole.  from_: the folder that times are from.  warnings: what will not come out as somebody may think."""

    spec: AcceptSpec
    expanded: Expanded
    parts: tuple[PlannedPart, ...]
    from_: str | None
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Of all that is left; None where some of it is not known."""
        left = [part.seconds for part in self.parts if not part.done]
        return None if any(each is None for each in left) else sum(each for each in left if each is not None)

    @property
    def least(self) -> float:
        """Seconds that the timing which is left takes by its settings alone."""
        return sum(part.least for part in self.parts if not part.done)


def planned(spec_path: Path, baseline: Path | None = None) -> Planned:
    """Raises InputError, as `accept` before it runs anything."""
    spec, _ = read_spec(spec_path, baseline)
    return _planned(spec, spec_path.parent.absolute(), spec.baseline, None)


def left(run_dir: Path) -> Planned:
    """What `resume` would do.  Raises InputError (RUN_NOT_FOUND, RUN_INVALID, ...)."""
    folder = open_acceptance(run_dir)
    plan = folder.plan()
    spec = own_spec(folder, plan)
    return _planned(spec, Path(plan.folder), folder.path, folder)


def _planned(spec: AcceptSpec, cwd: Path, earlier: Path | None, folder: AcceptFolder | None) -> Planned:
    expanded = expand(spec)
    check(spec, expanded, cwd)
    warnings = list(_warnings(spec, expanded))
    if folder is None and spec.baseline is not None:
        check_baseline(spec.baseline, spec, plan_of(spec, expanded, b"", Path()).trials)
        if told := bad_baseline(spec.baseline, baseline_bytes(spec.baseline)):
            warnings.append(told)
    took = {} if earlier is None else _took(earlier)
    done = _nothing if folder is None else Accepting(spec, expanded, folder, Progress(), resumed=True).is_there
    root = Path() if folder is None else folder.path
    parts = [
        PlannedPart("verify", part.name, tuple(part.trials.values()), tuple(map(str, part.request.limits)),
                    _sum(took, "trials", part, spec), done=done("trials", root / "trials" / part.name / "attempt-1"))
        for part in expanded.parts
    ] + [
        PlannedPart("bench", part.name, part.trials, (), _sum(took, "bench", part, spec), _least(part, spec),
                    done("bench", root / "bench" / part.name / "attempt-1"))
        for part in expanded.benches
    ]  # fmt: skip
    return Planned(spec, expanded, tuple(parts), str(earlier) if took else None, tuple(warnings))


def _nothing(_kind: str, _path: Path) -> bool:
    return False


def _least(part: BenchPart, spec: AcceptSpec) -> float:
    """Each block warms up for a quarter of a second at least, and measures."""
    return len(part.trials) * spec.bench.blocks * (spec.bench.seconds + 0.25)


def _cells(part: VerifyPart | BenchPart, spec: AcceptSpec) -> list[Cell]:
    """(model, variant, URI): an earlier run may call them by other names."""
    keys = part.trials.values() if isinstance(part, VerifyPart) else part.trials
    return [(spec.models[key.model].path.name, spec.variant(key).variant, spec.devices[key.device].uri) for key in keys]


def _sum(
    took: Mapping[tuple[str, Cell], float], kind: str, part: VerifyPart | BenchPart, spec: AcceptSpec
) -> float | None:
    found = [took.get((kind, cell)) for cell in _cells(part, spec)]
    return None if None in found or not found else round(sum(each for each in found if each is not None), 1)


def _took(earlier: Path) -> dict[tuple[str, Cell], float]:
    """Seconds of each trial of an earlier run: the share it has in those of its part.  Nothing, where it has none."""
    try:
        if is_acceptance(earlier):
            return dict(_of_acceptance(open_acceptance(earlier)))
        report = load(earlier / "report.json" if earlier.is_dir() else earlier)
    except EdgequantError:
        return {}
    cells = [(Path(report.model.path).name, run.variant, run.device.uri) for run in report.runs]
    whole = sum(report.timing_s.values())
    return {("trials", cell): whole / len(cells) for cell in cells}


def _of_acceptance(folder: AcceptFolder) -> Iterator[tuple[tuple[str, Cell], float]]:
    plan = folder.plan()
    spec = own_spec(folder, plan)
    for line in attempts_of(folder):
        kind, part, seconds = line["kind"], line["part"], float(line["seconds"])
        trials = [each for each in plan.trials if (each.part if kind == "trials" else each.bench) == part]
        for each in trials:
            cell = (spec.models[each.model].path.name, each.method, each.uri)
            yield (kind, cell), seconds / len(trials)


def _warnings(spec: AcceptSpec, expanded: Expanded) -> Iterator[str]:
    benched = {key for part in expanded.benches for key in part.trials}
    for key in spec.trials():
        timed = [rule for rule in spec.rules_of(key) if metric_of(rule.metric).source in ("latency", "bench")]
        if timed and key not in benched:
            yield f"{key}: '{timed[0].text}' is INCONCLUSIVE on an emulated device: say `device:` beside the rule"
    for name, model in spec.models.items():
        if model.inputs is None and spec.random_inputs == "inconclusive":
            yield (f"{name}: has no inputs, and random ones alone never make a release PASS: give inputs, or say "
                   "random_inputs: accepted")  # fmt: skip
    if spec.baseline is None and any(rule.bound.of == "baseline" for rule in spec.rules):
        yield "rules are relative to a baseline, and there is none: give --baseline DIR, or they are INCONCLUSIVE"


def as_json(found: Planned) -> str:
    """The JSON document (schema ``edgequant.accept-plan/1``)."""
    document = {
        "schema": "edgequant.accept-plan/1",
        "name": found.spec.name,
        "seconds": found.seconds,
        "seconds_from": found.from_,
        "least_seconds": found.least,
        "retries": found.spec.retries,
        "trials": [
            {**key._asdict(), "informative": key in found.expanded.informative,
             "tasks": list(found.expanded.tasks.get(key, ())), "rules": _rules(found, key)}
            for key in found.expanded.trials
        ],
        "parts": [
            {"kind": part.kind, "name": part.name, "trials": [list(key) for key in part.trials],
             "limits": list(part.limits), "seconds": part.seconds, "least_seconds": part.least, "done": part.done}
            for part in found.parts
        ],
        "warnings": list(found.warnings),
    }  # fmt: skip
    return json.dumps(document, indent=2, ensure_ascii=True)


def _rules(found: Planned, key: TrialKey) -> Sequence[str]:
    return [] if key in found.expanded.informative else [str(rule) for rule in found.spec.rules_of(key)]
