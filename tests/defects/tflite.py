"""TFLite models of one operator with weights, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

FLOAT32, INT32 = 0, 2
Slot = tuple[str, Any]


class _Writer:
    def __init__(self) -> None:
        self.b = flatbuffers.Builder(4096)

    def table(self, slots: Mapping[int, Slot]) -> int:
        """A table; slots: number -> (kind, value)."""
        self.b.StartObject(max(slots, default=0) + 1)
        for number, (kind, value) in slots.items():
            if kind == "offset":
                self.b.PrependUOffsetTRelativeSlot(number, value, 0)
            elif kind == "byte":
                self.b.PrependUint8Slot(number, value, 255)
            else:
                self.b.PrependInt32Slot(number, value, -(1 << 31))
        return int(self.b.EndObject())

    def ints(self, values: tuple[int, ...]) -> Slot:
        self.b.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.b.PrependInt32(value)
        return "offset", self.b.EndVector()

    def offsets(self, values: list[int]) -> Slot:
        self.b.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.b.PrependUOffsetTRelative(value)
        return "offset", self.b.EndVector()

    def data(self, array: np.ndarray) -> Slot:
        raw = array.tobytes()
        self.b.StartVector(1, len(raw), 16)
        self.b.head -= len(raw)
        self.b.Bytes[self.b.head : self.b.head + len(raw)] = raw
        return "offset", self.b.EndVector()


def one_operator(
    code: int, options: tuple[int, Mapping[int, Slot]], inputs: tuple[str | np.ndarray, ...], given: tuple[int, ...],
    result: tuple[int, ...],
) -> Callable[[Path], Path]:  # fmt: skip
    """x (shape `given`) -> y (shape `result`) by one builtin operator.

    options: number of its table of options in the union, and the table.  inputs: "x", or a constant.
    """

    def make(folder: Path) -> Path:
        w = _Writer()
        constants = [each for each in inputs if not isinstance(each, str)]
        buffers = [w.table({}), *(w.table({0: w.data(array)}) for array in constants)]

        def tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int) -> int:
            text = ("offset", w.b.CreateString(name))
            return w.table({0: w.ints(shape), 1: ("byte", kind), 2: ("int", buffer), 3: text})

        tensors = [tensor("x", given, FLOAT32, 0), tensor("y", result, FLOAT32, 0)]
        for number, array in enumerate(constants, 1):
            kind = INT32 if array.dtype == np.int32 else FLOAT32
            tensors.append(tensor(f"k{number}", array.shape, kind, number))
        places = iter(range(2, len(tensors)))
        used = tuple(0 if isinstance(each, str) else next(places) for each in inputs)
        table = ("offset", w.table(options[1]))
        slots = {0: ("int", 0), 1: w.ints(used), 2: w.ints((1,)), 3: ("byte", options[0]), 4: table}
        operators = w.offsets([w.table(slots)])
        graph = w.table({0: w.offsets(tensors), 1: w.ints((0,)), 2: w.ints((1,)), 3: operators})
        codes = w.offsets([w.table({0: ("byte", code), 2: ("int", 1), 3: ("int", code)})])
        about = ("offset", w.b.CreateString("edgequant-tests"))
        graphs = w.offsets([graph])
        model = w.table({0: ("int", 3), 1: codes, 2: graphs, 3: about, 4: w.offsets(buffers)})
        w.b.Finish(model, file_identifier=b"TFL3")
        path = folder / "model.tflite"
        path.write_bytes(bytes(w.b.Output()))
        return path

    return make


def _weights(*shape: int) -> np.ndarray:
    return (0.4 * np.random.default_rng([2, *shape]).standard_normal(shape)).astype(np.float32)


def transposed_convolution(channels: int, out: int) -> Callable[[Path], Path]:
    size = np.array([1, 8, 8, out], np.int32)
    options = {0: ("byte", 0), 1: ("int", 2), 2: ("int", 2)}
    return one_operator(67, (49, options), (size, _weights(out, 2, 2, channels), "x"), (1, 4, 4, channels),
                        (1, 8, 8, out))  # fmt: skip


def depthwise(multiplier: int) -> Callable[[Path], Path]:
    out = 4 * multiplier
    options = {0: ("byte", 0), 1: ("int", 1), 2: ("int", 1), 3: ("int", multiplier)}
    return one_operator(4, (2, options), ("x", _weights(1, 3, 3, out), _weights(out)), (1, 6, 6, 4), (1, 6, 6, out))


def padded(mirror: bool) -> Callable[[Path], Path]:
    pads = np.array([[0, 0], [2, 1], [1, 2], [0, 0]], np.int32)
    code, options = (100, (77, {0: ("byte", 0)})) if mirror else (34, (22, {}))
    return one_operator(code, options, ("x", pads), (1, 6, 6, 4), (1, 9, 9, 4))


def nearest(half_pixel: bool) -> Callable[[Path], Path]:
    size = np.array([7, 9], np.int32)
    options = {0: ("byte", 0), 1: ("byte", int(half_pixel))}
    return one_operator(97, (74, options), ("x", size), (1, 5, 4, 4), (1, 7, 9, 4))
