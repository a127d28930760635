"""Many steps of a streaming model, its outputs fed back: the errors that no single inference shows.

The steps themselves are one request, in the runner.  Beside them some of the steps are run by themselves, each from the
state that came back: what the loop did with the state shows in every bit, whatever CPU it ran on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.record import ArrayRef, Failure
from edgequant.archive.rollout import Replay, Rolled, Rollout, RolloutCapture
from edgequant.errors import RunnerError
from edgequant.lab.probes.rounding import FLOAT_NOISE, INT8_NOISE, flags, noisy
from edgequant.lab.take import Place, Taking
from edgequant.runner.rolling import Asked, RollResult

Arrays = dict[str, np.ndarray]
REPLAYS = 12
"""Steps that are run by themselves, at most."""
AGAIN = 4
"""First steps that are run once more."""
REFUSALS = ("INFERENCE_FAILED", "FEEDBACK_MISSING", "FEEDBACK_SHAPE", "ROLLOUT_SHAPE")


class Roller(Protocol):
    """What runs a model: one step, or all of them."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays: ...

    def roll(self, asked: Asked) -> RollResult: ...


class PlaceRoller:
    """A model in a device's runner."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._names = [entry.name for entry in place.loaded.answer.inputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        known = {name: inputs[name] for name in self._names}
        return self._place.runner.run(self._place.loaded, known).outputs

    def roll(self, asked: Asked) -> RollResult:
        return self._place.runner.roll(self._place.loaded, asked)


def asked_of(rollout: Rollout, get: Callable[[ArrayRef], np.ndarray]) -> Asked:
    return Asked(
        rollout.steps,
        rollout.feedback,
        {name: get(ref) for name, ref in rollout.start.items()},
        {name: get(ref) for name, ref in rollout.frames.items()},
    )


def take_rollout(roller: Roller, rollout: Rollout, sink: ArraySink, *, noise: float | None = None) -> RolloutCapture:
    """Roll it out.  noise: of a number, by which start and frames are moved for one rollout more; None: not.

    What MNN refuses is in the capture.  Raises DeviceError, as every request does.
    """
    asked = asked_of(rollout, sink.get)
    try:
        whole = roller.roll(asked)
        found = RolloutCapture(
            done=whole.done,
            ms=max(whole.ms, 0.0),
            outputs={
                name: Rolled(steps=each.steps, kept=sink.put(each.kept), stats=sink.put(each.stats))
                for name, each in whole.outputs.items()
            },
            replays=tuple(_replays(roller, asked, whole, sink)),
        )
        first = roller.roll(Asked(min(AGAIN, whole.done), asked.feedback, asked.start, asked.frames))
        again = {name: sink.put(each.kept) for name, each in first.outputs.items()}
        moved = {} if noise is None else _moved(roller, asked, whole, noise)
    except RunnerError as error:
        if error.code not in REFUSALS:
            raise
        return RolloutCapture(failure=Failure.of(error))
    return found.model_copy(update={"again": again, "moved": {name: sink.put(each) for name, each in moved.items()}})


def _replays(roller: Roller, asked: Asked, whole: RollResult, sink: ArraySink) -> list[Replay]:
    """Steps by themselves: the second with each state's first value in turn, and a spread of all with the state that
    the step before gave."""
    found = []
    for step in replayed_steps(asked, whole):
        state = {name: _of_step(whole, output, step - 1) for name, output in asked.feedback.items()}
        for fixed in (None, *asked.feedback) if step == 2 else (None,):
            fed = state if fixed is None else {**state, fixed: asked.start[fixed]}
            outputs = roller.run(asked.inputs(step, fed))
            refs = {name: sink.put(array) for name, array in outputs.items()}
            found.append(Replay(step=step, fixed=fixed, outputs=refs))
    return found


def replayed_steps(asked: Asked, whole: RollResult) -> list[int]:
    """Those of which the state before them came back, evenly spread in the logarithm, the second and the last among
    them."""
    if any(output not in whole.outputs for output in asked.feedback.values()):
        return []
    known = set.intersection(*(set(each.steps) for each in whole.outputs.values()))
    possible = sorted(step for step in known if step - 1 in known and step <= whole.done)
    if len(possible) <= REPLAYS:
        return possible
    marks = np.geomspace(possible[0], possible[-1], REPLAYS)
    return sorted({min(possible, key=lambda step: abs(math.log(step / mark))) for mark in marks})


def _of_step(whole: RollResult, output: str, step: int) -> np.ndarray:
    found: np.ndarray = whole.outputs[output].kept[whole.outputs[output].steps.index(step)]
    return found


def _moved(roller: Roller, asked: Asked, whole: RollResult, noise: float) -> Arrays:
    """The same steps as `whole` has, with start and frames moved, always in the same way."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(b"rollout").digest()[:8], "little"))

    given = {**asked.start, **asked.frames}
    floats = {name for name, array in given.items() if array.dtype.kind == "f" and array.size and array.any()}
    moving = floats - flags([given]) or floats

    def move(name: str, array: np.ndarray) -> np.ndarray:
        return noisy(array, rng, noise) if name in moving else array

    start = {name: move(name, array) for name, array in asked.start.items()}
    frames = {name: move(name, array) for name, array in asked.frames.items()}
    other = roller.roll(Asked(asked.steps, asked.feedback, start, frames))
    return {name: each.kept for name, each in other.outputs.items() if each.steps == whole.outputs[name].steps}


class RolloutProbe:
    """moved: of this host, how far rounding carries it as well; int8: the file may run layers in int8."""

    name = "rollout"

    def __init__(self, rollout: Rollout, *, moved: bool = False, int8: bool = False) -> None:
        self._rollout = rollout
        self._noise = (INT8_NOISE if int8 else FLOAT_NOISE) if moved else None

    def take(self, taking: Taking) -> None:
        taking.rollout = take_rollout(PlaceRoller(taking.place), self._rollout, taking.sink, noise=self._noise)
