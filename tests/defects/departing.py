"""Conversion faults in the midst of longer models, each with the name of the node that is to be blamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.cases.case import Case
from edgequant.models import read_model
from tests import sources
from tests.generated import save

_node = helper.make_node
BAD = "bad"
"""The node to be blamed."""
PARTLY = "DEPARTS_FOR_SOME_INPUTS"


@dataclass(frozen=True)
class Part:
    """Nodes from tensor `a` to tensor `z`, one of them named BAD.

    rank: 4 for a [1,8,12,10]; 3 for a [6,1,8], a sequence.  z has the rank of a.  causes: codes that are right.
    """

    nodes: Sequence[onnx.NodeProto]
    weights: Sequence[onnx.TensorProto] = ()
    rank: int = 4
    opset: int = 16
    causes: tuple[str | None, ...] = ("OPERATOR_MISREAD",)
    blamed: str = BAD
    inputs: Sequence[onnx.ValueInfoProto] = ()


def const(name: str, value: Any, dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def random(name: str, *shape: int, scale: float = 0.3) -> onnx.TensorProto:
    return const(name, scale * np.random.default_rng([*name.encode()]).standard_normal(shape))


def value(name: str, shape: Sequence[Any], dtype: int = T.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def between(part: Part, path: Path) -> Path:
    """The part in the midst of sound nodes."""
    if part.rank == 4:
        before = [
            _node("Conv", ["x", "w0"], ["p0"], kernel_shape=[3, 3], pads=[1] * 4, name="before0"),
            _node("Tanh", ["p0"], ["p1"], name="before1"),
            _node("Mul", ["p1", "three"], ["p2"], name="before2"),
            _node("Conv", ["p2", "w1"], ["a"], kernel_shape=[1, 1], name="before3"),
        ]
        behind = [
            _node("Conv", ["z", "w2"], ["s0"], kernel_shape=[3, 3], pads=[1] * 4, name="behind0"),
            _node("LeakyRelu", ["s0"], ["s1"], name="behind1"),
            _node("Conv", ["s1", "w3"], ["s2"], kernel_shape=[1, 1], name="behind2"),
            _node("Sigmoid", ["s2"], ["y"], name="behind3"),
        ]
        weights = [random("w0", 8, 3, 3, 3), random("w1", 8, 8, 1, 1, scale=0.6), random("w2", 8, 8, 3, 3)]
        weights.append(random("w3", 4, 8, 1, 1))
        inputs, outputs = [value("x", [1, 3, 12, 10])], [value("y", [1, 4, "H", "W"])]
    else:
        before = [
            _node("Transpose", ["x"], ["p0"], perm=[1, 0, 2], name="before0"),
            _node("MatMul", ["p0", "w0"], ["p1"], name="before1"),
            _node("Mul", ["p1", "three"], ["a"], name="before2"),
        ]
        behind = [
            _node("MatMul", ["z", "w2"], ["s0"], name="behind0"),
            _node("Tanh", ["s0"], ["s1"], name="behind1"),
            _node("Transpose", ["s1"], ["y"], perm=[1, 0, 2], name="behind2"),
        ]
        weights = [random("w0", 12, 8, scale=0.5), random("w2", 8, 5, scale=0.6)]
        inputs, outputs = [value("x", [1, 6, 12])], [value("y", [1, "L", 5])]
    nodes = [*before, *part.nodes, *behind]
    more = [const("three", 3.0), *weights, *part.weights]
    return save(path, nodes, [*inputs, *part.inputs], outputs, more, opset=part.opset)


def _one(kind: str, inputs: Sequence[str] = ("a",), **attributes: Any) -> onnx.NodeProto:
    return _node(kind, list(inputs), ["z"], name=BAD, **attributes)


def _grid(opset: int = 16, **attributes: Any) -> Part:
    grid = const("grid", np.random.default_rng(1).uniform(-1.3, 1.3, (1, 7, 9, 2)))
    return Part([_one("GridSample", ["a", "grid"], **attributes)], [grid], opset=opset)


def _resize(opset: int = 13, causes: tuple[str | None, ...] = ("OPERATOR_MISREAD",), **attributes: Any) -> Part:
    node = _one("Resize", ["a", "", "scales"], **attributes)
    return Part([node], [const("scales", [1, 1, 1.7, 2.3])], opset=opset, causes=causes)


def _rnn(kind: str, gates: int, causes: tuple[str | None, ...] = ("OPERATOR_MISREAD",), **attributes: Any) -> Part:
    outputs = ["h", "hN", "cN"][: 2 + (kind == "LSTM")]
    nodes = [
        _node(kind, ["a", "w", "r", "b"], outputs, name=BAD, hidden_size=8, **attributes),
        _node("Squeeze", ["h", "one"], ["z"], name="squeeze"),
    ]
    weights = [random("w", 1, gates * 8, 8), random("r", 1, gates * 8, 8), random("b", 1, 2 * gates * 8)]
    return Part(nodes, [*weights, const("one", [1], "int64")], rank=3, opset=14, causes=causes)


def _pooled(kind: str, **attributes: Any) -> Part:
    return Part([_one(kind, **attributes)])


def _scatter(**attributes: Any) -> Part:
    at = np.zeros((1, 2, 1), np.int64)
    nodes = [_one("ScatterND", ["a", "at", "new"], **attributes)]
    return Part(nodes, [const("at", at, "int64"), random("new", 1, 2, 8, 12, 10, scale=1.0)])


_HALVES = (
    _node("Mul", ["a", "two"], ["d"], name="twice"),
    _node("Floor", ["d"], ["f"], name="floor"),
    _node("Mul", ["f", "half"], ["h"], name="halve"),
)
NUMBERS = (const("two", 2.0), const("half", 0.5))


def _one_first() -> Part:
    nodes = [
        _node("Reshape", ["a", "flat"], ["c"], name="reshape"),
        _node("Conv", ["c", "wc"], ["c1"], name="conv", kernel_shape=[1]),
        _node("Transpose", ["c1"], ["t0"], name="transpose", perm=[0, 2, 1]),
        _node("Tanh", ["t0"], ["t"], name="tanh"),
        _node("Add", ["one", "t"], ["s"], name=BAD),
        _node("Mul", ["t", "s"], ["m"], name="mul"),
        _node("Transpose", ["m"], ["u"], name="back", perm=[0, 2, 1]),
        _node("Reshape", ["u", "full"], ["z"], name="unflat"),
    ]
    weights = [
        const("flat", [1, 8, 120], "int64"), const("full", [1, 8, 12, 10], "int64"), const("one", [[[1.0]]]),
        random("wc", 8, 8, 1),
    ]  # fmt: skip
    return Part(nodes, weights)


def _hash() -> Part:
    nodes = [
        _node("Mul", ["ids", "hash"], ["big"], name=BAD),
        _node("Mod", ["big", "buckets"], ["bucket"], name="mod"),
        _node("Gather", ["table", "bucket"], ["row"], name="row"),
        _node("Mul", ["a", "row"], ["z"], name="scale"),
    ]
    weights = [const("hash", [2654435761], "int64"), const("buckets", [17], "int64"), random("table", 17, scale=1)]
    inputs = [value("ids", [10], T.INT64)]
    return Part(nodes, weights, causes=("CONSTANT_BEYOND_INT32",), inputs=inputs)


def _last_index() -> Part:
    nodes = [
        *_HALVES[:2],
        _node("ArgMax", ["f"], ["i"], name=BAD, axis=1, select_last_index=1),
        _node("Cast", ["i"], ["z0"], name="cast", to=T.FLOAT),
        _node("Mul", ["z0", "a"], ["z"], name="mix"),
    ]
    return Part(nodes, NUMBERS)


PARTS: dict[str, Callable[[], Part]] = {
    "grid_bicubic": lambda: _grid(mode="bicubic"),
    "grid_cubic_20": lambda: _grid(20, mode="cubic"),
    "grid_bicubic_aligned": lambda: _grid(mode="bicubic", align_corners=1),
    "grid_reflection": lambda: _grid(padding_mode="reflection"),
    "grid_reflection_aligned": lambda: _grid(padding_mode="reflection", align_corners=1),
    "grid_bicubic_reflection": lambda: _grid(mode="bicubic", padding_mode="reflection"),
    "gru_reset_first": lambda: _rnn("GRU", 3, ("GRU_RESET_FIRST",)),
    "gru_relu": lambda: _rnn("GRU", 3, linear_before_reset=1, activations=["Sigmoid", "Relu"]),
    "gru_relu_reset_first": lambda: _rnn("GRU", 3, activations=["Sigmoid", "Relu"]),
    "gru_hard": lambda: _rnn("GRU", 3, linear_before_reset=1, activations=["HardSigmoid", "Softsign"]),
    "gru_reverse": lambda: _rnn("GRU", 3, linear_before_reset=1, direction="reverse"),
    "gru_clip": lambda: _rnn("GRU", 3, linear_before_reset=1, clip=0.2),
    "lstm_clip": lambda: _rnn("LSTM", 4, clip=0.2),
    "lstm_reverse": lambda: _rnn("LSTM", 4, direction="reverse"),
    "lstm_forget_input": lambda: _rnn("LSTM", 4, input_forget=1),
    "rnn_relu": lambda: _rnn("RNN", 1, activations=["Relu"]),
    "one_first": _one_first,
    "round_ties": lambda: Part([*_HALVES, _one("Round", ["h"])], NUMBERS, causes=("TIES_ROUNDED_OTHERWISE",)),
    "softplus_beyond_87": lambda: Part(
        [_node("Mul", ["a", "much"], ["m"], name="much_more"), _one("Softplus", ["m"])], [const("much", 40.0)],
        causes=("ACTIVATION_LIMIT",),
    ),
    "resize_cubic": lambda: _resize(
        causes=(None,), mode="cubic", cubic_coeff_a=-0.5, coordinate_transformation_mode="half_pixel"
    ),
    "resize_nearest_ceil": lambda: _resize(
        mode="nearest", nearest_mode="ceil", coordinate_transformation_mode="half_pixel"
    ),
    "resize_prefer_ceil": lambda: _resize(
        mode="nearest", nearest_mode="round_prefer_ceil", coordinate_transformation_mode="half_pixel"
    ),
    "resize_symmetric": lambda: _resize(19, mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
    "resize_antialias": lambda: Part(
        [_one("Resize", ["a", "", "scales"], mode="linear", antialias=1)], [const("scales", [1, 1, 0.5, 0.4])], opset=18
    ),
    "pool_dilated": lambda: _pooled("MaxPool", kernel_shape=[3, 3], strides=[1, 1], dilations=[2, 2], pads=[2] * 4),
    "pool_lower": lambda: _pooled("MaxPool", kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_LOWER"),
    "average_lower": lambda: _pooled("AveragePool", kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_LOWER"),
    "conv_lower": lambda: Part(
        [_one("Conv", ["a", "wl"], kernel_shape=[2, 2], auto_pad="SAME_LOWER")], [random("wl", 8, 8, 2, 2)]
    ),
    "scatter_add": lambda: _scatter(reduction="add"),
    "scatter_mul": lambda: _scatter(reduction="mul"),
    "last_index": _last_index,
    "hash": _hash,
    "float_mod": lambda: Part([_one("Mod", ["a", "c7"], fmod=1)], [const("c7", 0.7)]),
    "shrink": lambda: Part([_one("Shrink", lambd=0.4, bias=0.2)], causes=(PARTLY, None)),
    "average_dilated": lambda: Part(
        [_one("AveragePool", kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 2])], opset=19
    ),
    "transposed_lower": lambda: Part(
        [_one("ConvTranspose", ["a", "wd"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")],
        [random("wd", 8, 8, 3, 3)],
    ),
    "transposed_shape": lambda: Part(
        [_one("ConvTranspose", ["a", "wd"], kernel_shape=[3, 3], strides=[2, 2], output_shape=[24, 20])],
        [random("wd", 8, 8, 3, 3)],
    ),
    "resize_axes": lambda: Part(
        [_one("Resize", ["a", "", "scales"], mode="linear", axes=[3])], [const("scales", [2.0])], opset=18
    ),
    "resize_aspect": lambda: Part(
        [
            _one("Resize", ["a", "", "", "size"], mode="linear", axes=[2, 3],
                 keep_aspect_ratio_policy="not_larger")
        ],
        [const("size", [17, 25], "int64")], opset=18, causes=("SHAPE_WRONG", "OPERATOR_MISREAD"),
    ),
    "resize_exclude": lambda: _resize(
        causes=(None,), mode="cubic", coordinate_transformation_mode="half_pixel", exclude_outside=1
    ),
    "rnn_clip": lambda: _rnn("RNN", 1, clip=0.2),
    "rnn_reverse": lambda: _rnn("RNN", 1, direction="reverse"),
    "roi_max": lambda: Part(
        [_one("RoiAlign", ["a", "rois", "image"], output_height=5, output_width=5, sampling_ratio=2, mode="max")],
        [const("rois", [[1, 1, 8, 9]]), const("image", [0], "int64")], causes=(None,),
    ),
    "mean_of_three": lambda: Part([_one("Mean", ["a", "a", "c4"])], [const("c4", 0.4)], causes=(None, "NOT_FINITE")),
    "max_of_three": lambda: Part(
        [_one("Max", ["a", "c1", "c2"])], [const("c1", 0.1), const("c2", -0.1)], causes=(None, "NOT_FINITE", PARTLY)
    ),
    "pool_indices": lambda: Part(
        [
            _node("MaxPool", ["a"], ["m", "i"], name=BAD, kernel_shape=[2, 2], strides=[2, 2], storage_order=1),
            _node("Cast", ["i"], ["f"], name="cast", to=T.FLOAT),
            _node("Mul", ["m", "f"], ["z"], name="mix"),
        ],
        causes=(None, "OPERATOR_MISREAD"),
    ),
}  # fmt: skip


Make = Callable[[Path], Path]
_POOL = {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_LOWER"}
_DILATED = {"kernel_shape": [3, 3], "strides": [1, 1], "dilations": [2, 2], "pads": [2] * 4}


def _halved(tensor: str, out: str) -> list[onnx.NodeProto]:
    """Rounded to halves, then to whole numbers."""
    inner = [f"{BAD}{index}" for index in range(6)]
    values = zip(inner, (2.0, 0.5), strict=False)
    constants = [_node("Constant", [], [name], name=name, value=const("", value)) for name, value in values]
    return [
        *constants,
        _node("Mul", [tensor, inner[0]], [inner[2]], name="twice"),
        _node("Floor", [inner[2]], [inner[3]], name="floor"),
        _node("Mul", [inner[3], inner[1]], [inner[4]], name="halve"),
        _node("Round", [inner[4]], [out], name=BAD),
    ]


def _pool(kind: str, attributes: dict[str, Any]) -> Callable[[str, str], list[onnx.NodeProto]]:
    return lambda tensor, out: [_node(kind, [tensor], [out], name=BAD, **attributes)]


SPLICED: dict[str, tuple[str, str, Callable[[str, str], list[onnx.NodeProto]]]] = {
    "enc_pool_lower": ("enc", "e2", _pool("MaxPool", _POOL)),
    "enc_dilated": ("enc", "c0", _pool("MaxPool", _DILATED)),
    "enc_average": ("enc", "e1", _pool("AveragePool", _POOL)),
    "erb_dec_pool_lower": ("erb_dec", "/convt3/Relu_output_0", _pool("MaxPool", _POOL)),
    "erb_dec_halves": ("erb_dec", "/conv2p/Relu_output_0", _halved),
    "df_dec_average": ("df_dec", "/df_convp/df_convp.4/Relu_output_0", _pool("AveragePool", _POOL)),
    "cls_dilated": ("ppocr_cls", "relu_2.tmp_0", _pool("MaxPool", _DILATED)),
    "rec_pool_lower": ("ppocr_rec", "p2o.pd_op.relu.3.0", _pool("MaxPool", _POOL)),
    "rec_halves": ("ppocr_rec", "p2o.pd_op.relu.1.0", _halved),
}
"""Name -> a real model, the tensor behind which a fault is put, and the fault."""
RESET_FIRST = {"df_dec_reset": ("df_dec", "/df_gru/gru/GRU"), "erb_dec_reset": ("erb_dec", "/emb_gru/GRU_1")}
"""Name -> a real model and its GRU that gets linear_before_reset = 0."""
SOUND = tuple(name for name in sources.REAL if name != "silero_vad")
SOUND_GENERATED = (
    "many_dtypes", "many_inputs", "many_outputs", "conv_cnn", "gru", "lstm", "rank1_dynamic", "argmax_ints", "old_ir",
    "branches", "big_mlp",
)  # fmt: skip


def spliced(name: str, path: Path) -> tuple[Path, str]:
    """A real model with a fault in its midst, and the node to be blamed."""
    if name in RESET_FIRST:
        source, gru = RESET_FIRST[name]
        model = onnx.load(sources.real(source))
        node = next(node for node in model.graph.node if node.name == gru)
        for given in node.attribute:
            if given.name == "linear_before_reset":
                given.i = 0
        onnx.save(model, path)
        return path, gru
    source, tensor, make = SPLICED[name]
    model, out = onnx.load(sources.real(source)), "behind::bad"
    nodes = list(model.graph.node)
    place = next(place for place, node in enumerate(nodes) if tensor in node.output) + 1
    for node in nodes:
        for index, read in enumerate(node.input):
            if read == tensor:
                node.input[index] = out
    nodes[place:place] = make(tensor, out)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    return path, BAD


_REAL_SIZES = {"ppocr_rec": (1, 3, 48, 160), "ppocr_cls": (1, 3, 48, 192)}


def case_of(path: Path, seed: int = 0, real: str | None = None) -> Case:
    """Random inputs; open sizes are 6, of a real model 16, where they are no batch."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for spec in read_model(path).inputs or ():
        shape = [6 if size is None else size for size in spec.shape or ()]
        if real is not None:
            known = _REAL_SIZES.get(real, spec.shape or ())
            shape = [16 if size is None else size for size in known]
        if spec.dtype == "bool":
            arrays[spec.name] = rng.random(shape) < 0.5
        elif spec.dtype.startswith("float"):
            arrays[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        else:
            arrays[spec.name] = rng.integers(1, 12, shape).astype(spec.dtype)
    return Case("c0", arrays, "random, seed 0")
