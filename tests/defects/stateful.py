"""What a device can do to the state of a streaming model between two steps.

Runs inside the runner: the standard library and NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

States = Mapping[str, np.ndarray]
Fault = Callable[[int, States, Sequence[States]], States]
"""The step that has been run (from 1), what it gives to the next, and what the steps before gave -> what is fed."""


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda _step, state, _earlier: {name: change(array).astype(array.dtype) for name, array in state.items()}


def _first_only(_step: int, state: States, earlier: Sequence[States]) -> States:
    return earlier[0]


def _other_input(_step: int, state: States, _earlier: Sequence[States]) -> States:
    names = list(state)
    return dict(zip(names, [state[name] for name in names[1:] + names[:1]], strict=True))


def _one_only(_step: int, state: States, earlier: Sequence[States]) -> States:
    name = list(state)[-1]
    return {**state, name: earlier[0][name]}


def _stale(_step: int, _state: States, earlier: Sequence[States]) -> States:
    return earlier[-1]


def _reset(at: Callable[[int], bool]) -> Fault:
    return lambda step, state, earlier: earlier[0] if at(step) else state


def _part(change: Callable[[np.ndarray], None]) -> Fault:
    def fault(array: np.ndarray) -> np.ndarray:
        found = array.copy()
        change(found.reshape(-1))
        return found

    return _each(fault)


def _zero_one(flat: np.ndarray) -> None:
    flat[flat.size // 2] = 0


def _late_nan(step: int, state: States, _earlier: Sequence[States]) -> States:
    return {name: array * np.float32(np.nan) if step == 70 else array for name, array in state.items()}


def _bfloat(array: np.ndarray) -> np.ndarray:
    return (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


FAULTS: dict[str, tuple[str, Fault]] = {
    "not_fed": ("the state is not fed back at all", _first_only),
    "one_not_fed": ("one of two states is not fed back", _one_only),
    "other_input": ("two states of one size are fed into each other's input", _other_input),
    "decayed": ("the state loses 1 % in each step", _each(lambda array: 0.99 * array)),
    "decayed_little": ("it loses a thousandth in each step", _each(lambda array: 0.999 * array)),
    "stale": ("it is that of the step before", _stale),
    "reset_often": ("it is reset every 50 steps", _reset(lambda step: step % 50 == 0)),
    "reset_once": ("it is reset once, in step 83", _reset(lambda step: step == 83)),
    "clipped": ("it is clipped to +-0.3", _each(lambda array: np.clip(array, -0.3, 0.3))),
    "bias": ("it is too large by 0.001", _each(lambda array: array + 0.001)),
    "fp16": ("it is kept in fp16", _each(lambda array: array.astype(np.float16))),
    "bf16": ("it is kept in bfloat16", _each(_bfloat)),
    "int8": ("it is kept in int8", _each(lambda array: np.round(array * 127) / 127)),
    "element_lost": ("one number of it is lost", _part(_zero_one)),
    "rotated": ("its numbers are moved by one place", _each(lambda array: np.roll(array, 1, axis=-1))),
    "nan": ("it is NaN once, in step 70", _late_nan),
    "left_over": ("a rollout begins with what the one before left", lambda _step, state, _earlier: state),
    "healthy": ("the twin", lambda _step, state, _earlier: state),
}


def plant(rollout: Any, fault: str) -> None:
    """Into the module device_scripts.rollout."""
    real_roll, real_fed, effect = rollout.roll, rollout._fed, FAULTS[fault][1]
    earlier: list[States] = []
    step = [0]

    def roll(job: Any, *args: Any, **more: Any) -> Any:
        if earlier and fault == "left_over":
            job.tensors = {**job.tensors, **{f"start/{name}": array for name, array in earlier[-1].items()}}
        earlier.clear()
        step[0] = 0
        return real_roll(job, *args, **more)

    def fed(feedback: Any, state: Any, outputs: Any) -> Any:
        step[0] += 1
        if not earlier:
            earlier.append(dict(state))
        right = real_fed(feedback, state, outputs)
        given = effect(step[0], right, earlier)
        earlier.append(right)
        del earlier[1:-1]  # the first and the last
        return given

    rollout.roll, rollout._fed = roll, fed
