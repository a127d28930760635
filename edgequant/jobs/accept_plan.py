"""What an acceptance would run, and how long that takes.  No device is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.acceptance import AcceptFolder, open_acceptance
from edgequant.jobs.accept import Accepting, bad_baseline, plan_of
from edgequant.jobs.accept_check import check, read_spec
from edgequant.jobs.accept_judge import baseline_bytes, check_baseline, own_spec
from edgequant.jobs.accept_times import GUESSED, Times, least
from edgequant.plan.accept import Expanded, expand
from edgequant.progress import Progress
from edgequant.spec.accept import AcceptSpec, TrialKey
from edgequant.spec.rule_metrics import metric_of


@dataclass(frozen=True)
class PlannedPart:
    """One part.  kind: verify or bench.  seconds: it may take so long.  from_: folders of the earlier runs that took
    it; none: it is guessed.  least: its settings alone ask for so long.  done: it is there already."""

    kind: str
    name: str
    trials: tuple[TrialKey, ...]
    limits: tuple[str, ...]
    seconds: float
    from_: tuple[str, ...]
    least: float = 0.0
    done: bool = False


@dataclass(frozen=True)
class Planned:
    """The whole.  warnings: what will not come out as somebody may think."""

    spec: AcceptSpec
    expanded: Expanded
    parts: tuple[PlannedPart, ...]
    warnings: tuple[str, ...]

    @property
    def left(self) -> tuple[PlannedPart, ...]:
        return tuple(part for part in self.parts if not part.done)

    @property
    def seconds(self) -> float:
        """Of all that is left."""
        return sum(part.seconds for part in self.left)

    @property
    def guessed(self) -> float:
        """Of these, those that no earlier run has shown."""
        return sum(part.seconds for part in self.left if not part.from_)

    @property
    def from_(self) -> tuple[str, ...]:
        """Folders of the earlier runs."""
        return tuple(dict.fromkeys(each for part in self.left for each in part.from_))

    @property
    def told(self) -> str:
        """Where the time is from, for people."""
        earlier = f"by what {', '.join(self.from_[:3])}{' and others' if len(self.from_) > 3 else ''} took"
        if not self.left:
            return ""
        if not self.from_:
            return GUESSED
        return f"{earlier}; {self.guessed:.0f} s of it {GUESSED}" if self.guessed else earlier


def planned(spec_path: Path, baseline: Path | None = None, history: Path | None = None) -> Planned:
    """history: of runs, whose times are looked for.  Raises InputError, as `accept` before it runs anything."""
    spec, _ = read_spec(spec_path, baseline)
    return _planned(spec, spec_path.parent.absolute(), history, None)


def left(run_dir: Path, history: Path | None = None) -> Planned:
    """What `resume` would do.  Raises InputError (RUN_NOT_FOUND, RUN_INVALID, ...)."""
    folder = open_acceptance(run_dir)
    plan = folder.plan()
    spec = own_spec(folder, plan)
    return _planned(spec, Path(plan.folder), history, folder)


def _planned(spec: AcceptSpec, cwd: Path, history: Path | None, folder: AcceptFolder | None) -> Planned:
    expanded = expand(spec)
    check(spec, expanded, cwd)
    warnings = list(_warnings(spec, expanded))
    if folder is None and spec.baseline is not None:
        check_baseline(spec.baseline, spec, plan_of(spec, expanded, b"", Path()).trials)
        if told := bad_baseline(spec.baseline, baseline_bytes(spec.baseline)):
            warnings.append(told)
    near = [each for each in (None if folder is None else folder.path, spec.baseline) if each is not None]
    times = Times(spec, near, history)
    if times.trouble is not None:
        warnings.append(f"the history was not asked how long it takes: {times.trouble}")
    done = _nothing if folder is None else Accepting(spec, expanded, folder, Progress(), resumed=True).is_there
    root = Path() if folder is None else folder.path
    parts = []
    for verify in expanded.parts:
        there = done("trials", root / "trials" / verify.name / "attempt-1")
        time = times.of(verify)
        keys, limits = tuple(verify.trials.values()), tuple(map(str, verify.request.limits))
        parts.append(PlannedPart("verify", verify.name, keys, limits, time.seconds, time.from_, done=there))
    for bench in expanded.benches:
        there = done("bench", root / "bench" / bench.name / "attempt-1")
        time = times.of(bench)
        settings = least(bench, spec.bench)
        parts.append(PlannedPart("bench", bench.name, bench.trials, (), time.seconds, time.from_, settings, there))
    return Planned(spec, expanded, tuple(parts), tuple(warnings))


def _nothing(_kind: str, _path: Path) -> bool:
    return False


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
        "guessed_seconds": found.guessed,
        "seconds_from": ", ".join(found.from_) or None,
        "seconds_told": found.told,
        "least_seconds": sum(part.least for part in found.left),
        "retries": found.spec.retries,
        "trials": [
            {**key._asdict(), "informative": key in found.expanded.informative,
             "tasks": list(found.expanded.tasks.get(key, ())), "rules": _rules(found, key)}
            for key in found.expanded.trials
        ],
        "parts": [
            {"kind": part.kind, "name": part.name, "trials": [list(key) for key in part.trials],
             "limits": list(part.limits), "seconds": part.seconds, "seconds_from": list(part.from_),
             "least_seconds": part.least, "done": part.done}
            for part in found.parts
        ],
        "warnings": list(found.warnings),
    }  # fmt: skip
    return json.dumps(document, indent=2, ensure_ascii=True)


def _rules(found: Planned, key: TrialKey) -> Sequence[str]:
    return [] if key in found.expanded.informative else [str(rule) for rule in found.spec.rules_of(key)]
