"""Where in the folder of an acceptance each attempt at each trial is."""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.archive.acceptance import AcceptFolder, AcceptPlan, PartFailure, PlannedTrial, read_record
from edgequant.archive.open import Run, open_run
from edgequant.spec.accept import TrialKey


class Runs:
    """Where in a folder each attempt at each trial is."""

    def __init__(self, folder: AcceptFolder, plan: AcceptPlan) -> None:
        self._folder = folder
        self._planned = {key_of(each): each for each in plan.trials}

    def all(self, key: TrialKey) -> Iterator[tuple[int, Run | PartFailure]]:
        """(number, the folder of verify it is in, or why there is none) of each attempt, the first first."""
        trial = self._planned[key]
        for number, path in self._folder.attempts(trial.part):
            if path.name.endswith(".error.json"):
                failed = read_record(path, PartFailure)
                if tuple(key) in failed.trials:
                    yield number, failed
            elif (path / "plan.json").exists():
                run = open_run(path)
                if trial.uri in run.plan.devices and trial.method in map(str, run.plan.variants):
                    yield number, run

    def of(self, key: TrialKey, attempt: int) -> Run | None:
        found = [run for number, run in self.all(key) if number == attempt and isinstance(run, Run)]
        return found[-1] if found else None

    def newest(self, key: TrialKey, attempt: int) -> Run | None:
        """The last up to an attempt."""
        found = [run for number, run in self.all(key) if number <= attempt and isinstance(run, Run)]
        return found[-1] if found else None


def key_of(trial: PlannedTrial) -> TrialKey:
    return TrialKey(trial.model, trial.variant, trial.device)
