"""Which cases a run has: what the reference answers, and, of random ones, what is drawn or left out in their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgequant.archive.folder import RunFolder
from edgequant.archive.types import CaseCapture
from edgequant.cases.case import Case
from edgequant.cases.generate import more_sizes, redrawn, spare
from edgequant.cases.strain import strained
from edgequant.cases.whole_numbers import checked
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.jobs.remarks import NOTHING, dropped, not_reached
from edgequant.reference.reference import CaseRefused, Reference
from edgequant.tensors import TensorSpec

_DRAWS = 4
"""So often a case is drawn whose outputs are not finite; then it is left out."""


def answer_given(
    reference: Reference, cases: Sequence[Case], folder: RunFolder
) -> tuple[list[Case], list[CaseCapture]]:
    """The user's cases, all of them, and what the reference makes of them.  Raises InputError (CASE_REFUSED)."""
    captured = []
    for case in cases:
        try:
            outputs = reference.run(case)
        except CaseRefused as refusal:
            raise InputError(
                "CASE_REFUSED",
                f"{case.source}: {reference.name} cannot run the model with it: {refusal.reason}",
                hint="Check shapes and values of this case.",
            ) from None
        captured.append(_kept(case, outputs, folder))
    return list(cases), captured


@dataclass(frozen=True)
class RandomCases:
    """Where more random cases come from.

    Attributes:
        rows: inputs that are row numbers -> of how many.
        counts: the graph counts what it finds in the numbers, so that an output without elements is an answer.
    """

    inputs: Sequence[TensorSpec]
    seed: int
    rows: Mapping[str, int] = field(default_factory=dict)
    counts: bool = False


@dataclass
class _Answers:
    """What is kept so far, and of what was not kept why."""

    reference: Reference
    random: RandomCases
    folder: RunFolder
    kept: list[Case] = field(default_factory=list)
    captured: list[CaseCapture] = field(default_factory=list)
    refused: dict[str, tuple[Case, str]] = field(default_factory=dict)
    infinite: list[str] = field(default_factory=list)
    hollow: list[Case] = field(default_factory=list)

    def ask(self, case: Case, *, hollow: bool = False) -> bool:
        """Whether it is kept.  hollow: also where no output has an element."""
        for attempt in range(_DRAWS):
            (case,) = checked([case], self.random.rows)
            try:
                outputs = self.reference.run(case)
            except CaseRefused as refusal:
                self.refused[case.name] = (case, refusal.reason)
                return False
            if not hollow and self._says_nothing(outputs):
                self.refused[case.name] = (case, NOTHING)
                self.hollow.append(case)
                return False
            last = case.kind == "strain" or attempt == _DRAWS - 1
            finite = all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f")
            if finite or (last and case.kind == "usual"):
                # Where no draw is any better, the reference itself is what has to be told of.
                self.captured.append(_kept(case, outputs, self.folder))
                self.kept.append(case)
                return True
            if last:
                break
            case = redrawn(case, self.random.inputs, self.random.seed, attempt + 1)
        self.infinite.append(case.name)
        return False

    def _says_nothing(self, outputs: Mapping[str, np.ndarray]) -> bool:
        """At these sizes no output has an element, as of a sound that is shorter than a window: MNN need not run it."""
        by_size = not self.random.counts and any(spec.dynamic for spec in self.random.inputs)
        return by_size and bool(outputs) and all(array.size == 0 for array in outputs.values())


def answer_random(
    reference: Reference, cases: Sequence[Case], random: RandomCases, folder: RunFolder
) -> tuple[list[Case], list[CaseCapture], list[Finding]]:
    """The random cases that the reference can run, with other sizes and values beside them, and what is to be said of
    those it cannot run.

    A usual case that is refused has others take its place; one whose outputs are not finite is drawn again.  Of other
    sizes and strained values, those that give no finite outputs are left out.
    """
    answers = _Answers(reference, random, folder)
    waiting, more = deque(cases), deque(spare(random.inputs, random.seed))
    while waiting or (more and len(answers.kept) < len(cases)):
        answers.ask(waiting.popleft() if waiting else more.popleft())
    if not answers.kept:  # then nothing is what this model gives
        for case in answers.hollow:
            answers.refused.pop(case.name)
            answers.ask(case, hollow=True)
    findings = [dropped(case, reason, reference.name) for case, reason in answers.refused.values()]
    if not answers.kept:
        return [], [], findings
    answers.refused.clear()
    beside = [*more_sizes(random.inputs, random.seed), *strained(_smallest(answers.kept), random.inputs, random.rows)]
    for case in beside:
        answers.ask(case)
    findings += not_reached(answers.refused.values(), answers.infinite, reference.name)
    return answers.kept, answers.captured, findings


def _smallest(cases: Sequence[Case]) -> Case:
    return min(cases, key=lambda case: sum(array.size for array in case.inputs.values()))


def _kept(case: Case, outputs: Mapping[str, np.ndarray], folder: RunFolder) -> CaseCapture:
    refs = {name: folder.array_folder.put(array) for name, array in outputs.items()}
    folder.save_case(case.name, case.inputs)
    return CaseCapture(case=case.name, outputs=refs)
