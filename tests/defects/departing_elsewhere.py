"""Conversion faults at places where they are harder to find: before another one, in a branch, beside a sound way, with
open sizes, without ONNX Runtime, in half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.defects.departing import BAD, NUMBERS, PARTS, Part, between, const, random, value
from tests.generated import save

_node = helper.make_node
_POOL = {"name": BAD, "kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_LOWER"}


def _halved(source: str, out: str, name: str) -> list[onnx.NodeProto]:
    return [
        _node("Mul", [source, "two"], ["d"], name="twice"),
        _node("Floor", ["d"], ["f"], name="floor"),
        _node("Mul", ["f", "half"], ["h"], name="halve"),
        _node("Round", ["h"], [out], name=name),
    ]


def _before_another(path: Path) -> Path:
    return between(Part([_node("MaxPool", ["a"], ["m"], **_POOL), *_halved("m", "z", "second")], NUMBERS), path)


def _in_a_branch(path: Path) -> Path:
    """Which is judged as one with the If."""
    out = [value("b", [1, 8, 12, 10])]
    taken = helper.make_graph(_halved("a", "b", "inner"), "taken", [], out)
    other = helper.make_graph([_node("Relu", ["a"], ["b"])], "other", [], out)
    nodes = [
        _node("ReduceSum", ["a"], ["s"], name="sum", keepdims=0),
        _node("Greater", ["s", "low"], ["c"], name="greater"),
        _node("If", ["c"], ["z"], name=BAD, then_branch=taken, else_branch=other),
    ]
    return between(Part(nodes, [*NUMBERS, const("low", -1e9)]), path)


def _beside(path: Path) -> Path:
    nodes = [
        _node("Relu", ["a"], ["r"], name="side"),
        _node("MaxPool", ["a"], ["m"], **_POOL),
        _node("Add", ["m", "r"], ["z"], name="join"),
    ]
    return between(Part(nodes), path)


def _open_sizes(path: Path) -> Path:
    """And sizes that are computed of others."""
    nodes = [
        _node("Conv", ["x", "w"], ["c"], name="before", kernel_shape=[3, 3], pads=[1] * 4),
        _node("MaxPool", ["c"], ["m"], **_POOL),
        _node("Shape", ["m"], ["s"], name="shape"),
        _node("Slice", ["s", "zero", "two"], ["s2"], name="slice"),
        _node("Concat", ["s2", "rest"], ["s3"], name="concat", axis=0),
        _node("Reshape", ["m", "s3"], ["r"], name="reshape"),
        _node("Tanh", ["r"], ["y"], name="behind"),
    ]
    numbers = [const("zero", [0], "int64"), const("two", [2], "int64"), const("rest", [-1], "int64")]
    inputs, outputs = [value("x", ["N", 3, "H", "W"])], [value("y", ["N", 8, "L"])]
    return save(path, nodes, inputs, outputs, [random("w", 8, 3, 3, 3), *numbers])


def _no_kernel(path: Path) -> Path:
    """Behind an operator that ONNX Runtime has no kernel for: ONNX's own evaluator is asked."""
    nodes = [
        _node("RoiAlign", ["a", "rois", "image"], ["r"], name="roi", output_height=6, output_width=6),
        _node("MaxPool", ["r"], ["z"], **_POOL),
    ]
    weights = [const("rois", [[1, 1, 8, 9]]), const("image", [0], "int64")]
    return between(Part(nodes, weights, opset=22), path)


def _half_precision(path: Path) -> Path:
    model = onnx.load(between(PARTS["pool_lower"](), path))
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    return path


ELSEWHERE: dict[str, Callable[[Path], Path]] = {
    "before_another": _before_another,
    "in_a_branch": _in_a_branch,
    "beside": _beside,
    "open_sizes": _open_sizes,
    "no_kernel": _no_kernel,
    "half_precision": _half_precision,
}
