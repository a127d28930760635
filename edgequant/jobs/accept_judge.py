"""Judge an acceptance from its folder: without devices, MNN or the source models, perhaps by other rules."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgequant.archive import manifest
from edgequant.archive.acceptance import (
    BASELINE,
    JUDGEMENT,
    MEASURED,
    SPEC,
    AcceptFolder,
    AcceptPlan,
    BenchRecord,
    BenchSetting,
    PartFailure,
    PlannedTrial,
    TaskRecord,
    damaged,
    open_acceptance,
    read_record,
    task_name,
)
from edgequant.archive.bench import folder_of_bench
from edgequant.archive.open import Run, open_run
from edgequant.errors import InputError
from edgequant.files import read_bounded, same_file, sha256_of
from edgequant.jobs.accept_measured import measured
from edgequant.jobs.accept_runs import Runs, key_of
from edgequant.jobs.rejudge import write_beside
from edgequant.judge.acceptance import TrialFacts, Value, judge_acceptance
from edgequant.judge.run import judge as judge_run
from edgequant.judge.verdict import GOOD, Verdict
from edgequant.report.acceptance import Acceptance, acceptance_report, load_acceptance, load_baseline, to_json
from edgequant.report.build import build_report
from edgequant.report.facts import not_run, trial_facts
from edgequant.report.model import Report
from edgequant.report.read import load, loads
from edgequant.report.write import to_json as report_json
from edgequant.spec.accept import AcceptSpec, TrialKey
from edgequant.spec.accept_file import load_accept
from edgequant.spec.accept_options import options_of
from edgequant.spec.limits import Limit
from edgequant.spec.rule_metrics import TASK

MAX_BASELINE = 256 << 20
OTHER_CODE = "its function or its labels are not those that other trials had: begin a new one"


@dataclass
class _Gathering:
    """Facts of all attempts; each folder of verify is read once for each set of limits."""

    folder: AcceptFolder
    spec: AcceptSpec
    plan: AcceptPlan
    fresh: bool
    reports: dict[tuple[Path, tuple[Limit, ...] | None], Report] = field(default_factory=dict)
    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of each model: what was run of it at first, see `seen_of`."""
    measured: dict[str, BenchRecord] = field(default_factory=dict)
    """By session."""
    code: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Of each task: SHA-256 of its function's file and of its labels at first."""

    def attempts(self, trial: PlannedTrial, runs: Runs, upto: int | None) -> list[TrialFacts]:
        key = key_of(trial)
        found: dict[int, TrialFacts] = {}
        failed: dict[int, TrialFacts] = {}
        for number, run in runs.all(key):
            if upto is not None and number > upto:
                continue
            if isinstance(run, PartFailure):
                failed[number] = not_run(key, f"{run.failure.code}: {run.failure.message}")
            elif (facts := self._facts(trial, key, run, number)) is not None:
                found[number] = facts
        # What a part brought before it came to nothing counts.
        return [each for _, each in sorted({**failed, **found}.items())]

    def _facts(self, trial: PlannedTrial, key: TrialKey, run: Run, number: int) -> TrialFacts | None:
        report = self._report(run, None if trial.informative else tuple(sorted(self.spec.limits_of(key), key=str)))
        if report is None:
            return None
        told = next(
            (each for each in report.runs if (each.device.uri, each.variant) == (trial.uri, trial.method)), None
        )
        if told is None:
            return None
        bench, session = self._bench(trial, number)
        folder = run.path.relative_to(self.folder.path).as_posix()
        found = trial_facts(
            key, report, told, bench, dict(self._tasks(trial, number)), session=session,
            identity={"cases": _cases(run)}, folder=folder,
        )  # fmt: skip
        changed = self._changed(trial.model, run)
        verdict = Verdict.INCONCLUSIVE if changed and found.verdict in GOOD else found.verdict
        return replace(found, verdict=verdict, doubts=(*found.doubts, *changed))

    def _changed(self, model: str, run: Run) -> list[str]:
        """What of a model is not what it was at first: its trials are not of one release."""
        if not all(seen := seen_of(run)):
            return []
        both = zip(("MODEL_CHANGED", "CASES_CHANGED"), seen, self.seen.setdefault(model, seen), strict=True)
        during = run.closing.source_now not in (None, seen[0])
        return [code for code, now, was in both if now != was or (during and code == "MODEL_CHANGED")]

    def _report(self, run: Run, limits: tuple[Limit, ...] | None) -> Report | None:
        """Of a folder, with these limits; None for those it was made with.  None where it has not come that far."""
        if not (run.path / "report.json").exists():
            return None
        same = limits is None or tuple(sorted(run.plan.limits, key=str)) == limits
        wanted = None if same else limits
        if (run.path, wanted) not in self.reports:
            if same and not self.fresh:
                self.reports[run.path, wanted] = load(run.path / "report.json")
            else:
                plan = run.plan if wanted is None else run.plan.model_copy(update={"limits": wanted})
                # As it would be written: numbers are rounded there, and a bound may lie in between.
                self.reports[run.path, wanted] = loads(report_json(build_report(run, judge_run(run, plan), plan)))
        return self.reports[run.path, wanted]

    def _bench(self, trial: PlannedTrial, number: int) -> tuple[BenchSetting | None, str]:
        """What was measured of a trial in an attempt, and in which session; "" where it came to nothing."""
        if trial.bench is None:
            return None, ""
        session = f"bench/{trial.bench}/attempt-{number}"
        path = self.folder.path / session / MEASURED
        failed = self.folder.path / f"{session}.error.json"
        if path.exists():
            return self._measured(session).of(trial.method), session
        if failed.exists():
            why = read_record(failed, PartFailure).failure
            return BenchSetting(variant=trial.method, valid=False, why=((why.code, why.message),)), ""
        return None, ""

    def _measured(self, session: str) -> BenchRecord:
        """As it is kept; anew, and by this spec's own conditions, where all is judged anew."""
        if session not in self.measured:
            folder = self.folder.path / session
            anew = self.fresh and folder_of_bench(folder) is not None
            self.measured[session] = (
                measured(folder, self.spec.bench) if anew else read_record(folder / MEASURED, BenchRecord)
            )
        return self.measured[session]

    def _tasks(self, trial: PlannedTrial, number: int) -> Iterator[tuple[str, Value]]:
        for task in trial.tasks:
            path = self.folder.path / "tasks" / f"{task_name(task, key_of(trial), number)}.json"
            if not path.exists():
                continue
            found = read_record(path, TaskRecord)
            if found.error is not None:
                yield f"{TASK}{task}", Value(None, f"{found.error.code}: {found.error.message}")
                continue
            now = (found.code_sha256, found.labels_sha256)
            why = "" if self.code.setdefault(task, now) == now else OTHER_CODE
            for name, value in found.values.items():
                yield f"{TASK}{task}.{name}" if name else f"{TASK}{task}", Value(None if why else value, why)


