"""What a check would have missed: faults planted into the files of a run, each judged as the run was."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgequant.archive.arrays import ArrayFolder, MemoryArrays
from edgequant.archive.folder import device_capture, host_capture
from edgequant.archive.open import Run, open_run
from edgequant.archive.types import ArrayRef, Artifact, Capture, CaseCapture, Making
from edgequant.cases.case import Case
from edgequant.errors import InputError
from edgequant.files import sha256_of
from edgequant.findings import Finding
from edgequant.jobs.rounding import with_rounding
from edgequant.judge.run import judge
from edgequant.judge.stages import Comparer
from edgequant.judge.types import Judgement, TrialJudgement
from edgequant.judge.verdict import Verdict
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import ModelFile, take
from edgequant.models.mnn.faults import Fault, faults, nothings, unreachable
from edgequant.progress import Progress
from edgequant.spec import Variant

Where = Literal["device", "file"]
"""The fault is the device's alone, or in the file as it was made, on both sides."""
NULLS = 20
_GOOD = (Verdict.PASS, Verdict.MARGINAL)


@dataclass(frozen=True)
class Tried:
    """A fault and what was said of it.

    Attributes:
        verdict: of the trial it was planted into.
        codes: of findings at "warn" or above that the run itself does not have.
        cost_db: how much SQNR the output loses that loses most; None where that is not defined.
        output, sqnr_db: which that is, and what it has left.
        died: MNN crashed on the file, or refused it: nobody can miss that.
    """

    fault: Fault
    where: Where
    verdict: Verdict
    codes: tuple[str, ...] = ()
    cost_db: float | None = None
    output: str | None = None
    sqnr_db: float | None = None
    died: bool = False

    @property
    def caught(self) -> bool:
        """It is not released."""
        return self.verdict not in _GOOD

    @property
    def warned(self) -> bool:
        return not self.caught and bool(self.codes)

    @property
    def counts(self) -> bool:
        """It costs a decibel or more, or a number that has none."""
        return self.died or self.cost_db is None or self.cost_db >= 1.0


@dataclass
class Audit:
    """One variant on one device, audited.

    Attributes:
        verdict: what the run itself says of it.
        nulls: files of which a last bit was changed, and the file itself; none may be blamed.
        unreachable: layers into which nothing could be planted.
        cases: that are held against limits; of them `own` are the user's.
    """

    run: Path
    variant: str
    uri: str
    verdict: Verdict
    cases: int
    own: int
    tried: list[Tried] = field(default_factory=list)
    nulls: list[Tried] = field(default_factory=list)
    unreachable: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def false_alarms(self) -> int:
        return sum(each.verdict is not self.verdict for each in self.nulls)

    @property
    def bound(self) -> float | None:
        """The largest share of failing inputs that as many cases without a failure leave possible, at 95 %.

        Exact, of a binomial: 1 - 0.05^(1/n).  None without cases of the user's: random ones are drawn from nowhere.
        """
        return 1 - 0.05 ** (1 / self.own) if self.own and self.verdict in _GOOD else None

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
    progress: Progress | None = None,
) -> Audit:
    """Plant faults into the model of a run that passed, and have each judged as the run was.

    Each faulty file is run on this host, with the run's cases, memory mode and threads, and takes the place of what
    the device captured: once on the device alone, once on both sides.  The run itself is not changed.

    Args:
        run_dir: of `verify`, with a variant whose verdict is PASS or MARGINAL.
        count: faults; half of them planted on the device, half in the file.
        variant: which one; None for the first that passed.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, AUDIT_NOTHING_PASSED, AUDIT_FILE_GONE, AUDIT_HOST_DIFFERS,
    AUDIT_IMPOSSIBLE), ToolError.
    """
    progress = progress or Progress()
    started = time.monotonic()
    run = open_run(run_dir)
    trial = _trial(run, variant)
    artifact, capture = trial.artifact, trial.capture
    assert artifact is not None
    assert capture is not None
    path = run.path / artifact.path
    if not path.is_file() or sha256_of(path) != artifact.sha256:
        raise InputError("AUDIT_FILE_GONE", f"{path}: it is not there, or not what was verified", hint="Verify again.")
    source = run.source
    own = sum(not case.generated for case in source.cases)
    found = Audit(
        run.path, str(trial.variant), trial.uri, trial.verdict, len(source.held), own,
        unreachable=tuple(unreachable(path)),
    )  # fmt: skip
    drawn = faults(path, count, seed)
    options = run.plan.options.model_copy(
        update={"cores": None, "threads": capture.threads or run.plan.options.threads}
    )
    with open_session("local:", DeviceOptions(), options, log=None, progress=progress) as host:
        bench = _Bench(run, trial, artifact, capture, host)
        bench.check()
        met: Counter[str] = Counter()
        for number, fault in enumerate([*nothings(path, NULLS, seed), *drawn]):
            if number % 20 == 0:
                progress.say(f"planted {number} of {NULLS + len(drawn)} faults")
            met[fault.kind] += 1
            where: Where = "file" if met[fault.kind] % 2 else "device"
            tried = bench.plant(fault, where)
            (found.nulls if fault.kind == "nothing" else found.tried).append(tried)
    found.seconds = time.monotonic() - started
    return found


