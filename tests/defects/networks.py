"""Networks of other kinds than those of `tests.generated`, in which no rule of a diagnosis was tuned: faults are
planted into them by `python -m tests.defects.held_out`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from tests.generated import save

_node = helper.make_node


def _value(name: str, shape: Sequence[Any], dtype: int = T.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _random(name: str, *shape: int, scale: float | None = None, around: float = 0.0) -> onnx.TensorProto:
    fan_in = max(1, int(np.prod(shape[1:])))
    drawn = np.random.default_rng([7, *name.encode()]).standard_normal(shape)
    return numpy_helper.from_array((around + drawn * (scale or fan_in**-0.5)).astype(np.float32), name)


def _const(name: str, value: Any, dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def mobile(path: Path) -> Path:
    """x [1,3,32,32] -> y [1,10]: inverted residual blocks (1x1, depthwise 3x3, 1x1, add), pooled."""
    nodes = [
        _node("Conv", ["x", "ws", "bs"], ["s"], name="stem", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        _node("Relu", ["s"], ["b0"], name="stem_relu"),
    ]
    weights = [_random("ws", 16, 3, 3, 3), _random("bs", 16, scale=0.1)]
    for n in range(3):
        nodes += [
            _node("Conv", [f"b{n}", f"we{n}", f"be{n}"], [f"e{n}"], name=f"expand{n}", kernel_shape=[1, 1]),
            _node("Relu", [f"e{n}"], [f"er{n}"], name=f"expand_relu{n}"),
            _node("Conv", [f"er{n}", f"wd{n}", f"bd{n}"], [f"d{n}"], name=f"depth{n}", kernel_shape=[3, 3],
                  pads=[1] * 4, group=48),
            _node("HardSwish", [f"d{n}"], [f"dr{n}"], name=f"depth_act{n}"),
            _node("Conv", [f"dr{n}", f"wp{n}", f"bp{n}"], [f"p{n}"], name=f"project{n}", kernel_shape=[1, 1]),
            _node("Add", [f"b{n}", f"p{n}"], [f"b{n + 1}"], name=f"residual{n}"),
        ]  # fmt: skip
        weights += [
            _random(f"we{n}", 48, 16, 1, 1, scale=0.3), _random(f"be{n}", 48, scale=0.1),
            _random(f"wd{n}", 48, 1, 3, 3, scale=0.3), _random(f"bd{n}", 48, scale=0.1),
            _random(f"wp{n}", 16, 48, 1, 1), _random(f"bp{n}", 16, scale=0.1),
        ]  # fmt: skip
    nodes += [
        _node("GlobalAveragePool", ["b3"], ["g"], name="pool"),
        _node("Flatten", ["g"], ["f"], name="flat"),
        _node("Gemm", ["f", "wf", "bf"], ["y"], name="head", transB=1),
    ]
    weights += [_random("wf", 10, 16), _random("bf", 10, scale=0.1)]
    return save(path, nodes, [_value("x", [1, 3, 32, 32])], [_value("y", [1, 10])], weights)


def transformer(path: Path) -> Path:
    """x [1,12,32] -> y [1,12,32]: one encoder block (attention of 4 heads, MLP), normalized first."""
    nodes, weights = [], []

    def dense(name: str, given: str, width: int, out: int) -> str:
        nodes.append(_node("MatMul", [given, f"w_{name}"], [f"m_{name}"], name=name))
        nodes.append(_node("Add", [f"m_{name}", f"b_{name}"], [f"o_{name}"], name=f"{name}_bias"))
        weights.extend([_random(f"w_{name}", width, out, scale=width**-0.5), _random(f"b_{name}", out, scale=0.1)])
        return f"o_{name}"

    def normalized(name: str, given: str) -> str:
        nodes.append(_node("LayerNormalization", [given, f"g_{name}", f"h_{name}"], [f"n_{name}"], name=name, axis=-1))
        weights.extend([_random(f"g_{name}", 32, scale=0.1, around=1.0), _random(f"h_{name}", 32, scale=0.1)])
        return f"n_{name}"

    def heads(name: str, given: str, order: list[int]) -> str:
        nodes.append(_node("Reshape", [given, "split"], [f"s_{name}"], name=f"{name}_split"))
        nodes.append(_node("Transpose", [f"s_{name}"], [f"t_{name}"], perm=order, name=f"{name}_heads"))
        return f"t_{name}"

    first = normalized("norm1", "x")
    q, k, v = (dense(name, first, 32, 32) for name in ("query", "key", "value"))
    q, v = (heads(name, tensor, [0, 2, 1, 3]) for name, tensor in (("query", q), ("value", v)))
    k = heads("key", k, [0, 2, 3, 1])
    nodes += [
        _node("MatMul", [q, k], ["scores"], name="scores"),
        _node("Mul", ["scores", "root"], ["scaled"], name="scale"),
        _node("Softmax", ["scaled"], ["probabilities"], axis=-1, name="softmax"),
        _node("MatMul", ["probabilities", v], ["mixed"], name="mix"),
        _node("Transpose", ["mixed"], ["together"], perm=[0, 2, 1, 3], name="together"),
        _node("Reshape", ["together", "joined"], ["attended"], name="join"),
    ]
    out = dense("out", "attended", 32, 32)
    nodes.append(_node("Add", ["x", out], ["x1"], name="residual1"))
    up = dense("up", normalized("norm2", "x1"), 32, 64)
    nodes.append(_node("Tanh", [up], ["bent"], name="bend"))
    down = dense("down", "bent", 64, 32)
    nodes.append(_node("Add", ["x1", down], ["y"], name="residual2"))
    weights += [
        _const("split", [1, 12, 4, 8], "int64"), _const("joined", [1, 12, 32], "int64"), _const("root", 8**-0.5),
    ]  # fmt: skip
    return save(path, nodes, [_value("x", [1, 12, 32])], [_value("y", [1, 12, 32])], weights, opset=17)


def two_inputs(path: Path) -> Path:
    """audio [1,10,16], video [1,10,24], h, c [1,1,32] -> y [1,10,8], hN, cN: both joined, an LSTM with states."""
    nodes = [
        _node("MatMul", ["audio", "wa"], ["a0"], name="audio_in"),
        _node("Tanh", ["a0"], ["a"], name="audio_tanh"),
        _node("MatMul", ["video", "wv"], ["v0"], name="video_in"),
        _node("Relu", ["v0"], ["v"], name="video_relu"),
        _node("Concat", ["a", "v"], ["av"], axis=2, name="join"),
        _node("Transpose", ["av"], ["avt"], perm=[1, 0, 2], name="time_first"),
        _node("LSTM", ["avt", "w", "r", "b", "", "h", "c"], ["l", "hN", "cN"], name="lstm", hidden_size=32),
        _node("Squeeze", ["l", "one"], ["ls"], name="squeezed"),
        _node("Transpose", ["ls"], ["lt"], perm=[1, 0, 2], name="batch_first"),
        _node("MatMul", ["lt", "wo"], ["o"], name="head"),
        _node("Sigmoid", ["o"], ["y"], name="gate"),
    ]
    weights = [
        _random("wa", 16, 20, scale=0.3), _random("wv", 24, 20, scale=0.25), _random("wo", 32, 8, scale=0.5),
        _random("w", 1, 128, 40, scale=0.2), _random("r", 1, 128, 32, scale=0.15), _random("b", 1, 256, scale=0.1),
        _const("one", [1], "int64"),
    ]  # fmt: skip
    state = [1, 1, 32]
    inputs = [_value("audio", [1, 10, 16]), _value("video", [1, 10, 24]), _value("h", state), _value("c", state)]
    outputs = [_value("y", [1, 10, 8]), _value("hN", state), _value("cN", state)]
    return save(path, nodes, inputs, outputs, weights)


def segmentation(path: Path) -> Path:
    """x [1,3,32,48] -> y [1,5,32,48]: down twice, up twice (bilinear), with skips."""

    def conv(name: str, given: str, inputs: int, out: int, stride: int = 1) -> list[onnx.NodeProto]:
        weights.extend([_random(f"w_{name}", out, inputs, 3, 3), _random(f"b_{name}", out, scale=0.1)])
        return [
            _node("Conv", [given, f"w_{name}", f"b_{name}"], [f"c_{name}"], name=name, kernel_shape=[3, 3],
                  pads=[1] * 4, strides=[stride] * 2),
            _node("LeakyRelu", [f"c_{name}"], [f"r_{name}"], name=f"{name}_act", alpha=0.1),
        ]  # fmt: skip

    def up(name: str, given: str) -> onnx.NodeProto:
        return _node("Resize", [given, "", "twice"], [f"u_{name}"], name=name, mode="linear",
                     coordinate_transformation_mode="half_pixel")  # fmt: skip

    weights: list[onnx.TensorProto] = [_const("twice", [1, 1, 2, 2])]
    nodes = [
        *conv("in", "x", 3, 12), *conv("down1", "r_in", 12, 16, 2), *conv("down2", "r_down1", 16, 24, 2),
        up("up1", "r_down2"), _node("Concat", ["u_up1", "r_down1"], ["j1"], axis=1, name="skip1"),
        *conv("mix1", "j1", 40, 16),
        up("up2", "r_mix1"), _node("Concat", ["u_up2", "r_in"], ["j2"], axis=1, name="skip2"),
        *conv("mix2", "j2", 28, 12),
        _node("Conv", ["r_mix2", "w_head", "b_head"], ["y"], name="head", kernel_shape=[1, 1]),
    ]  # fmt: skip
    weights += [_random("w_head", 5, 12, 1, 1), _random("b_head", 5, scale=0.1)]
    return save(path, nodes, [_value("x", [1, 3, 32, 48])], [_value("y", [1, 5, 32, 48])], weights)


def classifier(path: Path) -> Path:
    """ids int64 [1,16] -> y [1,6]: embedded, two layers of gated units, averaged, classified."""
    nodes = [
        _node("Gather", ["table", "ids"], ["e"], name="embed"),
        _node("MatMul", ["e", "w1"], ["m1"], name="up"),
        _node("Add", ["m1", "b1"], ["a1"], name="up_bias"),
        _node("MatMul", ["e", "w2"], ["m2"], name="gate"),
        _node("Sigmoid", ["m2"], ["s2"], name="gate_sigmoid"),
        _node("Mul", ["a1", "s2"], ["gated"], name="gated"),
        _node("MatMul", ["gated", "w3"], ["m3"], name="down"),
        _node("Add", ["e", "m3"], ["h"], name="residual"),
        _node("ReduceMean", ["h"], ["pooled"], axes=[1], keepdims=0, name="pooled"),
        _node("Gemm", ["pooled", "w4", "b4"], ["y"], name="classify"),
    ]
    weights = [
        _random("table", 64, 24, scale=1.0), _random("w1", 24, 48, scale=0.25), _random("b1", 48, scale=0.2),
        _random("w2", 24, 48, scale=0.25), _random("w3", 48, 24, scale=0.2), _random("w4", 24, 6, scale=0.4),
        _random("b4", 6, scale=0.2),
    ]  # fmt: skip
    return save(path, nodes, [_value("ids", [1, 16], T.INT64)], [_value("y", [1, 6])], weights)


# ---- TFLite


class _Lite:
    """A TFLite graph, put together operator by operator with the schema that comes with LiteRT."""

    def __init__(self, shape: Sequence[int]) -> None:
        from ai_edge_litert import schema_py_generated

        self.schema: Any = schema_py_generated
        self.model = self.schema.ModelT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [self.schema.BufferT()], []
        self.graph = self.schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.tensor("x", shape)
        self.graph.inputs = [0]

    def tensor(self, name: str, shape: Sequence[int], data: np.ndarray | None = None) -> int:
        found = self.schema.TensorT()
        found.name, found.shape, found.buffer = name, list(shape), 0
        found.type = 2 if data is not None and data.dtype == np.int32 else 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            found.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(found)
        return len(self.graph.tensors) - 1

    def weights(self, name: str, *shape: int, scale: float) -> int:
        drawn = np.random.default_rng([9, *name.encode()]).standard_normal(shape) * scale
        return self.tensor(name, shape, drawn.astype(np.float32))

    def op(
        self, kind: str, name: str, inputs: Sequence[int], shape: Sequence[int], options: str = "", **fields: Any
    ) -> int:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        op = self.schema.OperatorT()
        op.opcodeIndex, op.inputs = len(self.model.operatorCodes) - 1, list(inputs)
        op.outputs = [self.tensor(name, shape)]
        if options:
            op.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            op.builtinOptions = getattr(self.schema, f"{options}T")()
            for field, value in fields.items():
                setattr(op.builtinOptions, field, value)
        self.graph.operators.append(op)
        return int(op.outputs[0])

    def save(self, path: Path, output: int) -> Path:
        import flatbuffers

        self.graph.outputs, self.model.subgraphs = [output], [self.graph]
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def lite_mobile(path: Path) -> Path:
    """x [1,24,24,3] -> y [1,8]: convolution, depthwise with a residual, average, fully connected."""
    lite = _Lite((1, 24, 24, 3))
    conv = {"padding": 0, "strideW": 2, "strideH": 2, "fusedActivationFunction": 1}
    stem = lite.op(
        "CONV_2D", "stem", [0, lite.weights("ws", 12, 3, 3, 3, scale=0.2), lite.weights("bs", 12, scale=0.1)],
        (1, 12, 12, 12), "Conv2DOptions", **conv,
    )  # fmt: skip
    depth = lite.op(
        "DEPTHWISE_CONV_2D", "depth", [stem, lite.weights("wd", 1, 3, 3, 12, scale=0.3),
                                       lite.weights("bd", 12, scale=0.1)],
        (1, 12, 12, 12), "DepthwiseConv2DOptions", padding=0, strideW=1, strideH=1, depthMultiplier=1,
        fusedActivationFunction=1,
    )  # fmt: skip
    point = lite.op(
        "CONV_2D", "point", [depth, lite.weights("wp", 12, 1, 1, 12, scale=0.3), lite.weights("bp", 12, scale=0.1)],
        (1, 12, 12, 12), "Conv2DOptions", padding=0, strideW=1, strideH=1,
    )  # fmt: skip
    summed = lite.op("ADD", "residual", [stem, point], (1, 12, 12, 12), "AddOptions")
    axes = lite.tensor("axes", (2,), np.asarray([1, 2], np.int32))
    mean = lite.op("MEAN", "mean", [summed, axes], (1, 12), "ReducerOptions", keepDims=False)
    full = lite.op(
        "FULLY_CONNECTED", "y", [mean, lite.weights("wf", 8, 12, scale=0.4), lite.weights("bf", 8, scale=0.1)], (1, 8),
        "FullyConnectedOptions",
    )  # fmt: skip
    return lite.save(path, full)


def lite_segmentation(path: Path) -> Path:
    """x [1,16,16,4] -> y [1,16,16,3]: down, a bilinear resize up, joined with what was in front, a last convolution."""
    lite = _Lite((1, 16, 16, 4))

    def conv(name: str, given: int, inputs: int, out: int, size: int, stride: int = 1, act: int = 1) -> int:
        both = [lite.weights(f"w_{name}", out, 3, 3, inputs, scale=(9 * inputs) ** -0.5 * 1.4),
                lite.weights(f"b_{name}", out, scale=0.1)]  # fmt: skip
        return lite.op("CONV_2D", name, [given, *both], (1, size, size, out), "Conv2DOptions", padding=0,
                       strideW=stride, strideH=stride, fusedActivationFunction=act)  # fmt: skip

    first = conv("first", 0, 4, 12, 16)
    down = conv("middle", conv("down", first, 12, 16, 8, 2), 16, 16, 8)
    size = lite.tensor("size", (2,), np.asarray([16, 16], np.int32))
    up = lite.op("RESIZE_BILINEAR", "up", [down, size], (1, 16, 16, 16), "ResizeBilinearOptions", halfPixelCenters=True)
    both = lite.op("CONCATENATION", "both", [up, first], (1, 16, 16, 28), "ConcatenationOptions", axis=3)
    last = conv("y", conv("mixed", both, 28, 12, 16), 12, 3, 16, act=0)
    return lite.save(path, last)


NETWORKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mobile": (mobile, ".onnx"),
    "transformer": (transformer, ".onnx"),
    "two_inputs": (two_inputs, ".onnx"),
    "segmentation": (segmentation, ".onnx"),
    "classifier": (classifier, ".onnx"),
    "lite_mobile": (lite_mobile, ".tflite"),
    "lite_segmentation": (lite_segmentation, ".tflite"),
}


def network(name: str, folder: Path) -> Path:
    make, suffix = NETWORKS[name]
    return make(folder / f"{name}{suffix}")
