"""A streaming model's steps one after another, its outputs fed back into its inputs: one request for all of them.

Knows no engine: `roll` is given what runs one step, so that a reference runtime on the host does the same.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from .server import Answer, Job, JobError, Tensors

MAX_STEPS = 10000
KEPT_BYTES = 4 << 20
"""Of one output, at 4 bytes an element: all steps are brought back where they fit, else some of them."""
FEWEST = 4
"""Steps that are brought back of each output, however large it is: the first, the second, the last and that before."""
STATS = 5
"""Of each output in each step: smallest, largest, mean, root mean square, and how many are not finite."""

Step = Callable[[Dict[str, np.ndarray]], Mapping[str, np.ndarray]]


def kept_steps(count: int, elements: int) -> List[int]:
    """Which of the steps 1 to `count` are brought back of an output: the same on every machine.

    All, or 1, 2 and a spread that is even in the logarithm, each with the step before it (what is fed back into it).
    """
    room = max(FEWEST, KEPT_BYTES // (4 * max(1, elements)))
    if count <= room:
        return list(range(1, count + 1))
    marks, step = [], 2.0
    while step < count:
        marks.append(int(step))
        step *= 2**0.5
    while len(_pairs([*marks, count])) > room and marks:
        marks = marks[1::2]
    return _pairs([*marks, count])


def _pairs(marks: List[int]) -> List[int]:
    return sorted({1, 2} | {step for mark in marks for step in (mark - 1, mark) if step > 0})


def asked(job: Job) -> Tuple[int, Dict[str, str], float, Dict[str, np.ndarray], Dict[str, np.ndarray]]:
    """Steps, input -> output, seconds, first values of what is fed back, and frames of the rest, one after another."""
    steps, feedback, seconds = job.header["steps"], job.header["feedback"], job.header["max_seconds"]
    if type(steps) is not int or not 2 <= steps <= MAX_STEPS:
        raise JobError("REQUEST_INVALID", "a rollout has 2 to %d steps" % MAX_STEPS)
    if not isinstance(feedback, dict) or not all(isinstance(name, str) for name in feedback.values()):
        raise JobError("REQUEST_INVALID", "feedback is not a table of names")
    if type(seconds) not in (int, float) or not 0 < seconds <= 86400:
        raise JobError("REQUEST_INVALID", "a rollout takes a day at most")
    start, frames = _under("start/", job.tensors), _under("frames/", job.tensors)
    if len(start) + len(frames) != len(job.tensors) or set(start) != set(feedback) or set(start) & set(frames):
        raise JobError("REQUEST_INVALID", "every input is either fed back, from a first value, or has frames")
    if not all(array.ndim and len(array) for array in frames.values()):
        raise JobError("REQUEST_INVALID", "an input without a single frame")
    return steps, feedback, float(seconds), start, frames


def _under(prefix: str, tensors: Tensors) -> Dict[str, np.ndarray]:
    return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}


class Keeper:
    """What is kept of one output, in bounded memory: some of its steps, and STATS of all of them."""

    def __init__(self, steps: int, array: np.ndarray) -> None:
        self._wanted = set(kept_steps(steps, array.size))
        self._like = (array.dtype, array.shape)
        self.steps: List[int] = []
        self.arrays: List[np.ndarray] = []
        self.stats = np.zeros((steps, STATS))

    def take(self, step: int, name: str, array: np.ndarray) -> None:
        if (array.dtype, array.shape) != self._like:
            raise JobError(
                "ROLLOUT_SHAPE",
                "output %r is %s %s in step %d and was %s %s"
                % (name, array.dtype, list(array.shape), step, self._like[0], list(self._like[1])),
            )
        self.stats[step - 1] = stats_of(array)
        if step in self._wanted:
            self.steps.append(step)
            self.arrays.append(array)

    def stacked(self) -> np.ndarray:
        return np.stack(self.arrays)


def stats_of(array: np.ndarray) -> Tuple[float, float, float, float, float]:
    """Of the finite ones in double precision; zeros where there are none."""
    numbers = array.reshape(-1).astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return 0.0, 0.0, 0.0, 0.0, float(numbers.size)
    root = float(np.sqrt(np.mean(np.square(finite))))
    return float(finite.min()), float(finite.max()), float(finite.mean()), root, float(numbers.size - finite.size)


def roll(job: Job, step: Step, every: float = 1.0) -> Answer:
    """Run all steps, or as many as the seconds allow.

    Step N gets frame (N - 1) modulo their number; what is fed back is what step N - 1 gave, bit by bit.  The answer has
    `done`, `ms` for all of it, and for each output `kept/I` (the steps listed under "kept", stacked) and `stats/I`.
    """
    steps, feedback, seconds, state, frames = asked(job)
    keepers: Dict[str, Keeper] = {}
    begin = last = time.perf_counter()
    done = 0
    while done < steps:
        inputs = {name: array[done % len(array)] for name, array in frames.items()}
        inputs.update(state)
        outputs = step(inputs)
        done += 1
        for name, array in outputs.items():
            if name not in keepers:
                keepers[name] = Keeper(steps, array)
            keepers[name].take(done, name, array)
        state = _fed(feedback, state, outputs)
        now = time.perf_counter()
        if now - begin >= seconds:
            break
        if now - last >= every:
            job.emit({"event": "steps", "done": done})
            last = now
    names = list(keepers)
    header: Dict[str, Any] = {
        "done": done,
        "ms": (time.perf_counter() - begin) * 1e3,
        "outputs": names,
        "kept": [keepers[name].steps for name in names],
    }
    tensors = {"kept/%d" % index: keepers[name].stacked() for index, name in enumerate(names)}
    tensors.update({"stats/%d" % index: keepers[name].stats[:done] for index, name in enumerate(names)})
    return header, tensors


def _fed(
    feedback: Mapping[str, str], state: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> Dict[str, np.ndarray]:
    found = {}
    for name, output in feedback.items():
        if output not in outputs:
            raise JobError("FEEDBACK_MISSING", "there is no output %r to feed into %r" % (output, name))
        if outputs[output].shape != state[name].shape:
            raise JobError(
                "FEEDBACK_SHAPE",
                "output %r is %s, input %r takes %s"
                % (output, list(outputs[output].shape), name, list(state[name].shape)),
            )
        found[name] = outputs[output]
    return found
