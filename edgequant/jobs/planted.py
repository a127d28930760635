"""A planted fault, what was said of it, and a run in which it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgequant.archive.arrays import ArrayFolder, MemoryArrays
from edgequant.archive.open import Run
from edgequant.archive.rollout import RolloutCapture
from edgequant.archive.types import ArrayRef, Artifact, Capture, CaseCapture, Making
from edgequant.findings import Finding
from edgequant.judge.types import Judgement
from edgequant.judge.verdict import GOOD, Verdict
from edgequant.models.mnn.faults import Fault
from edgequant.spec import Variant

Where = Literal["device", "file"]
"""The fault is the device's alone, or in the file as it was made, on both sides."""


@dataclass(frozen=True)
class Tried:
    """A fault and what was said of it.

    Attributes:
        verdict: of the trial it was planted into; None where it costs less than a decibel, and was not judged.
        codes: of findings at "warn" or above that the run itself does not have; of what a limit caught at once, none.
        cost_db: how much SQNR the output loses that loses most; None where that is not defined.
        output, sqnr_db: which that is, and what it has left.
        died: MNN crashed on the file, or refused it: nobody can miss that.
        second: a device of its own would be outside its band with this, where the device is this host.
        strained: the case with strained values that it costs far more than those which are held against limits.
    """

    fault: Fault
    where: Where
    verdict: Verdict | None
    codes: tuple[str, ...] = ()
    cost_db: float | None = None
    output: str | None = None
    sqnr_db: float | None = None
    died: bool = False
    second: bool = False
    strained: str | None = None

    @property
    def caught(self) -> bool:
        """It is not released."""
        return self.verdict is not None and self.verdict not in GOOD

    @property
    def warned(self) -> bool:
        return not self.caught and bool(self.codes)

    @property
    def counts(self) -> bool:
        """It costs a decibel or more, or a number that has none."""
        return self.died or self.cost_db is None or self.cost_db >= 1.0


class Overlay:
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


class PlantedRun(Run):
    """A run with other captures in the place of some, and perhaps another artifact in the place of all; what it reads,
    it reads once for all faults."""

    replaced: dict[str, Capture]
    artifact: Artifact | None
    records: dict[str, Any]

    def capture(self, name: str) -> Capture | None:
        return self.replaced.get(name) or super().capture(name)

    def making(self, variant: Variant) -> Making | None:
        return super().making(variant) if self.artifact is None else Making(variant=variant, artifact=self.artifact)

    def _read(self, name: str, model: Any) -> Any:
        if name not in self.records:
            self.records[name] = super()._read(name, model)
        return self.records[name]


def findings_of(judgement: Judgement) -> Iterator[Finding]:
    yield from judgement.findings
    for trial in judgement.trials:
        yield from trial.findings


def refused(capture: Capture | None) -> set[str]:
    return set() if capture is None else {each.case for each in capture.cases if each.refused is not None}


def digests(cases: Sequence[CaseCapture]) -> dict[str, dict[str, str]]:
    return {each.case: {name: ref.sha256 for name, ref in (each.outputs or {}).items()} for each in cases}


def rolled(capture: RolloutCapture | None) -> dict[str, tuple[str, str]]:
    """Of each output of a rollout, by what it would be known again."""
    found = {} if capture is None else capture.outputs
    return {name: (each.kept.sha256, each.stats.sha256) for name, each in found.items()}


def in_place(kept: Capture, wrong: Capture) -> Capture:
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
    rollout = kept.rollout
    if rollout is not None and wrong.rollout is not None:
        rollout = wrong.rollout.model_copy(update={"moved": rollout.moved})
    return kept.model_copy(
        update={
            "settings": settings,
            "cases": changed(kept.cases, outputs),
            "repeated": changed(kept.repeated, outputs),
            "normal": changed(kept.normal, normal),
            "timings": timings,
            "rollout": rollout,
        }
    )
