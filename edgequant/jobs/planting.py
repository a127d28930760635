"""A faulty file in the place of the one that was verified: run on this host, and judged as the run was."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgequant.archive.folder import device_capture, host_capture
from edgequant.archive.open import Run
from edgequant.archive.types import Artifact, Capture, CaseCapture
from edgequant.cases.case import Case
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.errors import RunnerError
from edgequant.files import sha256_of
from edgequant.jobs.planted import Overlay, PlantedRun, Tried, Where, digests, findings_of, in_place, refused
from edgequant.jobs.rounding import with_rounding
from edgequant.judge.decisions import LISTS
from edgequant.judge.limits import device_bands
from edgequant.judge.residual import Residuals
from edgequant.judge.rounding import beyond_rounding
from edgequant.judge.run import judge
from edgequant.judge.stages import Comparer, only, summaries
from edgequant.judge.trial import limits_of
from edgequant.judge.types import Judgement, Observed, Summaries, TrialJudgement
from edgequant.judge.verdict import Verdict, judge_output
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.probes.rollout import RolloutProbe
from edgequant.lab.session import Session
from edgequant.lab.take import HOST_DEATHS, ModelFile, Taking, each_case, refusal_of, take
from edgequant.models.mnn.faults import NULL, Fault

FULL_DB = 100.0
"""What an output has that is as good as exact: what it has beyond is nothing that a fault could cost."""
STRAINED_DB = 6.0
"""So much more a fault has to cost a strained case than all others, for such a case to be worth adding."""


class _Rest:
    """What is left to be run of a faulty file, as long as `enough` does not say that what came back so far will do;
    it is asked after each case that is held against limits, and told whether that was the last of them."""

    name = "rest"

    def __init__(self, planter: Planter, enough: Callable[[Taking, bool], bool]) -> None:
        self._planter, self._enough = planter, enough

    def take(self, taking: Taking) -> None:
        for case in self._planter.held[1:]:
            if self._enough(taking, False):
                return
            self.run(taking, [case])
        if self._enough(taking, True):
            return
        self.run(taking, self._planter.strained)
        NormalProbe().take(taking)
        if self._planter.run.source.rollout is not None:
            RolloutProbe(self._planter.run.source.rollout).take(taking)

    @staticmethod
    def run(taking: Taking, cases: Sequence[Case]) -> None:
        """Further cases; what was run already is not run again."""
        left = [case for case in cases if case.name not in taking.cases]
        for case, result in each_case(taking.place, left, deaths=HOST_DEATHS):
            if isinstance(result, RunnerError):
                taking.cases[case.name] = refusal_of(case, result)
            else:
                taking.cases[case.name] = taking.keep(case, result)
                taking.done.append(case)


class Planter:
    """Runs faulty files on this host and has what comes out judged.

    overlay, comparer: of the run; what they know of it already is not compared again.
    """

    def __init__(self, run: Run, trial: TrialJudgement, overlay: Overlay, comparer: Comparer) -> None:
        assert trial.artifact is not None
        assert trial.capture is not None
        self.run, self.trial = run, trial
        self._host: Session | None = None
        self.artifact, self.device = trial.artifact, trial.capture
        self.here = run.on_host(trial.variant)
        self.overlay, self.comparer = overlay, comparer
        self.data = (run.path / self.artifact.path).read_bytes()
        self.plan = run.plan.model_copy(update={"variants": (trial.variant,), "devices": (trial.uri,)})
        self._records: dict[str, Any] = {}
        self._sound: dict[tuple[str, frozenset[str]], OutputSummary] = {}
        cases = [
            Case(name=each.name, inputs=run.inputs(each.name), source=each.source, generated=each.generated,
                 kind=each.kind)
            for each in run.source.cases
        ]  # fmt: skip
        self.held = sorted((case for case in cases if case.kind != "strain"), key=_elements)
        self.strained = [case for case in cases if case.kind == "strain"]
        self._small = [case for case in self.strained if _elements(case) <= _elements(self.held[0])]
        self._expected = only(run.reference, run.source.held)
        self._limits = limits_of(self.plan, run.source, trial.variant)
        self.sound = self._judged({})
        self.known = {each.code for each in findings_of(self.sound)}

    @property
    def host(self) -> Session:
        assert self._host is not None, "a session was given"
        return self._host

    @property
    def is_host(self) -> bool:
        """The device of the run is this host: nobody else says what it should compute."""
        return self.device.device is not None and self.device.device.is_host

    def use(self, host: Session) -> None:
        """Run what is planted in this session."""
        self._host = host

    def beside(self, host: Session) -> Planter:
        """Another one that plants at the same time, in a session of its own."""
        other = copy.copy(self)
        other.overlay = Overlay(self.run.arrays)
        other.comparer = self.comparer.over(other.overlay)
        other.use(host)
        return other

    def same(self) -> bool:
        """Whether the session computes what the run's host did, in every bit of what is held against limits."""
        with _file(self.data) as path:
            now = self._taken(path, lambda _, whole: whole)
        before = {} if self.here is None else digests(self.here.cases)
        return now.failure is None and all(before.get(case) == told for case, told in digests(now.cases).items())

    def plant(self, fault: Fault, where: Where) -> Tried:
        """One fault of the file.

        Looked at first are the cases that are held against limits.  Where these break one, that is the verdict; of a
        fault that costs less than a decibel there is none.  The rest is run and judged of what is left.
        """
        self.overlay.clear()
        early: list[Tried] = []
        with _file(fault.planted(self.data)) as path:
            weighed: list[Artifact] = []

            def made() -> Artifact | None:
                if where == "file" and not weighed:
                    weighed.append(self._weighed(path))
                return weighed[0] if weighed else None

            def enough(taking: Taking, whole: bool) -> bool:
                found = self._early(fault, where, taking, made) if whole else self._at_once(fault, where, taking)
                early.extend([] if found is None else [found])
                return found is not None

            wrong = self._taken(path, enough)
            if early and wrong.failure is None:
                return early[0]
            if wrong.failure is not None or refused(wrong) - refused(self.here):
                return Tried(fault, where, Verdict.ERROR, died=True)
            return self._helped(self.judged(fault, where, wrong, made()), wrong)

    def _at_once(self, fault: Fault, where: Where, taking: Taking) -> Tried | None:
        """A fault that breaks a limit in the cases that came back so far; None where more has to be looked at."""
        found = self._found(taking)
        if fault.kind == NULL or found is None or not self._breaks(found):
            return None
        tried = Tried(fault, where, Verdict.FAIL, (), *self._cost(found))
        return tried if tried.counts else None

    def _found(self, taking: Taking) -> Summaries | None:
        """What came back so far against the reference; None where something did not."""
        cases = tuple(taking.cases.values())
        if any(each.outputs is None for each in cases):
            return None
        return summaries(self.comparer.each(self._expected.cases, cases, self.run.source.kinds))

    def _early(self, fault: Fault, where: Where, taking: Taking, made: Callable[[], Artifact | None]) -> Tried | None:
        """What can be said of it by the cases that are held against limits; None where more has to be looked at."""
        if (found := self._found(taking)) is None:
            return None
        tried = Tried(fault, where, None, (), *self._cost(found))
        if self._breaks(found):
            return replace(tried, verdict=Verdict.FAIL)
        wrong = Capture(trial="audit", role="variant-host", cases=tuple(taking.cases.values()))
        if fault.kind == NULL:
            return self.judged(fault, where, wrong, made())
        if not tried.counts:
            _Rest.run(taking, self._small)
            return replace(tried, strained=self._strained(tried, tuple(taking.cases.values())))
        if not self.is_host:
            return None
        for look in self._looks(wrong, made):
            if look.verdict is Verdict.FAIL:
                return replace(tried, verdict=look.verdict, codes=tuple(sorted({each.code for each in look.findings})))
        # Memory normal and strained cases as if they were sound: what is caught without them is caught.
        judged = self.judged(fault, where, wrong, made())
        if judged.caught or self.run.source.rollout is not None:
            return judged if judged.caught else None
        _Rest.run(taking, self.strained)
        if not self._unbroken(taking):
            return None
        NormalProbe().take(taking)
        every = wrong.model_copy(update={"cases": tuple(taking.cases.values()), "normal": tuple(taking.normal)})
        return self._helped(judged, every)

    def _looks(self, wrong: Capture, made: Callable[[], Artifact | None]) -> Iterator[Observed]:
        """What fails a run without all the rest being judged; each costs more than the one before."""
        weighed = made()
        if weighed is not None:
            yield beyond_rounding(weighed)
        residuals, base = Residuals(self.comparer, self.run.source), self.run.float_host or self.run.reference
        if "quantization" not in self.sound.trials[0].stages.why:
            yield residuals.observed("quantization", base, wrong, self.run.source.kinds)

    def _unbroken(self, taking: Taking) -> bool:
        """Strained cases came out as numbers, where the reference's did: nothing else of them decides."""
        names, kinds = {case.name for case in self.strained}, self.run.source.kinds
        cases = [each for each in taking.cases.values() if each.case in names]
        found = self.comparer.each(self.run.reference.cases, cases, kinds)
        return all(each.outputs is not None for each in cases) and all(
            each.problem in (None, "reference_nonfinite") for by_case in found.values() for each in by_case.values()
        )

    def judged(self, fault: Fault, where: Where, wrong: Capture, made: Artifact | None) -> Tried:
        """What is said of it with a faulty file's capture in the device's place, or in both."""
        replaced = {self.device_name: in_place(self.device, wrong)}
        if where == "file" and self.here is not None:
            replaced[host_capture(self.trial.variant)] = in_place(self.here, wrong)
        return self.tried(fault, where, replaced, made)

    def tried(self, fault: Fault, where: Where, replaced: dict[str, Capture], made: Artifact | None = None) -> Tried:
        """The same with any captures in the places of others."""
        found = self._judged(replaced, made)
        codes = {each.code for each in findings_of(found) if each.severity in ("warn", "error", "fail")}
        (trial,) = found.trials
        now = {name: output.summary for name, output in trial.outputs.items()}
        told = Tried(fault, where, trial.verdict, tuple(sorted(codes - self.known)), *self._cost(now))
        most, output, left = max(self._along(trial), default=(0.0, None, None))
        costs_more = told.cost_db is not None and most > told.cost_db
        return replace(told, cost_db=most, output=output, sqnr_db=left) if costs_more else told

    def _along(self, trial: TrialJudgement) -> Iterator[tuple[float, str, float]]:
        """What it costs along the steps of a rollout: (dB, output, dB that are left), by octave."""
        for name, before in self.sound.trials[0].drift.outputs.items():
            old, new = (each.curves.get("total") if each else None for each in (before, trial.drift.outputs.get(name)))
            if old is not None and new is not None:
                for (_, was), (_, left) in zip(old.octaves, new.octaves, strict=False):
                    yield min(was, FULL_DB) - left, name, left

    @property
    def device_name(self) -> str:
        """Of the capture that a fault takes the place of."""
        return device_capture(self.trial.uri, self.trial.variant)

    def _breaks(self, found: Summaries) -> bool:
        """Whether a limit is broken, whatever the other cases say.  A list is matched row by row before it is judged,
        and of constants it depends on the other cases: these are left out."""
        return any(
            judge_output(summary, self._limits[name]).verdict is Verdict.FAIL
            for name, summary in found.items()
            if self.run.source.decisions.get(name) not in LISTS
            and not summary.zero_cases
            and not summary.constant_cases
        )

    def _helped(self, tried: Tried, wrong: Capture) -> Tried:
        """With what would have caught it, where it was missed."""
        if tried.caught:
            return tried
        second = tried.counts and tried.where == "device" and self.is_host and self._outside(wrong)
        return replace(tried, second=second, strained=self._strained(tried, wrong.cases))

    def _outside(self, wrong: Capture) -> bool:
        """Whether any device but this host would be outside the band of rounding with what came back."""
        assert self.here is not None
        options, kinds = self.run.plan.options, self.run.source.kinds
        method = "static" if self.artifact.facts.static else self.artifact.run_as.method
        looks = [(method, self.here.cases, wrong.cases), ("weight", self.here.normal, wrong.normal)]
        return any(
            (each.sqnr_db is not None and each.sqnr_db < bands[name].value) or bool(each.problem)
            for way, expected, got in looks
            for bands in [device_bands(kinds, way, options.precision, self.run.plan.limits)]
            for name, by_case in self.comparer.each(expected, got, [*bands]).items()
            for case, each in by_case.items()
            if case in self.run.source.held and not each.exact
        )

    def _strained(self, tried: Tried, cases: Sequence[CaseCapture]) -> str | None:
        """The strained case that shows it best, if it does so far better than all that are held against limits."""
        if self.here is None or tried.cost_db is None:
            return None
        names = self.run.source.kinds
        before = self.comparer.each(self.run.reference.cases, self.here.cases, names)
        now = self.comparer.each(self.run.reference.cases, cases, names)
        found = [
            (old.sqnr_db - new.sqnr_db, case)
            for name, cases in now.items()
            for case, new in cases.items()
            for old in [before.get(name, {}).get(case)]
            if case not in self.run.source.held and old is not None
            and old.sqnr_db is not None and new.sqnr_db is not None
        ]  # fmt: skip
        most, case = max(found, default=(0.0, ""))
        return case if most >= tried.cost_db + STRAINED_DB else None

    def _taken(self, path: Path, enough: Callable[[Taking, bool], bool]) -> Capture:
        model = ModelFile(path, self.device.memory_mode or "normal", sha256_of(path))
        return take(
            self.host, model, self.held[:1], [_Rest(self, enough)], self.overlay, trial="audit", role="variant-host"
        )

    def _weighed(self, path: Path) -> Artifact:
        """The artifact, had the quantizer made this file: its weights are held against the float model's."""
        floats = self.run.float_file
        if floats is None:
            return self.artifact
        planted = with_rounding(self.artifact.model_copy(update={"path": path, "sha256": sha256_of(path)}), floats)
        return self.artifact.model_copy(update={"rounding": planted.rounding, "scales": planted.scales})

    def _judged(self, replaced: dict[str, Capture], made: Artifact | None = None) -> Judgement:
        planted = PlantedRun(self.run.path)
        for name, value in (("replaced", replaced), ("artifact", made), ("records", self._records)):
            object.__setattr__(planted, name, value)
        return judge(planted, self.plan, comparer=self.comparer)

    def _cost(self, found: Summaries) -> tuple[float | None, str | None, float | None]:
        """The largest loss of SQNR over the outputs, in dB, of which output, and what it has left; None where an
        output of whole numbers changed, or one is not defined any more."""
        worst: tuple[float | None, str | None, float | None] = (0.0, None, None)
        for output, now in found.items():
            before = self._before(output, frozenset(now.by_case))
            if now.problems:
                return None, output, None
            if before.kind == "int":
                if before.values.get("mismatch") != now.values.get("mismatch"):
                    return None, output, None
                continue
            old, new = before.values.get("sqnr_db"), now.values.get("sqnr_db")
            if old is not None and new is not None and min(old, FULL_DB) - new > (worst[0] or 0.0):
                worst = min(old, FULL_DB) - new, output, new
        return worst

    def _before(self, output: str, cases: frozenset[str]) -> OutputSummary:
        """The sound file in these cases."""
        if (output, cases) not in self._sound:
            known = self.sound.trials[0].outputs[output].summary.by_case
            self._sound[output, cases] = summarize({case: known[case] for case in cases if case in known})
        return self._sound[output, cases]


def _elements(case: Case) -> int:
    return sum(array.size for array in case.inputs.values())


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgequant-audit-") as folder:
        path = Path(folder) / "planted.mnn"
        path.write_bytes(data)
        yield path