def seen_of(run: Run) -> tuple[str, str]:
    """SHA-256 of the model, and of the user's own cases; empty where the run has not come that far."""
    return (run.source.sha256, _cases(run, own=True)) if (run.path / "source.json").exists() else ("", "")


def _cases(run: Run, own: bool = False) -> str:
    """SHA-256 of what a run's cases hold: all, or those of the user's own."""
    told = [case for case in run.source.cases if not own or (case.kind == "usual" and not case.generated)]
    cases = [(case.name, sorted((name, ref.sha256) for name, ref in case.inputs.items())) for case in told]
    return hashlib.sha256(repr(cases).encode("utf-8", "backslashreplace")).hexdigest()


def judge_folder(
    folder: AcceptFolder,
    spec: AcceptSpec,
    *,
    upto: int | None = None,
    fresh: bool = False,
    baseline: Path | None = None,
    spec_path: Path | None = None,
) -> Acceptance:
    """Judge what there is.

    Args:
        spec: the folder's own, or another of the same trials.
        upto: only the first so many attempts.
        fresh: every trial is judged anew from what was captured.
        baseline: in place of the one that is kept in the folder.
        spec_path: of another spec.

    Raises InputError (RUN_INVALID, REPORT_INVALID, LIMIT_...), ToolError (CAPTURE_UNREADABLE).
    """
    plan = folder.plan()
    runs, gathering = Runs(folder, plan), _Gathering(folder, spec, plan, fresh)
    attempts: dict[TrialKey, Sequence[TrialFacts]] = {
        key_of(trial): gathering.attempts(trial, runs, upto) for trial in plan.trials
    }
    held: Mapping[TrialKey, TrialFacts] | None = None
    kept = baseline or folder.path / BASELINE
    if kept.exists():
        if baseline is None and plan.baseline_sha256 not in (None, sha256_of(kept)):
            raise damaged(kept, "it is not the baseline that was kept")
        held = check_baseline(kept, spec, plan.trials)
        cases = plan.baseline_cases if baseline is None else baseline_cases(baseline)
        if cases is not None:
            held = {key: replace(each, identity={**each.identity, "cases": cases}) for key, each in held.items()}
    # The day of the run, so that a folder is judged alike whenever that is done.
    today = plan.created.date()
    judged = judge_acceptance(
        spec.rules, spec.deviations, attempts, held, today, aliases=spec.aliases(), tasks=spec.tasks,
        informative=[key_of(each) for each in plan.trials if each.informative], random_inputs=spec.random_inputs,
    )  # fmt: skip
    own = folder.path / SPEC
    return acceptance_report(
        spec, judged, attempts, today=today, baseline=held,
        baseline_path=str(baseline or plan.baseline or "") if held is not None else "",
        spec_path=plan.spec_name if spec_path is None else str(spec_path), interrupted=folder.interrupted,
        spec_sha256=plan.spec_sha256 if spec_path is None else sha256_of(spec_path or own),
    )  # fmt: skip


