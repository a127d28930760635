"""What a broken device does to outputs: small functions of NumPy alone, for they also run inside the runner.

Each takes the right outputs of one inference by name, and where in the session it is, and returns what comes back
instead.  It changes nothing in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]


class At:
    """One inference in a session.

    call: its number in the session, from 0.  inputs: what it was given.  earlier: the right outputs of all inferences
    before it, the last one last.  low: computed with int8 kernels.
    """

    def __init__(self, call: int, inputs: Arrays, earlier: Sequence[Arrays], low: bool) -> None:
        self.call = call
        self.inputs = inputs
        self.earlier = earlier
        self.low = low


Effect = Callable[[Arrays, At], Arrays]
Change = Callable[[np.ndarray], np.ndarray]


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng([17, *key])


def _picked(array: np.ndarray, axis: int, index: object) -> list[object]:
    """An index of `array` that takes `index` of one axis and all of the others; an index beyond its end is its last."""
    where = [slice(None)] * array.ndim  # type: List[object]
    where[axis] = min(index, array.shape[axis] - 1) if isinstance(index, int) and index >= 0 else index
    return where


def change(name: str, how: Change, axis: int | None = None, index: object = slice(None)) -> Effect:
    """Change an output, or a part of it along one axis, by a function of that part."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array = outputs[name].copy()
        where = tuple(_picked(array, axis, index)) if axis is not None else ...
        array[where] = how(array[where])
        return dict(outputs, **{name: array})

    return effect


def whole(name: str, how: Change) -> Effect:
    """Replace an output, whose type and shape may change."""
    return lambda outputs, at: dict(outputs, **{name: how(outputs[name])})


def gain(name: str, factor: float, axis: int | None = None, index: object = slice(None)) -> Effect:
    return change(name, lambda part: (part * factor).astype(part.dtype), axis, index)


def logit_gain(name: str, factor: float) -> Effect:
    """The gain of the layer before a sigmoid."""

    def how(part: np.ndarray) -> np.ndarray:
        inner = np.clip(part.astype(np.float64), 1e-7, 1 - 1e-7)
        return (1 / (1 + ((1 - inner) / inner) ** factor)).astype(part.dtype)

    return change(name, how)


def offset(name: str, size: float, axis: int, floor: float | None = None) -> Effect:
    """A constant of its own is missing from each index of an axis, as where a bias is dropped.

    size: of the constants, in root mean squares of the output.  floor: where the layer ends in a ReLU.
    """

    def how(array: np.ndarray) -> np.ndarray:
        shape = [1] * array.ndim
        shape[axis] = array.shape[axis]
        rms = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
        moved = array - (size * rms * _rng(array.shape[axis]).standard_normal(shape)).astype(array.dtype)
        return moved if floor is None else np.where(array > floor, np.maximum(moved, floor), array)

    return whole(name, how)


def shift(name: str, axis: int, by: int) -> Effect:
    """Late (by > 0) or early by so many steps; the step at the end is there twice."""

    def how(array: np.ndarray) -> np.ndarray:
        steps = np.clip(np.arange(array.shape[axis]) - by, 0, array.shape[axis] - 1)
        return np.take(array, steps, axis=axis)

    return whole(name, how)


def tail(name: str, axis: int, how: Change, group: int = 4) -> Effect:
    """What is left over beyond whole groups of an axis, such as the lanes of a vector register."""

    def changed(array: np.ndarray) -> np.ndarray:
        rest = array.shape[axis] % group
        if not rest:
            return array
        array = array.copy()
        where = tuple(_picked(array, axis, slice(-rest, None)))
        array[where] = how(array[where])
        return array

    return whole(name, changed)


def exchange(name: str, axis: int, first: int, second: int) -> Effect:
    """Two places of an axis in each other's stead."""

    def how(array: np.ndarray) -> np.ndarray:
        order = np.arange(array.shape[axis])
        last = min(second, len(order) - 1)
        order[[first, last]] = last, first
        return np.take(array, order, axis=axis)

    return whole(name, how)


def transposed(name: str, first: int, second: int) -> Effect:
    """Written in the order of another layout, read in the right one."""
    return whole(name, lambda array: np.swapaxes(array, first, second).reshape(array.shape))


