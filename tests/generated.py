"""Small models made on the spot, always the same bytes: each shows one thing that real models do.

Every function writes a model to ``path`` and returns it.  Inputs are called x or xN, outputs y or yN, unless said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

Dims = Sequence[Any]


def _value(name: str, shape: Dims | None, dtype: int = T.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _weight(name: str, *shape: int, seed: int = 0, scale: float | None = None) -> onnx.TensorProto:
    """Normal values, scaled so that sums over the last axes stay near 1."""
    fan_in = max(1, int(np.prod(shape[1:])))
    values = np.random.default_rng([seed, *name.encode()]).standard_normal(shape) * (scale or fan_in**-0.5)
    return numpy_helper.from_array(values.astype(np.float32), name)


def _const(name: str, value: Any, dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 14,
    ir_version: int = 8,
    check: bool = True,
) -> Path:
    graph = helper.make_graph(list(nodes), "generated", list(inputs), list(outputs), list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    model.producer_name, model.producer_version = "edgequant-tests", "1"
    if check:
        onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


_node = helper.make_node


def many_dtypes(path: Path) -> Path:
    """ids int64 [1,4] 0..15, mask bool [1,4], scale float32 [], pixels uint8 [1,4], steps int32 [1,4]
    -> y [1,4,8]."""
    nodes = [
        _node("Gather", ["table", "ids"], ["rows"]),
        _node("Cast", ["mask"], ["maskf"], to=T.FLOAT),
        _node("Cast", ["pixels"], ["pixelsf"], to=T.FLOAT),
        _node("Cast", ["steps"], ["stepsf"], to=T.FLOAT),
        _node("Add", ["pixelsf", "stepsf"], ["sum"]),
        _node("Mul", ["sum", "maskf"], ["masked"]),
        _node("Mul", ["masked", "scale"], ["scaled"]),
        _node("Unsqueeze", ["scaled", "axis"], ["column"]),
        _node("Add", ["rows", "column"], ["y"]),
    ]
    inputs = [
        _value("ids", [1, 4], T.INT64),
        _value("mask", [1, 4], T.BOOL),
        _value("scale", [], T.FLOAT),
        _value("pixels", [1, 4], T.UINT8),
        _value("steps", [1, 4], T.INT32),
    ]
    return save(path, nodes, inputs, [_value("y", [1, 4, 8])], [_weight("table", 16, 8), _const("axis", [2], "int64")])


def many_inputs(path: Path, count: int = 40) -> Path:
    """x0 .. xN, each [1,8] -> y [1,8]: x0 - x1 + x2 - ..., so that swapped inputs show."""
    nodes, total = [], "x0"
    for index in range(1, count):
        result = "y" if index == count - 1 else f"sum{index}"
        nodes.append(_node("Sub" if index % 2 else "Add", [total, f"x{index}"], [result]))
        total = result
    return save(path, nodes, [_value(f"x{i}", [1, 8]) for i in range(count)], [_value("y", [1, 8])])


def many_outputs(path: Path, count: int = 40) -> Path:
    """x [1,8] -> y0 .. yN, each [1,8]: yK = x * (K + 1), so that swapped outputs show."""
    nodes = [_node("Mul", ["x", f"k{i}"], [f"y{i}"]) for i in range(count)]
    weights = [_const(f"k{i}", [i + 1.0]) for i in range(count)]
    return save(path, nodes, [_value("x", [1, 8])], [_value(f"y{i}", [1, 8]) for i in range(count)], weights)


def conv_cnn(path: Path) -> Path:
    """x [1,3,32,32] -> y [1,10]: three convolutions, pooling, a Gemm; 120 000 weights, enough to be quantized."""
    nodes = [
        _node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _node("Relu", ["c1"], ["r1"]),
        _node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        _node("Relu", ["c2"], ["r2"]),
        _node("Conv", ["r2", "w3", "b3"], ["c3"], name="conv3", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        _node("Relu", ["c3"], ["r3"]),
        _node("GlobalAveragePool", ["r3"], ["pooled"]),
        _node("Flatten", ["pooled"], ["flat"]),
        _node("Gemm", ["flat", "w4", "b4"], ["y"], name="fc", transB=1),
    ]
    weights = [
        _weight("w1", 32, 3, 3, 3),
        _weight("b1", 32, scale=0.1),
        _weight("w2", 64, 32, 3, 3),
        _weight("b2", 64, scale=0.1),
        _weight("w3", 176, 64, 3, 3),
        _weight("b3", 176, scale=0.1),
        _weight("w4", 10, 176),
        _weight("b4", 10, scale=0.1),
    ]
    return save(path, nodes, [_value("x", [1, 3, 32, 32])], [_value("y", [1, 10])], weights)


def small_cnn(path: Path) -> Path:
    """x [1,3,8,8] -> y [1,5]: two convolutions, pooling, a Gemm; 3 000 weights."""
    nodes = [
        _node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _node("Relu", ["c1"], ["r1"]),
        _node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        _node("Relu", ["c2"], ["r2"]),
        _node("GlobalAveragePool", ["r2"], ["pooled"]),
        _node("Flatten", ["pooled"], ["flat"]),
        _node("Gemm", ["flat", "w3", "b3"], ["y"], name="fc", transB=1),
    ]
    weights = [
        _weight("w1", 16, 3, 3, 3),
        _weight("b1", 16, scale=0.1),
        _weight("w2", 16, 16, 3, 3),
        _weight("b2", 16, scale=0.1),
        _weight("w3", 5, 16),
        _weight("b3", 5, scale=0.1),
    ]
    return save(path, nodes, [_value("x", [1, 3, 8, 8])], [_value("y", [1, 5])], weights)


def gru(path: Path, hidden: int = 64) -> Path:
    """x [1,S,32], state [1,1,64] -> y [1,S,64] (Sigmoid behind the GRU), stateN [1,1,64]."""
    nodes = [
        _node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        _node("GRU", ["xt", "w", "r", "b", "", "state"], ["h", "stateN"], name="gru", hidden_size=hidden,
              linear_before_reset=1),
        _node("Squeeze", ["h", "axis"], ["hs"]),
        _node("Transpose", ["hs"], ["ht"], perm=[1, 0, 2]),
        _node("Sigmoid", ["ht"], ["y"], name="gate"),
    ]  # fmt: skip
    weights = [
        _weight("w", 1, 3 * hidden, 32, scale=0.2),
        _weight("r", 1, 3 * hidden, hidden, scale=0.1),
        _weight("b", 1, 6 * hidden, scale=0.1),
        _const("axis", [1], "int64"),
    ]
    inputs = [_value("x", [1, "S", 32]), _value("state", [1, 1, hidden])]
    return save(path, nodes, inputs, [_value("y", [1, "S", hidden]), _value("stateN", [1, 1, hidden])], weights)


def lstm(path: Path, hidden: int = 48) -> Path:
    """x [1,S,24], h [1,1,48], c [1,1,48] -> y [S,1,1,48] (as ONNX has it), hN, cN."""
    nodes = [
        _node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        _node("LSTM", ["xt", "w", "r", "b", "", "h", "c"], ["y", "hN", "cN"], name="lstm", hidden_size=hidden),
    ]
    weights = [
        _weight("w", 1, 4 * hidden, 24, scale=0.2),
        _weight("r", 1, 4 * hidden, hidden, scale=0.1),
        _weight("b", 1, 8 * hidden, scale=0.1),
    ]
    state = [1, 1, hidden]
    inputs = [_value("x", [1, "S", 24]), _value("h", state), _value("c", state)]
    outputs = [_value("y", ["S", 1, 1, hidden]), _value("hN", state), _value("cN", state)]
    return save(path, nodes, inputs, outputs, weights)


def streaming(path: Path, hidden: int = 32) -> Path:
    """frame [1,24,1], cache_prev [1,24,3], h [1,1,32] -> y [1,1,32], cache_next, hN: a causal convolution over the last
    four frames, a GRU behind it."""
    nodes = [
        _node("Concat", ["cache_prev", "frame"], ["window"], axis=2),
        _node("Slice", ["window", "one", "four", "two"], ["cache_next"]),
        _node("Conv", ["window", "k", "kb"], ["c"], name="conv", kernel_shape=[4]),
        _node("Relu", ["c"], ["r"]),
        _node("Transpose", ["r"], ["rt"], perm=[2, 0, 1]),
        _node("GRU", ["rt", "w", "u", "b", "", "h"], ["g", "hN"], name="gru", hidden_size=hidden,
              linear_before_reset=1),
        _node("Squeeze", ["g", "one"], ["y"]),
    ]  # fmt: skip
    weights = [
        _weight("k", 32, 24, 4),
        _weight("kb", 32, scale=0.1),
        _weight("w", 1, 3 * hidden, 32, scale=0.2),
        _weight("u", 1, 3 * hidden, hidden, scale=0.2),
        _weight("b", 1, 6 * hidden, scale=0.1),
        *(_const(name, [value], "int64") for name, value in (("one", 1), ("four", 4), ("two", 2))),
    ]
    inputs = [_value("frame", [1, 24, 1]), _value("cache_prev", [1, 24, 3]), _value("h", [1, 1, hidden])]
    outputs = [_value("y", [1, 1, hidden]), _value("cache_next", [1, 24, 3]), _value("hN", [1, 1, hidden])]
    return save(path, nodes, inputs, outputs, weights)


def _bare_rnn(path: Path, kind: str, outputs: Sequence[str], length: Any) -> Path:
    hidden, gates = 16, {"LSTM": 4, "GRU": 3}[kind]
    weights = [
        _weight("w", 1, gates * hidden, 24, scale=0.2),
        _weight("r", 1, gates * hidden, hidden, scale=0.2),
        _weight("b", 1, 2 * gates * hidden, scale=0.1),
    ]
    states = ["h", "c"][: len(outputs) - 1]
    node = _node(kind, ["x", "w", "r", "b", "", *states], outputs, name="rnn", hidden_size=hidden)
    inputs = [_value("x", [length, 1, 24]), *(_value(state, [1, 1, hidden]) for state in states)]
    values = [_value(name, [1, 1, hidden]) for name in outputs[1:]]
    return save(path, [node], inputs, [_value("y", [length, 1, 1, hidden]), *values], weights)


def gru_reset_first(path: Path) -> Path:
    """x [6,1,24], h [1,1,16] -> y [6,1,1,16], hN: linear_before_reset = 0, which MNN 3.6.1 gets wrong by 0.1."""
    return _bare_rnn(path, "GRU", ["y", "hN"], 6)


def leading_length(path: Path) -> Path:
    """x [S,1,24], h, c [1,1,16] -> y [S,1,1,16], hN, cN: MNN 3.6.1 takes S for a batch; right for S = 1 only."""
    return _bare_rnn(path, "LSTM", ["y", "hN", "cN"], "S")


def lstm_two_outputs(path: Path) -> Path:
    """x [6,1,24], h [1,1,16] -> y [6,1,1,16], hN: no cell state output, which MNN's converter (3.6.1) reads."""
    return _bare_rnn(path, "LSTM", ["y", "hN"], 6)