def own_spec(folder: AcceptFolder, plan: AcceptPlan) -> AcceptSpec:
    """What was asked for.  Raises InputError (RUN_INVALID) where its text is no longer that."""
    path = folder.path / SPEC
    spec = load_accept(path, base=Path(plan.folder))
    if sha256_of(path) != plan.spec_sha256:
        raise damaged(path, "it is not the spec that was run; to judge by another, name it with --spec")
    return spec.model_copy(update={"name": plan.name})  # not that of the copy's file


def check_baseline(path: Path, spec: AcceptSpec, trials: Sequence[PlannedTrial]) -> dict[TrialKey, TrialFacts]:
    """The facts of an earlier release.  Raises InputError (REPORT_INVALID, RUN_NOT_FOUND) where it is none."""
    devices = {name: each.uri for name, each in spec.devices.items()}
    variants = {each.variant: each.method for each in trials}
    return load_baseline(path, [key_of(each) for each in trials], devices, variants)


def baseline_bytes(path: Path) -> bytes:
    """What the folder of an earlier acceptance, or of verify, says.  Raises InputError (RUN_NOT_FOUND, RUN_INVALID;
    RUN_ALTERED where that is not what its manifest holds)."""
    for file in (path / JUDGEMENT, path / "report.json") if path.is_dir() else (path,):
        try:
            data = read_bounded(file, MAX_BASELINE)
            held = (manifest.read(file.parent) or {}).get(file.name)
            if held is None or held.sha256 == hashlib.sha256(data).hexdigest():
                return data
            raise InputError(
                "RUN_ALTERED", f"baseline {file}: it is not what it was when the folder was closed",
                hint=f"edgequant report {shlex.quote(str(file.parent))} --verify names all that was changed.",
            )  # fmt: skip
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError("RUN_INVALID", f"baseline {file}: {error.strerror}") from None
    what = f"neither {JUDGEMENT} nor report.json is in it" if path.is_dir() else "no such folder"
    raise InputError(
        "RUN_NOT_FOUND", f"baseline {path}: {what}",
        hint="Give the folder that an earlier `edgequant accept` or `edgequant verify` has left.",
    )  # fmt: skip


def baseline_cases(path: Path) -> str | None:
    """SHA-256 of the cases of a folder of verify; None for any other, which tells them itself."""
    try:
        return _cases(open_run(path)) if path.is_dir() and not (path / JUDGEMENT).exists() else None
    except InputError:
        return None  # of an older version: what it is held against says that they are not known


@dataclass(frozen=True)
class RejudgedAcceptance:
    """found: what is said now.  stored: what was said; None where that cannot be read.  changes: a line each."""

    found: Acceptance
    stored: Acceptance | None
    changes: tuple[str, ...]


def rejudge(run_dir: str | Path, spec_path: Path | None = None) -> RejudgedAcceptance:
    """Judge the folder of an acceptance again, from what was captured.

    spec_path: a spec with other rules; its models, variants, devices and options have to be those that were run.

    Raises as `judge_folder`; InputError (SPEC_NOT_FOUND, SPEC_INVALID).
    """
    folder = open_acceptance(run_dir)
    plan = folder.plan()
    if spec_path is None:
        found = judge_folder(folder, own_spec(folder, plan), fresh=True)
    else:
        spec = load_accept(spec_path)
        _refuse_other_trials(spec, plan, spec_path)
        _refuse_other_measures(folder, plan, spec_path)
        other = _other_baseline(spec, folder)
        found = judge_folder(folder, spec, fresh=True, baseline=other, spec_path=spec_path)
    try:
        stored = load_acceptance(folder.judgement)
    except InputError as error:
        return RejudgedAcceptance(found, None, (str(error),))
    return RejudgedAcceptance(found, stored, tuple(_changes(stored, found)))


