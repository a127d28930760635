"""The host's end of a rollout: one request for all of its steps, and an answer that is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgequant.deadline import Deadline
from edgequant.device_scripts.rollout import MAX_STEPS, STATS
from edgequant.runner.session import RunnerSession

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """steps: how many.  feedback: input -> output.  start: first values of these inputs.  frames: of all others,
    stacked; they come round again."""

    steps: int
    feedback: Mapping[str, str]
    start: Arrays
    frames: Arrays

    def of(self, names: list[str]) -> Asked:
        """For a model that has these inputs only: the converter drops those that nothing reads."""
        return Asked(
            self.steps,
            {name: output for name, output in self.feedback.items() if name in names},
            {name: array for name, array in self.start.items() if name in names},
            {name: array for name, array in self.frames.items() if name in names},
        )

    def inputs(self, step: int, state: Arrays) -> dict[str, np.ndarray]:
        """What a step gets, counted from 1."""
        return {name: array[(step - 1) % len(array)] for name, array in self.frames.items()} | dict(state)


@dataclass(frozen=True)
class RolledOutput:
    """One output: the steps that came back, stacked, and statistics of all of them."""

    steps: tuple[int, ...]
    kept: np.ndarray
    stats: np.ndarray


@dataclass(frozen=True)
class RollResult:
    """done: steps that were run, in so many milliseconds."""

    outputs: dict[str, RolledOutput]
    done: int
    ms: float


class RollAnswer(BaseModel):
    """What the runner says of it."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    done: int = Field(ge=1, le=MAX_STEPS)
    ms: float = Field(allow_inf_nan=False)
    outputs: list[str] = Field(max_length=100_000)
    kept: list[list[int]] = Field(max_length=100_000)


def roll(session: RunnerSession, handle: int, asked: Asked, *, seconds: float, outputs: list[str]) -> RollResult:
    """Run it.  seconds: that the steps may take; what is not done by then is left out.  outputs: of the model.

    Raises RunnerError (INFERENCE_FAILED, FEEDBACK_MISSING, FEEDBACK_SHAPE, ROLLOUT_SHAPE), as every request does.
    """
    header = {"handle": handle, "steps": asked.steps, "feedback": dict(asked.feedback), "max_seconds": seconds}
    tensors = {f"start/{name}": array for name, array in asked.start.items()}
    tensors |= {f"frames/{name}": array for name, array in asked.frames.items()}
    told, arrays = session.request("rollout", header, tensors, deadline=Deadline(2 * seconds + 60))
    answer = session.checked(RollAnswer, told)
    if answer.done > asked.steps or sorted(answer.outputs) != sorted(outputs) or len(answer.kept) != len(outputs):
        raise session.broken("it rolled out something else than it was asked to")
    found = {}
    for index, name in enumerate(answer.outputs):
        kept, stats, steps = arrays.get(f"kept/{index}"), arrays.get(f"stats/{index}"), answer.kept[index]
        ordered = all(one < other for one, other in pairwise(steps))
        if kept is None or stats is None or not steps or not ordered or steps[0] != 1 or steps[-1] > answer.done:
            raise session.broken(f"it does not say which steps of '{name[:80]}' it brings back")
        if kept.shape[:1] != (len(steps),) or stats.shape != (answer.done, STATS) or stats.dtype != np.float64:
            raise session.broken(f"it brings back other steps of '{name[:80]}' than it says")
        found[name] = RolledOutput(tuple(steps), kept, stats)
    return RollResult(found, answer.done, answer.ms)
