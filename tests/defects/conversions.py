"""Models that MNN's converter turns into something else: small ones, each beside the sibling it gets right."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests import generated
from tests.defects import tflite
from tests.defects.bench import Procedure
from tests.defects.defect import Defect
from tests.defects.outcome import Fits
from tests.generated import save

_node = helper.make_node
_FLOAT, _INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
Make = Callable[[Path], Path]


def _value(name: str, *shape: Any, dtype: int = _FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _const(name: str, value: Any, dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def _random(name: str, *shape: int, scale: float = 0.3) -> onnx.TensorProto:
    return _const(name, scale * np.random.default_rng([*name.encode()]).standard_normal(shape))


def _model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (), opset: int = 16,
) -> Make:  # fmt: skip
    return lambda folder: save(folder / "model.onnx", nodes, inputs, outputs, weights, opset=opset)


def _grid_sample(**attributes: Any) -> Make:
    """Behind a convolution, sampled at points within and beyond the edge."""
    nodes = [
        _node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        _node("GridSample", ["c", "grid"], ["y"], **attributes),
    ]
    grid = _const("grid", np.random.default_rng(1).uniform(-1.3, 1.3, (1, 7, 9, 2)))
    return _model(nodes, [_value("x", 1, 3, 12, 10)], [_value("y", 1, 8, 7, 9)], [_random("w", 8, 3, 3, 3), grid])


def _rnn(kind: str, gates: int, **attributes: Any) -> Make:
    nodes = [
        _node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        _node(kind, ["t", "w", "r", "b"], ["h", "hN", "cN"][: 2 + (kind == "LSTM")], hidden_size=16, **attributes),
        _node("Squeeze", ["h", "axis"], ["y"]),
    ]
    weights = [_random("w", 1, gates * 16, 12), _random("r", 1, gates * 16, 16), _random("b", 1, 2 * gates * 16)]
    axis = _const("axis", [1], "int64")
    return _model(nodes, [_value("x", 1, "S", 12)], [_value("y", "S", 1, 16)], [*weights, axis], 14)


def _one_plus(first: bool) -> Make:
    """A constant of shape [1,1,1] is added to what comes from a convolution: as the first summand, or the second."""
    nodes = [
        _node("Unsqueeze", ["x", "axis"], ["x4"]),
        _node("Conv", ["x4", "w"], ["c4"], kernel_shape=[1, 5], pads=[0, 2, 0, 2]),
        _node("Squeeze", ["c4", "axis"], ["c3"]),
        _node("Transpose", ["c3"], ["c"], perm=[0, 2, 1]),
        _node("Tanh", ["c"], ["t"]),
        _node("Add", ["one", "t"] if first else ["t", "one"], ["s"]),
        _node("Mul", ["c", "s"], ["y"]),
    ]
    weights = [_random("w", 24, 8, 1, 5), _const("one", [[[1.0]]]), _const("axis", [2], "int64")]
    return _model(nodes, [_value("x", 1, 8, 44)], [_value("y", 1, 44, 24)], weights)


def _of_conv(*behind: onnx.NodeProto, scale: float = 1.0, more: Sequence[onnx.TensorProto] = ()) -> Make:
    """Operators behind a convolution: c [1,8,20] -> y."""
    nodes = [_node("Conv", ["x", "w"], ["c"], kernel_shape=[3], pads=[1, 1]), *behind]
    weights = [_random("w", 8, 8, 3, scale=0.3 * scale), *more]
    return _model(nodes, [_value("x", 1, 8, 20)], [_value("y", 1, 8, 20)], weights)


def _generated(name: str) -> Make:
    return lambda folder: generated.ONNX_MODELS[name](folder / f"{name}.onnx")


def _resize(**attributes: Any) -> Make:
    nodes = [
        _node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        _node("Resize", ["c", "", "scales"], ["y"], **attributes),
    ]
    weights = [_random("w", 8, 3, 3, 3), _const("scales", [1, 1, 1.7, 2.3])]
    return _model(nodes, [_value("x", 1, 3, 10, 9)], [_value("y", 1, 8, 17, 20)], weights, 13)


_ROUND = _node("Round", ["c"], ["y"])
_HALVES = (_node("Mul", ["c", "two"], ["d"]), _node("Floor", ["d"], ["f"]), _node("Mul", ["f", "half"], ["h"]))
_NUMBERS = (_const("two", 2.0), _const("half", 0.5))

PAIRS: dict[str, tuple[str, Make, Make]] = {
    "grid_bicubic": ("GridSample, bicubic", _grid_sample(mode="bicubic"), _grid_sample(mode="bilinear")),
    "grid_reflection": ("GridSample, reflected at the edge", _grid_sample(padding_mode="reflection"),
                        _grid_sample(padding_mode="border")),
    "gru_reset_first": ("a GRU with linear_before_reset 0", _rnn("GRU", 3),
                        _rnn("GRU", 3, linear_before_reset=1)),
    "gru_activations": ("a GRU with other activations",
                        _rnn("GRU", 3, linear_before_reset=1, activations=["HardSigmoid", "Softsign"]),
                        _rnn("GRU", 3, linear_before_reset=1, activations=["Sigmoid", "Tanh"])),
    "gru_reverse": ("a GRU that runs backwards", _rnn("GRU", 3, linear_before_reset=1, direction="reverse"),
                    _rnn("GRU", 3, linear_before_reset=1, direction="forward")),
    "lstm_clip": ("an LSTM whose cell is clipped", _rnn("LSTM", 4, clip=0.2), _rnn("LSTM", 4)),
    "leading_length": ("a length that comes first is taken for 1", _generated("leading_length"), _generated("lstm")),
    "one_first": ("a constant of [1,1,1] as the first summand", _one_plus(True), _one_plus(False)),
    "round_ties": ("halves are rounded the other way",
                   _of_conv(*_HALVES, _node("Round", ["h"], ["y"]), scale=3, more=_NUMBERS),
                   _of_conv(*_HALVES, _node("Floor", ["h"], ["y"]), scale=3, more=_NUMBERS)),
    "softplus_beyond_87": ("Softplus stops at 87", _of_conv(_node("Softplus", ["c"], ["y"]), scale=300),
                           _of_conv(_node("Softplus", ["c"], ["y"]))),
    "resize_cubic": ("Resize, cubic with another coefficient",
                     _resize(mode="cubic", cubic_coeff_a=-0.5, coordinate_transformation_mode="half_pixel"),
                     _resize(mode="linear", coordinate_transformation_mode="half_pixel")),
    "resize_nearest_ceil": ("Resize, nearest, rounded up",
                            _resize(mode="nearest", nearest_mode="ceil", coordinate_transformation_mode="half_pixel"),
                            _resize(mode="nearest", nearest_mode="floor",
                                    coordinate_transformation_mode="asymmetric")),
    "lite_transposed": ("TFLite, a transposed convolution of 3 channels to 5", tflite.transposed_convolution(3, 5),
                        tflite.transposed_convolution(4, 4)),
    "lite_depthwise": ("TFLite, depthwise with 3 outputs a channel", tflite.depthwise(3), tflite.depthwise(1)),
    "lite_mirrored": ("TFLite, padded by a mirror", tflite.padded(True), tflite.padded(False)),
    "lite_nearest": ("TFLite, resized with half pixels", tflite.nearest(True), tflite.nearest(False)),
}  # fmt: skip


def defects() -> list[Defect]:
    found = []
    for name, (what, wrong, right) in PAIRS.items():
        one, other = (Procedure(make, "float", device=False, more={"latency": False}) for make in (wrong, right))
        healthy: Any = functools.partial(getattr, other, "healthy")
        found.append(Defect(name, "conversion", what, "live", "host", False, one.run, healthy, Fits(unwanted=None)))
    return found
