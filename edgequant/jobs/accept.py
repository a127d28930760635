"""A release check: models x variants x devices, measured part by part, judged by the rules of a spec.

A part that fails costs that part only.  Whatever was finished stays, after ctrl-C and kill -9 too: `resume` does what
is missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from edgequant.archive.acceptance import (
    JUDGEMENT,
    MEASURED,
    AcceptFolder,
    AcceptPlan,
    PartFailure,
    PlannedTrial,
    TaskRecord,
    open_acceptance,
    read_record,
    task_name,
)
from edgequant.archive.manifest import amended, begin_anew, close
from edgequant.archive.open import Run
from edgequant.archive.record import Failure
from edgequant.errors import EdgequantError, InputError
from edgequant.files import host_error
from edgequant.jobs import accept_bench, explain, tasks
from edgequant.jobs.accept_check import check, read_spec
from edgequant.jobs.accept_judge import (
    baseline_bytes,
    baseline_cases,
    check_baseline,
    judge_folder,
    own_spec,
    seen_of,
)
from edgequant.jobs.accept_runs import Runs, key_of
from edgequant.jobs.same_place import host_mnn
from edgequant.judge.acceptance import State
from edgequant.judge.verdict import Verdict
from edgequant.plan.accept import BenchPart, Expanded, VerifyPart, expand
from edgequant.progress import Progress
from edgequant.report.acceptance import Acceptance, to_json
from edgequant.report.read import load
from edgequant.spec import Variant
from edgequant.spec.accept import AcceptSpec, TrialKey
from edgequant.version import __version__

_OF_ALL = ("RUN_DIR_FULL", "RUN_DIR_UNWRITABLE", "DISK_FULL", "MNN_MISSING", "MNN_TOO_OLD", "INTERRUPTED")
"""Codes of what is no one part's."""
_SETTLED = (State.PASS, State.MARGINAL, State.ACCEPTED, State.FLAKY)
"""What another attempt cannot change: nothing takes back that a trial has failed once."""
Kind = Literal["trials", "bench"]


class InterruptedAccept(KeyboardInterrupt):
    """The user stopped it; `found` holds what was finished, and has been written into `folder`."""

    def __init__(self, found: Acceptance, folder: Path) -> None:
        super().__init__()
        self.found = found
        self.folder = folder


def accept(
    spec_path: str | Path,
    *,
    run_dir: Path | None = None,
    baseline: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Acceptance, AcceptFolder]:
    """Run all of a spec and judge it.  The folder has everything, acceptance.json the judgement.

    Args:
        run_dir: a new folder; None for one under ./edgequant-runs.
        baseline: in place of the spec's.

    Raises InputError for what is wrong with the spec or with what it names, before anything is run; EdgequantError
    (RUN_DIR_FULL, ...) where nothing can be kept any more; InterruptedAccept on ctrl-C.
    """
    host_mnn()
    spec_path = Path(spec_path)
    spec, data = read_spec(spec_path, baseline)
    expanded = expand(spec)
    check(spec, expanded, spec_path.parent.absolute())
    plan = plan_of(spec, expanded, data, spec_path)
    held = None
    if spec.baseline is not None:
        held = baseline_bytes(spec.baseline)
        check_baseline(spec.baseline, spec, plan.trials)
        plan = plan.model_copy(update={"baseline_sha256": hashlib.sha256(held).hexdigest()})
        if progress is not None and (told := bad_baseline(spec.baseline, held)):
            progress.say(f"warning: {told}")
    folder = AcceptFolder.create(run_dir, spec.name or spec_path.stem)
    with folder.alone():
        folder.begin(plan, data, held)
        return Accepting(spec, expanded, folder, progress or Progress()).run(), folder


def resume(run_dir: Path, progress: Progress | None = None) -> tuple[Acceptance, AcceptFolder]:
    """Go on with one that was interrupted: what is missing is run, what could not be run is tried again.

    Raises as `accept`; InputError (RUN_NOT_FOUND, RUN_INVALID, MODEL_CHANGED, MNN_CHANGED), and nothing is changed.
    """
    host_mnn()
    folder = open_acceptance(run_dir)
    plan = folder.plan()
    with folder.alone():
        spec = own_spec(folder, plan)
        expanded = expand(spec)
        graphs = check(spec, expanded, Path(plan.folder))
        for trial in plan.trials:
            for _, run in Runs(folder, plan).all(key_of(trial)):
                if not isinstance(run, Run):
                    continue
                host_mnn(run)
                if seen_of(run)[0] not in ("", graphs[trial.model].sha256):
                    raise InputError(
                        "MODEL_CHANGED", f"models.{trial.model}: it is not the file this acceptance was begun with",
                        hint="Begin a new one.",
                    )  # fmt: skip
        folder.reopen()
        begin_anew(folder.path)
        return Accepting(spec, expanded, folder, progress or Progress(), resumed=True).run(), folder


