"""What a check would have missed: faults planted into the files of a run, each judged as the run was."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from edgequant.archive.open import Run, open_run
from edgequant.cases.rollout import find_feedback
from edgequant.errors import InputError
from edgequant.files import sha256_of
from edgequant.jobs.kernel_plants import kernel_faults
from edgequant.jobs.planted import Overlay, Tried, Where
from edgequant.jobs.planting import Planter
from edgequant.jobs.state_faults import state_faults
from edgequant.judge.independent import failing_share
from edgequant.judge.rounding import weighed
from edgequant.judge.run import judge
from edgequant.judge.stages import Comparer
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import GOOD, Verdict
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.models.mnn.faults import NULL, Fault, faults, nothings, unreachable
from edgequant.progress import Progress
from edgequant.runner.client import DEFAULT_THREADS
from edgequant.spec import Variant

NULL_SHARE = 10
"""A null run for so many faults."""
MOST_AT_ONCE = 4


@dataclass
class Audit:
    """One variant on one device, audited.

    Attributes:
        verdict: what the run itself says of it.
        nulls: files of which a last bit was changed, and the file itself; none may be blamed.
        unreachable: layers into which nothing could be planted.
        cases: that are held against limits; own: of the user's, those that are independent of each other.
        is_host: the device is this host.
        weighed: the weights of all layers are held against the float model's.
        rooms: output -> (its limit on SQNR, what the sound file has): a fault may cost as much in between.
        states: inputs that look like states of a model that was not rolled out: nothing of a loop was planted.
    """

    run: Path
    variant: str
    uri: str
    verdict: Verdict
    cases: int
    own: int
    is_host: bool
    weighed: bool
    rooms: dict[str, tuple[float, float]] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    tried: list[Tried] = field(default_factory=list)
    nulls: list[Tried] = field(default_factory=list)
    unreachable: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def false_alarms(self) -> int:
        return sum(each.verdict is not self.verdict for each in self.nulls)

    @property
    def bound(self) -> float | None:
        """See `judge.independent.failing_share`."""
        return failing_share(self.own) if self.verdict in GOOD else None

    def blind(self, tried: Tried) -> str | None:
        """Why this check cannot see a fault that it missed; None where it should have."""
        if tried.caught:
            return None
        if tried.where == "file":
            if not self.weighed:
                return "wrong on both sides, where weights are not held against the float model's; every limit is kept"
            return "wrong on both sides, no weight beyond what rounding takes, and every limit is kept"
        if self.is_host:
            return "the device is this host: nobody else says what it should compute, and every limit is kept"
        return "it is no more than rounding may take the device away from this host" if tried.counts else None

    def __repr__(self) -> str:
        counted = [each for each in self.tried if each.counts]
        caught = sum(each.caught for each in counted)
        return f"<Audit of {self.variant} on {self.uri}: {caught} of {len(counted)} faults caught>"


def audit(
    run_dir: str | Path,
    *,
    count: int = 200,
    seed: int = 0,
    variant: str | None = None,
    nulls: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Plant faults into the model of a run that passed, and have each judged as the run was.

    Each faulty file is run on this host, with the run's cases, memory mode and threads, and takes the place of what
    the device captured: once on the device alone, once on both sides.  The run itself is not changed.

    Args:
        run_dir: of `verify`, with a variant whose verdict is PASS or MARGINAL.
        count: faults; half of them planted on the device, half in the file.
        variant: which one; None for the first that passed.
        nulls: files of which only a last bit is changed; None for a tenth as many as faults.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, AUDIT_NOTHING_PASSED, AUDIT_FILE_GONE, AUDIT_HOST_DIFFERS,
    AUDIT_IMPOSSIBLE), ToolError, DeviceError of another emulated CPU.
    """
    progress = progress or Progress()
    started = time.monotonic()
    run = open_run(run_dir)
    overlay = Overlay(run.arrays)
    comparer = Comparer(overlay)
    trial = _trial(run, variant, comparer)
    artifact, capture = trial.artifact, trial.capture
    assert artifact is not None
    assert capture is not None
    path = run.path / artifact.path
    if not path.is_file() or sha256_of(path) != artifact.sha256:
        raise InputError("AUDIT_FILE_GONE", f"{path}: it is not there, or not what was verified", hint="Verify again.")
    drawn = faults(path, count, seed)
    sound = nothings(path, count // NULL_SHARE if nulls is None else nulls, seed)
    met: Counter[str] = Counter()
    jobs: list[tuple[Fault, Where]] = []
    for fault in [*sound, *drawn]:
        met[fault.kind] += 1
        in_file = met[fault.kind] % 2 == 1 and not (fault.kind == NULL and fault.copied)
        jobs.append((fault, "file" if in_file else "device"))
    with contextlib.ExitStack() as stack:
        first = Planter(run, trial, overlay, comparer)
        planters = _planters(first, run, capture.threads, progress, stack)
        found = Audit(
            run.path, str(trial.variant), trial.uri, trial.verdict, len(run.source.held),
            trial.independent, first.is_host, weighed(artifact), _rooms(trial), _states(run),
            unreachable=tuple(unreachable(path)),
        )  # fmt: skip
        found.tried += state_faults(first)
        found.tried += kernel_faults(first, progress)
        free: SimpleQueue[Planter] = SimpleQueue()
        for planter in planters:
            free.put(planter)

        def plant(job: tuple[Fault, Where]) -> Tried:
            planter = free.get()
            try:
                return planter.plant(*job)
            finally:
                free.put(planter)

        # Entered last: at an interruption what is running ends before its session is closed, and no more is begun.
        pool = stack.enter_context(_pool(len(planters)))
        for number, tried in enumerate(pool.map(plant, jobs)):
            if number % 20 == 0:
                progress.say(f"planted {number} of {len(jobs)} faults")
            (found.nulls if tried.fault.kind == NULL else found.tried).append(tried)
    found.seconds = time.monotonic() - started
    return found


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _planters(
    first: Planter, run: Run, threads: int | None, progress: Progress, stack: contextlib.ExitStack
) -> list[Planter]:
    """As many as this host has cores for, the first of them checked.  One thread of MNN does where it computes the
    same in every bit as the run's threads did."""
    wanted = threads or run.plan.options.threads or DEFAULT_THREADS

    def session(threads: int) -> Session:
        options = run.plan.options.model_copy(update={"cores": None, "threads": threads})
        return stack.enter_context(open_session("local:", DeviceOptions(), options, log=None, progress=progress))

    used = 1
    first.use(session(1))
    if wanted > 1 and not first.same():
        used = wanted
        first.use(session(wanted))
    if not first.same():
        raise InputError(
            "AUDIT_HOST_DIFFERS",
            f"{run.path}: this host does not compute what the run's host did with the same file",
            hint="Audit on the host that made the run, with the same MNN; or verify again here.",
        )
    more = max(1, min(MOST_AT_ONCE, (os.cpu_count() or 1) // used)) - 1
    return [first, *(first.beside(session(used)) for _ in range(more))]


def _rooms(trial: TrialJudgement) -> dict[str, tuple[float, float]]:
    return {
        name: (result.limit.value, result.value)
        for name, output in trial.outputs.items()
        for result in output.verdict.results
        if result.limit.metric == "sqnr_db" and result.value is not None
    }


def _states(run: Run) -> tuple[str, ...]:
    """Inputs that names and shapes say are states, where nothing was rolled out."""
    case = next((each for each in run.reference.cases if each.outputs), None)
    if run.source.rollout is not None or case is None:
        return ()
    try:
        return tuple(find_feedback(run.inputs(case.case), run.arrays_of(case) or {}))
    except InputError:
        return ()


def _trial(run: Run, variant: str | None, comparer: Comparer) -> TrialJudgement:
    wanted = None if variant is None else Variant.parse(variant)
    trials = judge(run, comparer=comparer).trials
    for each in trials:
        if each.verdict in GOOD and each.artifact is not None and wanted in (None, each.variant):
            return each
    said = ", ".join(f"{each.variant} {each.verdict.value}" for each in trials)
    if wanted is not None and all(each.variant != wanted for each in trials):
        raise InputError(
            "OPTION_INVALID", f"{run.path}: it has no variant {variant}", hint=f"It has {said}: --variant takes one."
        )
    raise InputError(
        "AUDIT_NOTHING_PASSED",
        f"{run.path}: nothing that was asked for has PASS or MARGINAL, and what fails already tells nothing of what "
        "would be missed",
        hint=f"It has {said}: audit what passes.",
    )