def scale_as_input(path: Path) -> Path:
    """x [1,8], s [] -> y [1,8]: to int8 and back by a scale that goes in, where MNN's converter (3.6.1) crashes."""
    nodes = [_node("QuantizeLinear", ["x", "s"], ["q"]), _node("DequantizeLinear", ["q", "s"], ["y"])]
    return save(path, nodes, [_value("x", [1, 8]), _value("s", [])], [_value("y", [1, 8])])


def rounded_halves(path: Path) -> Path:
    """x [1,8,16] -> y [1,8,16]: halves are rounded, which MNN does away from 0 and ONNX to even; else it is right."""
    nodes = [
        _node("Mul", ["x", "half"], ["m"], name="halve"), _node("Round", ["m"], ["r"], name="round"),
        _node("Add", ["r", "m"], ["a"], name="add"), _node("MatMul", ["a", "w"], ["y"], name="mix"),
    ]  # fmt: skip
    weights = [_const("half", 0.5), _weight("w", 16, 16, scale=0.3)]
    return save(path, nodes, [_value("x", [1, 8, 16])], [_value("y", [1, 8, 16])], weights)


def detector(path: Path) -> Path:
    """x [1,16,40] -> rows [1,10,5], places [1,10]: the boxes of the ten best scores, which loud inputs drive to 1."""
    nodes = [
        _node("Conv", ["x", "w"], ["all"], name="head"),
        _node("Split", ["all", "sizes"], ["boxes", "logits"], axis=1),
        _node("Sigmoid", ["logits"], ["s"]), _node("Squeeze", ["s", "one"], ["scores"]),
        _node("TopK", ["scores", "k"], ["best", "places"], axis=1, largest=1, sorted=1),
        _node("Transpose", ["boxes"], ["turned"], perm=[0, 2, 1]),
        _node("Unsqueeze", ["places", "last"], ["column"]), _node("Expand", ["column", "shape"], ["at"]),
        _node("GatherElements", ["turned", "at"], ["of_best"], axis=1),
        _node("Unsqueeze", ["best", "last"], ["with_score"]),
        _node("Concat", ["of_best", "with_score"], ["rows"], axis=2),
    ]  # fmt: skip
    weights = [
        _weight("w", 5, 16, 1, scale=1.0), _const("sizes", [4, 1], "int64"), _const("one", [1], "int64"),
        _const("k", [10], "int64"), _const("last", [2], "int64"), _const("shape", [1, 10, 4], "int64"),
    ]  # fmt: skip
    outputs = [_value("rows", [1, 10, 5]), _value("places", [1, 10], T.INT64)]
    return save(path, nodes, [_value("x", [1, 16, 40])], outputs, weights)