def _trial(run: Run, variant: str | None) -> TrialJudgement:
    wanted = None if variant is None else Variant.parse(variant)
    for each in judge(run).trials:
        if each.verdict in _GOOD and each.artifact is not None and wanted in (None, each.variant):
            return each
    what = "no variant" if variant is None else variant
    raise InputError(
        "AUDIT_NOTHING_PASSED",
        f"{run.path}: {what} has PASS or MARGINAL: what fails already tells nothing of what would be missed",
        hint="Audit a run that passes.",
    )


class _Overlay:
    """The run's arrays, and over them those of one planted fault."""

    def __init__(self, folder: ArrayFolder) -> None:
        self._folder = folder
        self._planted = MemoryArrays()

    def put(self, array: np.ndarray) -> ArrayRef:
        return self._planted.put(array)

    def get(self, ref: ArrayRef) -> np.ndarray:
        try:
            return self._planted.get(ref)
        except KeyError:
            return self._folder.get(ref)

    def clear(self) -> None:
        self._planted = MemoryArrays()


class _PlantedRun(Run):
    """A run with other captures in the place of some, and perhaps another artifact in the place of all."""

    replaced: dict[str, Capture]
    artifact: Artifact | None

    def capture(self, name: str) -> Capture | None:
        return self.replaced.get(name) or super().capture(name)

    def making(self, variant: Variant) -> Making | None:
        return super().making(variant) if self.artifact is None else Making(variant=variant, artifact=self.artifact)


