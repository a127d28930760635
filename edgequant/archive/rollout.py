"""A rollout as data: what is fed back into what, and what came of it.  Steps are counted from 1."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgequant.archive.record import ArrayRef, Failure, Name, Record


class Rollout(Record):
    """What is rolled out, the same for the reference, float MNN, and each file here and there.

    Attributes:
        feedback: input -> the output of the step before that is fed into it.
        found: it was found by names and shapes, not given.
        start: of those inputs, what step 1 gets.
        frames: of all other inputs, what the steps get, stacked; after the last comes the first again.
        cases: those that the frames are, in order; empty where they were drawn at random.
    """

    steps: int = Field(ge=2, le=10_000)
    feedback: dict[Name, Name]
    found: bool = False
    start: dict[Name, ArrayRef]
    frames: dict[Name, ArrayRef] = Field(default_factory=dict)
    cases: tuple[Name, ...] = ()


class Rolled(Record):
    """One output.  steps: those that are in `kept`, [steps, *shape].  stats: [steps run, 5], of each step smallest,
    largest, mean, root mean square, and how many numbers are not finite."""

    steps: tuple[int, ...]
    kept: ArrayRef
    stats: ArrayRef


class Replay(Record):
    """One step by itself, in an inference of its own: its frame, and the state that the step before had given.

    fixed: the one input that got its first value instead; None: none did.
    """

    step: int = Field(ge=2)
    fixed: Name | None = None
    outputs: dict[Name, ArrayRef] = Field(default_factory=dict)


class Setting(Record):
    """A case once more: with another number of threads, or after another model was run in the same process."""

    kind: Literal["threads", "model"]
    case: Name
    threads: int | None = None
    outputs: dict[Name, ArrayRef] = Field(default_factory=dict)


class RolloutCapture(Record):
    """What one of them made of it.

    Attributes:
        done: steps that were run; fewer than asked for where time ran out.  ms: for all of them.
        replays: some steps by themselves.
        again: the first steps once more, from the start: output -> [steps, *shape].
        moved: of this host and the reference only: the whole once more with start and frames moved by next to nothing;
            the same steps.
        failure: why there is nothing, or not all of it.
    """

    done: int = Field(default=0, ge=0)
    ms: float | None = None
    outputs: dict[Name, Rolled] = Field(default_factory=dict)
    replays: tuple[Replay, ...] = ()
    again: dict[Name, ArrayRef] = Field(default_factory=dict)
    moved: dict[Name, ArrayRef] = Field(default_factory=dict)
    failure: Failure | None = None