def rank1_dynamic(path: Path) -> Path:
    """x [N] -> y [N]: 2 * x + 1."""
    nodes = [_node("Mul", ["x", "two"], ["d"]), _node("Add", ["d", "one"], ["y"])]
    weights = [_const("two", [2.0]), _const("one", [1.0])]
    return save(path, nodes, [_value("x", ["N"])], [_value("y", ["N"])], weights)


def nan_swallowed(path: Path) -> Path:
    """x [1,8] -> y [1,8]: Sigmoid(Log(x)); a negative x makes NaN inside, which must not pass as a number."""
    nodes = [_node("Log", ["x"], ["inner"], name="log"), _node("Sigmoid", ["inner"], ["y"], name="gate")]
    return save(path, nodes, [_value("x", [1, 8])], [_value("y", [1, 8])])


def nan_output(path: Path) -> Path:
    """x [1,8] -> y [1,8]: (x - x) / (x - x), NaN everywhere."""
    nodes = [_node("Sub", ["x", "x"], ["zero"]), _node("Div", ["zero", "zero"], ["y"], name="div")]
    return save(path, nodes, [_value("x", [1, 8])], [_value("y", [1, 8])])


def constant_output(path: Path) -> Path:
    """x [1,8] -> y [1,8]: 3 whatever x is (finite)."""
    nodes = [_node("Mul", ["x", "zero"], ["z"]), _node("Add", ["z", "three"], ["y"])]
    weights = [_const("zero", [0.0]), _const("three", [3.0])]
    return save(path, nodes, [_value("x", [1, 8])], [_value("y", [1, 8])], weights)


