"""What a run's rollout is, and what the source's own runtime makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.rollout import Rollout, RolloutCapture
from edgequant.archive.types import CaseCapture
from edgequant.cases.case import Case, usual
from edgequant.cases.generate import redrawn
from edgequant.cases.rollout import DEFAULT_STEPS, check_feedback, find_feedback, parse_feedback
from edgequant.cases.whole_numbers import checked
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.jobs.reference_cases import RandomCases
from edgequant.lab.probes.rollout import take_rollout
from edgequant.lab.probes.rounding import FLOAT_NOISE
from edgequant.plan.request import Request
from edgequant.reference.reference import CaseRefused, FileReference, Reference
from edgequant.runner.rolling import Asked, RollResult

FRAMES, FRAME_BYTES = 64, 32 << 20
"""So many random frames, and so many bytes of frames, at most; then they come round again."""


def rollout_of(
    request: Request, cases: Sequence[Case], captured: Sequence[CaseCapture], random: RandomCases, sink: ArraySink
) -> Rollout | None:
    """What is rolled out; None where nobody asked for it.

    The first usual case says sizes and, where it is the user's, the first state; random ones begin with zeros.  All
    other inputs come from the usual cases of these sizes, in order and then over again, or are drawn at random.

    Raises InputError (FEEDBACK_...).
    """
    if request.rollout is None and not request.feedback:
        return None
    known = {each.case: each.outputs for each in captured}
    first = next((case for case in usual(cases) if known.get(case.name)), None)
    if first is None:
        raise InputError("CASES_EMPTY", "no case was run, so there is nothing to roll out")
    outputs = {name: sink.get(ref) for name, ref in (known[first.name] or {}).items()}
    feedback = parse_feedback(request.feedback)
    check_feedback(feedback, first.inputs, outputs)
    found = not feedback
    feedback = feedback or find_feedback(first.inputs, outputs)
    rest = {name: array for name, array in first.inputs.items() if name not in feedback}
    size = sum(array.nbytes for array in rest.values())
    most = max(1, FRAME_BYTES // max(size, 1))
    if first.generated:
        drawn = (redrawn(first, random.inputs, random.seed, 1000 + index) for index in range(min(FRAMES, most)))
        frames = checked(list(drawn), random.rows)
    else:
        frames = [case for case in usual(cases) if case.shapes == first.shapes][:most]
    return Rollout(
        steps=request.rollout or DEFAULT_STEPS,
        feedback=feedback,
        found=found,
        start={
            name: sink.put(np.zeros_like(first.inputs[name]) if first.generated else first.inputs[name])
            for name in feedback
        },
        frames={name: sink.put(np.stack([case.inputs[name] for case in frames])) for name in rest},
        cases=() if first.generated else tuple(case.name for case in frames),
    )


class _ReferenceRoller:
    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._reference.run(Case("step", inputs, "rollout"))

    def roll(self, asked: Asked) -> RollResult:
        return self._reference.roll(asked)


def roll_reference(reference: Reference, rollout: Rollout, sink: ArraySink) -> RolloutCapture | None:
    """What the reference makes of it; None where it consists of files.  Raises InputError (ROLLOUT_REFUSED)."""
    if isinstance(reference, FileReference):
        return None
    try:
        return take_rollout(_ReferenceRoller(reference), rollout, sink, noise=FLOAT_NOISE)
    except CaseRefused as refusal:
        raise InputError(
            "ROLLOUT_REFUSED",
            f"{reference.name} cannot roll the model out: {refusal.reason}",
            hint="Check what --feedback names, and pin sizes with --shape.",
        ) from None


def rollout_findings(rollout: Rollout) -> list[Finding]:
    """What is to be known of it before anything is judged."""
    if not rollout.found:
        return []
    pairs = ", ".join(f"{output}={name}" for name, output in rollout.feedback.items())
    return [
        Finding(
            code="FEEDBACK_FOUND",
            severity="info",
            message=f"fed back, as names and shapes tell: {pairs}",
            evidence={"feedback": dict(rollout.feedback)},
            remedy="If that is wrong, say which: --feedback OUTPUT=INPUT.",
        )
    ]