def plan_of(spec: AcceptSpec, expanded: Expanded, data: bytes, path: Path) -> AcceptPlan:
    """What is kept of it."""
    benches = {key: part.name for part in reversed(expanded.benches) for key in part.trials}
    trials = []
    for key, part in expanded.trials.items():
        uri, method = spec.devices[key.device].uri, spec.variant(key).variant
        trials.append(
            PlannedTrial(
                model=key.model, variant=key.variant, device=key.device, method=method, uri=uri, part=part.name,
                options=part.request.options, bench=benches.get(key), tasks=expanded.tasks.get(key, ()),
                informative=key in expanded.informative,
            )
        )  # fmt: skip
    return AcceptPlan(
        name=spec.name or path.stem,
        edgequant=__version__,
        spec_sha256=hashlib.sha256(data).hexdigest(),
        spec_name=path.name,
        folder=str(path.parent.absolute()),
        baseline=None if spec.baseline is None else str(spec.baseline.absolute()),
        baseline_cases=None if spec.baseline is None else baseline_cases(spec.baseline),
        retries=spec.retries,
        trials=tuple(trials),
    )


def bad_baseline(path: Path, held: bytes) -> str:
    """What to say of a baseline that was no good release itself; empty of one that was."""
    told = json.loads(held)
    state = told.get("state", told.get("verdict"))
    if state in (*map(str, _SETTLED[:3]), None):
        return ""
    return f"the baseline {path} is itself {state}: its numbers are taken all the same"