def zero_output(path: Path) -> Path:
    """x [1,8] -> y [1,8]: 0 whatever x is (finite)."""
    nodes = [_node("Mul", ["x", "zero"], ["y"])]
    return save(path, nodes, [_value("x", [1, 8])], [_value("y", [1, 8])], [_const("zero", [0.0])])


def big_mlp(path: Path, width: int = 1280) -> Path:
    """x [1,1280] -> y [1,1280]: three layers, about 20 MB of weights."""
    nodes, last = [], "x"
    for index in range(3):
        nodes.append(_node("Gemm", [last, f"w{index}", f"b{index}"], [f"g{index}"], name=f"fc{index}", transB=1))
        last = "y" if index == 2 else f"r{index}"
        nodes.append(_node("Relu", [f"g{index}"], [last]))
    weights = [
        tensor for i in range(3) for tensor in (_weight(f"w{i}", width, width), _weight(f"b{i}", width, scale=0.1))
    ]
    return save(path, nodes, [_value("x", [1, width])], [_value("y", [1, width])], weights)


def argmax_ints(path: Path) -> Path:
    """x [1,16] -> scores float32 [1,64], best int64 [1]."""
    nodes = [
        _node("MatMul", ["x", "w"], ["scores"], name="fc"),
        _node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
    ]
    outputs = [_value("scores", [1, 64]), _value("best", [1], T.INT64)]
    return save(path, nodes, [_value("x", [1, 16])], outputs, [_weight("w", 16, 64)])