def swapped(first: str, second: str) -> Effect:
    return lambda outputs, at: dict(outputs, **{first: outputs[second], second: outputs[first]})


def clip(name: str, share: float) -> Effect:
    """Saturation: at a share of the largest magnitude."""
    return change(name, lambda part: np.clip(part, -share * np.abs(part).max(), share * np.abs(part).max()))


def levels(name: str, count: int, down: bool = False) -> Effect:
    """So few levels between the least and the largest; down: rounded down in place of to the nearest."""

    def how(part: np.ndarray) -> np.ndarray:
        low, high = float(part.min()), float(part.max())
        step = (high - low) / (count - 1) or 1.0
        return (low + step * (np.floor if down else np.round)((part - low) / step)).astype(part.dtype)

    return change(name, how)


def last_bits(name: str, dropped: int) -> Effect:
    """A float format of fewer bits: 13 for half precision, 16 for bfloat16 (cut off, not rounded)."""
    mask = np.uint32((0xFFFFFFFF << dropped) & 0xFFFFFFFF)
    return change(name, lambda part: (np.ascontiguousarray(part).view(np.uint32) & mask).view(np.float32))


def noise(name: str, db: float, steady: bool = True) -> Effect:
    """White noise so many dB below the output, the same for the same call (steady) or another each time."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array = outputs[name]
        rms = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
        drawn = _rng(array.size, 0 if steady else at.call + 1).standard_normal(array.shape)
        return dict(outputs, **{name: (array + rms * 10 ** (-db / 20) * drawn).astype(array.dtype)})

    return effect


def few(name: str, share: float, how: Change) -> Effect:
    """A share of the elements, the same ones in each inference of the same size."""

    def changed(array: np.ndarray) -> np.ndarray:
        hit = _rng(array.size).random(array.shape) < share
        hit.reshape(-1)[array.size // 2] = True
        return np.where(hit, how(array), array).astype(array.dtype)

    return whole(name, changed)


def stale(names: Sequence[str], back: int = 1) -> Effect:
    """What lies in memory from an earlier inference; where that was of another size, as much of it as fits."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        if len(at.earlier) < back:
            return outputs
        found = dict(outputs)
        for name in names:
            flat, old = outputs[name].reshape(-1).copy(), at.earlier[-back][name].reshape(-1)
            size = min(flat.size, old.size)
            flat[:size] = old[:size]
            found[name] = flat.reshape(outputs[name].shape)
        return found

    return effect


def leaked(name: str, axis: int, share: float) -> Effect:
    """A state that is not reset: the last step of the inference before dies away over the first ones."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        if not at.earlier:
            return outputs
        array = outputs[name]
        last = np.take(at.earlier[-1][name], [-1], axis=axis)
        shape = [1] * array.ndim
        shape[axis] = array.shape[axis]
        fade = share * 0.6 ** np.arange(array.shape[axis]).reshape(shape)
        return dict(outputs, **{name: ((1 - fade) * array + fade * last).astype(array.dtype)})

    return effect


def from_input(name: str, source: str, share: float, axis: int = 1) -> Effect:
    """An input is added to as many channels of an output as it has."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array, given = outputs[name].copy(), at.inputs[source]
        where = tuple(_picked(array, axis, slice(0, given.shape[axis])))
        array[where] += (share * given).astype(array.dtype)
        return dict(outputs, **{name: array})

    return effect


def only(when: Callable[[Arrays, At], bool], effect: Effect) -> Effect:
    """The effect, in those inferences only."""
    return lambda outputs, at: effect(outputs, at) if when(outputs, at) else outputs


def after(calls: int, effect: Effect) -> Effect:
    return only(lambda outputs, at: at.call >= calls, effect)


def after_resize(effect: Effect) -> Effect:
    """Wrong in every inference that follows one of another size."""

    def resized(outputs: Arrays, at: At) -> bool:
        return bool(at.earlier) and any(at.earlier[-1][name].shape != array.shape for name, array in outputs.items())

    return only(resized, effect)


def in_int8(effect: Effect) -> Effect:
    """In kernels that are not used where memory is normal."""
    return only(lambda outputs, at: at.low, effect)


def together(*effects: Effect) -> Effect:
    def effect(outputs: Arrays, at: At) -> Arrays:
        for each in effects:
            outputs = each(outputs, at)
        return outputs

    return effect