class _Bench:
    """Runs faulty files on this host and has what comes out judged."""

    def __init__(self, run: Run, trial: TrialJudgement, artifact: Artifact, capture: Capture, host: Session) -> None:
        self.run, self.trial, self.artifact, self.device, self.host = run, trial, artifact, capture, host
        self.here = run.on_host(trial.variant)
        self.overlay = _Overlay(run.arrays)
        self.comparer = Comparer(self.overlay)
        self.data = (run.path / artifact.path).read_bytes()
        self.plan = run.plan.model_copy(update={"variants": (trial.variant,), "devices": (trial.uri,)})
        self.cases = [
            Case(name=each.name, inputs=run.inputs(each.name), source=each.source, generated=each.generated,
                 kind=each.kind)
            for each in run.source.cases
        ]  # fmt: skip
        self.floats = run.float_file
        self.sound = self._judged({})
        self.known = {each.code for each in self._findings(self.sound)}

    def check(self) -> None:
        """Raise InputError (AUDIT_HOST_DIFFERS) where this host computes something else than the run's did."""
        with _file(self.data) as path:
            now = self._taken(path)
        if self.here is None or now.failure is not None or _digests(now.cases) != _digests(self.here.cases):
            raise InputError(
                "AUDIT_HOST_DIFFERS",
                f"{self.run.path}: this host does not compute what the run's host did with the same file",
                hint="Audit on the host that made the run, with the same MNN; or verify again here.",
            )

    def plant(self, fault: Fault, where: Where) -> Tried:
        self.overlay.clear()
        with _file(fault.planted(self.data)) as path:
            wrong = self._taken(path)
            made = self._weighed(path) if where == "file" else None
        if wrong.failure is not None or _refused(wrong) - _refused(self.here):
            return Tried(fault, where, Verdict.ERROR, died=True)
        replaced = {device_capture(self.trial.uri, self.trial.variant): _in_place(self.device, wrong)}
        if where == "file" and self.here is not None:
            replaced[host_capture(self.trial.variant)] = _in_place(self.here, wrong)
        found = self._judged(replaced, made)
        codes = {each.code for each in self._findings(found) if each.severity in ("warn", "error", "fail")}
        (trial,) = found.trials
        return Tried(fault, where, trial.verdict, tuple(sorted(codes - self.known)), *self._cost(trial))

    def _taken(self, path: Path) -> Capture:
        model = ModelFile(path, self.device.memory_mode or "normal", sha256_of(path))
        return take(self.host, model, self.cases, [NormalProbe()], self.overlay, trial="audit", role="variant-host")

    def _weighed(self, path: Path) -> Artifact:
        """The artifact, had the quantizer made this file: its weights are held against the float model's."""
        if self.floats is None:
            return self.artifact
        planted = with_rounding(self.artifact.model_copy(update={"path": path, "sha256": sha256_of(path)}), self.floats)
        return self.artifact.model_copy(update={"rounding": planted.rounding})

    def _judged(self, replaced: dict[str, Capture], made: Artifact | None = None) -> Judgement:
        planted = _PlantedRun(self.run.path)
        object.__setattr__(planted, "replaced", replaced)
        object.__setattr__(planted, "artifact", made)
        return judge(planted, self.plan, comparer=self.comparer)

    def _findings(self, judgement: Judgement) -> Iterator[Finding]:
        yield from judgement.findings
        for trial in judgement.trials:
            yield from trial.findings

    def _cost(self, trial: TrialJudgement) -> tuple[float | None, str | None, float | None]:
        """The largest loss of SQNR over the outputs, in dB, of which output, and what it has left; None where an
        output of whole numbers changed, or one is not defined any more."""
        worst: tuple[float | None, str | None, float | None] = (0.0, None, None)
        (sound,) = self.sound.trials
        for output, now in trial.outputs.items():
            before = sound.outputs[output].summary
            if now.summary.problems:
                return None, output, None
            if before.kind == "int":
                if before.values.get("mismatch") != now.summary.values.get("mismatch"):
                    return None, output, None
                continue
            old, new = before.values.get("sqnr_db"), now.summary.values.get("sqnr_db")
            if old is not None and new is not None and old - new > (worst[0] or 0.0):
                worst = old - new, output, new
        return worst


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgequant-audit-") as folder:
        path = Path(folder) / "planted.mnn"
        path.write_bytes(data)
        yield path


def _refused(capture: Capture | None) -> set[str]:
    return set() if capture is None else {each.case for each in capture.cases if each.refused is not None}


def _digests(cases: Sequence[CaseCapture]) -> dict[str, dict[str, str]]:
    return {each.case: {name: ref.sha256 for name, ref in (each.outputs or {}).items()} for each in cases}


def _in_place(kept: Capture, wrong: Capture) -> Capture:
    """What a capture would hold, had it run the faulty file: the same in every inference of a case."""
    outputs = {each.case: each.outputs for each in wrong.cases}
    normal = {each.case: each.outputs for each in wrong.normal}

    def changed(cases: Sequence[CaseCapture], to: dict[str, dict[str, ArrayRef] | None]) -> tuple[CaseCapture, ...]:
        return tuple(
            each.model_copy(update={"outputs": to[each.case]}) if each.outputs is not None and each.case in to else each
            for each in cases
        )

    timings = tuple(
        each.model_copy(update={"outputs": outputs[each.case]})
        if each.outputs is not None and each.case in outputs
        else each
        for each in kept.timings
    )
    settings = tuple(
        each.model_copy(update={"outputs": outputs.get(each.case) or each.outputs}) for each in kept.settings
    )
    return kept.model_copy(
        update={
            "settings": settings,
            "cases": changed(kept.cases, outputs),
            "repeated": changed(kept.repeated, outputs),
            "normal": changed(kept.normal, normal),
            "timings": timings,
        }
    )