def old_ir(path: Path) -> Path:
    """IR version 3: the weight w [8,8] is listed as an input next to x [1,8]; y [1,8]."""
    inputs = [_value("x", [1, 8]), _value("w", [8, 8])]
    nodes = [_node("MatMul", ["x", "w"], ["y"])]
    return save(path, nodes, inputs, [_value("y", [1, 8])], [_weight("w", 8, 8)], opset=9, ir_version=3)


def branches(path: Path) -> Path:
    """x [1,4], deep bool [] -> y [1,4]: an If inside an If."""
    out = [_value("b", [1, 4])]
    inner_then = helper.make_graph([_node("Relu", ["x"], ["b"], name="innermost")], "it", [], out)
    inner_else = helper.make_graph([_node("Neg", ["x"], ["b"])], "ie", [], out)
    inner = _node("If", ["deep"], ["b"], name="inner", then_branch=inner_then, else_branch=inner_else)
    outer_then = helper.make_graph([inner], "ot", [], out)
    outer_else = helper.make_graph([_node("Abs", ["x"], ["b"])], "oe", [], out)
    nodes = [_node("If", ["deep"], ["y"], name="outer", then_branch=outer_then, else_branch=outer_else)]
    return save(path, nodes, [_value("x", [1, 4]), _value("deep", [], T.BOOL)], [_value("y", [1, 4])])


def quantized(path: Path) -> Path:
    """x [1,8] -> y [1,8] through QuantizeLinear and DequantizeLinear."""
    nodes = [
        _node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        _node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    weights = [_const("scale", 0.1), _const("zero", 0, "int8")]
    return save(path, nodes, [_value("x", [1, 8])], [_value("y", [1, 8])], weights)


def external_data(path: Path, location: str = "weights.bin") -> Path:
    """x [1,8] -> y [1,8]; w [8,8] is in ``location`` next to the model."""
    weight = _weight("w", 8, 8)
    raw = weight.raw_data
    (path.parent / Path(location).name).write_bytes(bytes(64) + raw)
    weight.ClearField("raw_data")
    weight.data_location = T.EXTERNAL
    for key, value in (("location", location), ("offset", "64"), ("length", str(len(raw)))):
        weight.external_data.add(key=key, value=value)
    nodes = [_node("MatMul", ["x", "w"], ["y"])]
    return save(path, nodes, [_value("x", [1, 8])], [_value("y", [1, 8])], [weight], check=False)


def element_type(path: Path, dtype: int) -> Path:
    """x [1,8] and y [1,8] of any ONNX element type number."""
    nodes = [_node("Identity", ["x"], ["y"])]
    return save(path, nodes, [_value("x", [1, 8], dtype)], [_value("y", [1, 8], dtype)], check=False)


ONNX_MODELS = {
    function.__name__: function
    for function in (
        many_dtypes, many_inputs, many_outputs, conv_cnn, gru, lstm, rank1_dynamic, nan_swallowed, nan_output,
        constant_output, zero_output, big_mlp, argmax_ints, old_ir, branches, quantized, gru_reset_first,
        leading_length, lstm_two_outputs, scale_as_input, streaming, rounded_halves, detector,
    )
}  # fmt: skip

NOT_CONVERTIBLE = ("quantized", "lstm_two_outputs", "scale_as_input")
"""MNN's own converter crashes on these as they are, or leaves operators out and writes a file that cannot be loaded."""