class Accepting:
    """One acceptance, with what it has so far in its folder."""

    def __init__(
        self, spec: AcceptSpec, expanded: Expanded, folder: AcceptFolder, progress: Progress, *, resumed: bool = False
    ) -> None:
        self.spec = spec
        self.expanded = expanded
        self.folder = folder
        self.progress = progress
        self.resumed = resumed
        self.plan = folder.plan()
        self.runs = Runs(folder, self.plan)

    def run(self) -> Acceptance:
        try:
            for attempt in range(1, self.plan.retries + 2):
                todo = self._todo(attempt)
                if not todo:
                    break
                if attempt > 1:
                    self.progress.say(f"attempt {attempt}: {len(todo)} trial{'s' * (len(todo) > 1)} did not pass")
                self._attempt(attempt, todo)
                found = self._judged()
            found = self._kept(found.model_copy(update={"interrupted": False}))
            self.folder.note("ended", state=str(found.state))
            close(self.folder.path)
            return found
        except KeyboardInterrupt:
            self.folder.note("interrupted")
            raise InterruptedAccept(self._judged(), self.folder.path) from None

    def _judged(self) -> Acceptance:
        """Judge what is there so far, and write it: until it has ended, as what was interrupted."""
        return self._kept(judge_folder(self.folder, self.spec))

    def _kept(self, found: Acceptance) -> Acceptance:
        self.folder.write(JUDGEMENT, to_json(found).encode("utf-8", "backslashreplace"))
        return found

    def _todo(self, attempt: int) -> list[TrialKey]:
        """All at first; then those that did not pass, and what they are held against where that decides nothing."""
        keys = list(self.expanded.trials)
        if attempt == 1:
            return keys
        states = {each.key: each.state for each in judge_folder(self.folder, self.spec, upto=attempt - 1).trials}
        bad = [key for key in keys if key not in self.expanded.informative and states[key] not in _SETTLED]
        near = {key[::2] for key in bad}
        return bad + [key for key in keys if key in self.expanded.informative and key[::2] in near] if bad else []

    def _attempt(self, attempt: int, todo: Collection[TrialKey]) -> None:
        parts = [part for each in self.expanded.parts for part in _numbered(each, attempt, todo)]
        benches = [each for each in self.expanded.benches if any(key in todo for key in each.trials)]
        whole = len(parts) + len(benches)
        for number, (part, name) in enumerate(parts, 1):
            told = f"part {number} of {whole}: {_told(part)}"
            self._part("trials", part, name, told, partial(self._verify, part))
        for number, bench in enumerate(benches, len(parts) + 1):
            told = f"part {number} of {whole}: bench {bench.trials[0].model} on {bench.trials[0].device}"
            self._part("bench", bench, f"attempt-{attempt}", told, partial(self._bench, bench, attempt, todo))
        for key in todo:
            for task in self.expanded.tasks.get(key, ()):
                self._task(task, key, attempt)

    # ---- parts

    def _part(
        self, kind: Kind, part: VerifyPart | BenchPart, name: str, told: str, work: Callable[[Path], str]
    ) -> None:
        """Do one attempt at a part unless it is there; what goes wrong with it is kept in its place."""
        path = self.folder.path / kind / part.name / name
        failed = path.with_name(f"{name}.error.json")
        if self._done(kind, path):
            return
        failed.unlink(missing_ok=True)  # the journal has it
        self.progress.say(told)
        self.folder.note("begin", kind=kind, part=part.name, attempt=name)
        start = time.monotonic()
        more: dict[str, str] = {}
        failure: Failure | None = None
        try:
            more["verdict"] = work(path)
        except EdgequantError as error:
            if error.code in _OF_ALL:
                raise
            failure = Failure.of(error)
        except Exception as error:  # noqa: BLE001  (told in full; one part must not take the others with it)
            failure = self._bug(error, f"{kind}-{part.name}-{name}")
        if failure is not None:
            self.progress.say(f"{failure.code}: {failure.message}")
            whose = PartFailure(failure=failure, trials=_trials(part))
            self.folder.save(f"{kind}/{part.name}/{failed.name}", whose)
            more["error"] = failure.code
        seconds = round(time.monotonic() - start, 3)
        self.folder.note("end", kind=kind, part=part.name, attempt=name, seconds=seconds, **more)

    def _bug(self, error: Exception, what: str) -> Failure:
        if (known := host_error(error)) is not None:
            if known.code in _OF_ALL:
                raise known from None
            return Failure.of(known)
        log = self.folder.log(f"bug-{what}")
        log.write_text(traceback.format_exc(), "utf-8", "backslashreplace")
        return Failure(
            code="INTERNAL_ERROR", message=f"{type(error).__name__}: {error}", where=what,
            hint="This is a bug in edgequant.", evidence={"log": log.name},
        )  # fmt: skip

    def _done(self, kind: Kind, path: Path) -> bool:
        """Whether it is there, whole; what is there of one that was interrupted makes room, or is gone on with."""
        if not path.is_dir() or self.is_there(kind, path):
            return path.is_dir()
        if kind == "bench":
            # Its blocks belong to one session, which is over.
            number = sum(1 for _ in path.parent.glob("interrupted-*"))
            path.rename(path.with_name(f"interrupted-{path.name}-{number + 1}"))
        elif not (path / "plan.json").exists():
            shutil.rmtree(path)  # it was just being made
        return False

    def is_there(self, kind: str, place: Path) -> bool:
        """The same, and nothing is changed."""
        if kind == "bench":
            return (place / MEASURED).exists()
        if not (place / "plan.json").exists() or not (place / "report.json").exists() or not Run(place).closing.ended:
            return False
        if not self.resumed:
            return True
        runs = load(place / "report.json").runs
        # What could not be run is tried again, unless that might run anew what the model itself failed at.
        again = any(each.verdict is Verdict.ERROR for each in runs)
        return not again or any(each.error is not None and each.verdict is Verdict.FAIL for each in runs)

    def _verify(self, part: VerifyPart, path: Path) -> str:
        if (path / "plan.json").exists():
            report, _ = explain.resume(path, self.progress)
        else:
            report, _ = explain.verify(replace(part.request, run_dir=path), self.progress)
        return str(report.verdict)

    def _bench(self, part: BenchPart, attempt: int, todo: Collection[TrialKey], path: Path) -> str:
        # What passed is not measured again, but for what others are held against.
        wanted = [key for key in part.trials if key in todo or key.variant == part.trials[0].variant]
        runs = {key: run for key in wanted if (run := self.runs.newest(key, attempt)) is not None}
        found = accept_bench.measure(replace(part, trials=tuple(wanted)), self.spec, runs, path, self.progress)
        with amended(path):
            self.folder.save(f"bench/{part.name}/{path.name}/{MEASURED}", found)
        return "PASS" if all(each.valid for each in found.settings) else "INCONCLUSIVE"

    def _task(self, name: str, key: TrialKey, attempt: int) -> None:
        place = f"tasks/{task_name(name, key, attempt)}.json"
        if (self.folder.path / place).exists():
            kept = read_record(self.folder.path / place, TaskRecord)
            if kept.error is None or not self.resumed:
                return
        run = self.runs.of(key, attempt)
        if run is None:
            return  # the trial itself says why
        entry = self.spec.tasks[name]
        self.progress.say(f"task {name}: {key.variant} of {key.model} on {key.device}")
        task = tasks.Task(name, entry.function, entry.labels, entry.timeout, entry.memory_mb)
        found = tasks.measure(
            task, run, model=key.model, variant=Variant.parse(self.spec.variant(key).variant),
            uri=self.spec.devices[key.device].uri, device=key.device, attempt=attempt,
            log=self.folder.log(task_name(name, key, attempt)), cwd=Path(self.plan.folder),
        )  # fmt: skip
        if found.error is not None:
            self.progress.say(f"{found.error.code}: {found.error.message}")
        self.folder.save(place, found.model_copy(update={"variant": key.variant}))
        self.folder.note("task", task=name, trial=list(key), attempt=attempt)


def _numbered(part: VerifyPart, attempt: int, todo: Collection[TrialKey]) -> Iterator[tuple[VerifyPart, str]]:
    """What of a part is to be run, with the names of its folders."""
    wanted = [key for key in part.trials.values() if key in todo]
    for number, each in enumerate(part.only(wanted), 1):
        yield each, f"attempt-{attempt}" if number == 1 else f"attempt-{attempt}-{number}"


def _trials(part: VerifyPart | BenchPart) -> tuple[TrialKey, ...]:
    return tuple(part.trials.values()) if isinstance(part, VerifyPart) else part.trials


def _told(part: VerifyPart) -> str:
    keys = list(part.trials.values())
    variants, devices = (list(dict.fromkeys(names)) for names in zip(*[key[1:] for key in keys], strict=True))
    return f"{keys[0].model}: {', '.join(variants)} on {', '.join(devices)}"