def _other_baseline(spec: AcceptSpec, folder: AcceptFolder) -> Path | None:
    """Of another spec; None for the one that is kept, where it names that or none.  Raises InputError."""
    if spec.baseline is None:
        return None
    if same_file(spec.baseline, folder.path) or same_file(spec.baseline, folder.judgement):
        raise InputError("SPEC_INVALID", f"baseline {spec.baseline}: it is the run itself, and never worse than itself")
    # Copied from the folder's own, it may lie where its paths lead nowhere.
    own = load_accept(folder.path / SPEC, base=Path()).baseline
    if not spec.baseline.exists() and own is not None and spec.baseline.parts[-len(own.parts) :] == own.parts:
        return None
    baseline_bytes(spec.baseline)
    return spec.baseline


def _refuse_other_trials(spec: AcceptSpec, plan: AcceptPlan, path: Path) -> None:
    asked = {(key, spec.variant(key).variant, spec.devices[key.device].uri) for key in spec.trials()}
    ran = {(key_of(each), each.method, each.uri) for each in plan.trials if not each.informative}
    for what, these in (("was not run", asked - ran), ("was run, and is not in it", ran - asked)):
        if these:
            names = "; ".join(sorted(f"{key} ({method} on {uri})" for key, method, uri in these)[:5])
            raise InputError(
                "SPEC_INVALID", f"{path}: {names}: {what}",
                hint="Rules, margins and deviations may be others; models, variants and devices are what was run.  "
                "Begin a new run for others.",
            )  # fmt: skip
    for each in plan.trials:
        if (options := options_of(spec, key_of(each))[0]) != each.options:
            told = ", ".join(name for name, value in options if value != getattr(each.options, name))
            raise InputError("SPEC_INVALID", f"{path}: {key_of(each)}: it was run with other options: {told}")


def _refuse_other_measures(folder: AcceptFolder, plan: AcceptPlan, path: Path) -> None:
    """Raise InputError where models, their cases or tasks are not what was measured: neither as they are written, nor
    as they are found from where the specs lie."""
    there = [_measures(folder.path / SPEC, base) for base in (Path(), Path(plan.folder))]
    here = [_measures(path, base) for base in (Path(), path.parent.absolute())]
    for name, was in there[0].items():
        if name in here[0] and all(one[name] != other[name] for one, other in zip(there, here, strict=True)):
            told = ", ".join(key for key, value in was.items() if value != here[0][name].get(key))
            raise InputError(
                "SPEC_INVALID", f"{path}: {name}: it was measured with another {told}", hint="Run it anew."
            )


def _measures(path: Path, base: Path) -> dict[str, dict[str, object]]:
    """What makes the numbers of a spec, by where it stands."""
    spec = load_accept(path, base=base)
    others = {"options", "variants", "devices", "better", "timeout", "memory_mb", "model"}
    entries = {**{f"models.{name}": each for name, each in spec.models.items()},
               **{f"tasks.{name}": each for name, each in spec.tasks.items()}}  # fmt: skip
    return {name: each.model_dump(exclude=others) for name, each in entries.items()}


def _changes(before: Acceptance, after: Acceptance) -> Iterator[str]:
    if before.state is not after.state:
        yield f"state: {before.state} -> {after.state}"
    known = {each.key: each for each in before.trials}
    for trial in after.trials:
        was = known.get(trial.key)
        if was is None:
            yield f"{trial.key}: new, {trial.state}"
            continue
        if was.state is not trial.state:
            yield f"{trial.key}: {was.state} -> {trial.state}"
        rules = {(each.rule, str(each.scope)): each for each in was.rules}
        for rule in trial.rules:
            old = rules.pop((rule.rule, str(rule.scope)), None)
            if old is None:
                yield f"{trial.key}, {rule.rule}: new, {rule.state}"
            elif old.state is not rule.state:
                yield f"{trial.key}, {rule.rule}: {old.state} -> {rule.state}"
        yield from (f"{trial.key}, {name}: no longer a rule" for name, _ in rules)


def keep(folder: Path, found: Acceptance) -> Path:
    """Write a judgement beside those that are there: acceptance-2.json, ...; returns the path.

    Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE).
    """
    text = to_json(found).encode("utf-8", "backslashreplace")
    return write_beside(folder, "acceptance", lambda path: AcceptFolder(folder).write(path.name, text))
