"""The layers of a float .mnn that could be quantized: where their tensors are and how large their weights."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.models.flat import FlatFile, Table
from edgequant.models.op_names import MNN_OPS

_NET_OPS, _NET_TENSORS, _NET_SUBGRAPHS = 3, 7, 10
_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE = 0, 1, 2, 3, 4, 5
_SUB_NAME, _SUB_TENSORS, _SUB_NODES = 0, 3, 4
_CONV_COMMON, _CONV_WEIGHT, _CONV_BIAS = 0, 1, 2
_COMMON_GROUP, _COMMON_OUTPUTS, _COMMON_RELU6 = 9, 10, 13
_CONV_PARAMETERS = 9
STATIC_TYPES = ("Convolution", "ConvolutionDepthwise")
"""The only types MNN runs in int8 with fixed scales; matrix products with constant weights become Convolution."""
WEIGHT_TYPES = (*STATIC_TYPES, "Deconvolution", "DeconvolutionDepthwise")


@dataclass(frozen=True)
class Layer:
    """An operator with weights.

    Attributes:
        name: of the operator; subgraph: "" in the main graph.
        type: as MNN calls it.
        input, output: tensor names.
        weight_max: largest magnitude of each output channel's weights, float32 [channels].
        bias: float32 [channels], or zeros where it has none.
        groups: into which its channels are divided.
        clipped: it ends in a ReLU6, so that its output does not scale with its weights.
        weight_at, bias_at: where its numbers are in the file: (position in bytes, number of float32).
        why_not: why it cannot be static; None when it can.
    """

    name: str
    subgraph: str
    type: str
    input: str
    output: str
    weight_max: np.ndarray
    bias: np.ndarray
    why_not: str | None = None
    groups: int = 1
    clipped: bool = False
    weight_at: tuple[int, int] = (0, 0)
    bias_at: tuple[int, int] = (0, 0)

    @property
    def channels(self) -> int:
        return int(self.weight_max.size)


def read_layers(path: Path) -> list[Layer]:
    """All layers with float weights, in the order they are computed; those of subgraphs last.

    The file was checked by `edgequant.models.read_model`, which raises where it is broken.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        tensors = net.strings(_NET_TENSORS)
        found = [layer for op in net.tables(_NET_OPS) if (layer := _layer(op, tensors, "")) is not None]
        inner: Counter[str] = Counter()
        for subgraph in net.tables(_NET_SUBGRAPHS):
            names = subgraph.strings(_SUB_TENSORS)
            inner.update(names)
            nodes: Iterator[Table] = subgraph.tables(_SUB_NODES)
            title = subgraph.string(_SUB_NAME) or ""
            found += [layer for op in nodes if (layer := _layer(op, names, title)) is not None]
    outputs = Counter(layer.output for layer in found)
    return [_with_doubt(layer, inner, outputs) for layer in found]


def _layer(op: Table, tensors: list[str], subgraph: str) -> Layer | None:
    kind = MNN_OPS.get(op.number(_OP_TYPE), "")
    parameter = op.table(_OP_MAIN) if op.number(_OP_KIND, "B") == _CONV_PARAMETERS else None
    if kind not in WEIGHT_TYPES or parameter is None:
        return None
    inputs, outputs = op.numbers(_OP_INPUTS), op.numbers(_OP_OUTPUTS)
    weights = np.frombuffer(parameter.raw(_CONV_WEIGHT, 4), "<f4")
    common = parameter.table(_CONV_COMMON)
    channels = common.number(_COMMON_OUTPUTS) if common is not None else 0
    if not weights.size or not inputs or not outputs or channels <= 0 or weights.size % channels:
        return None  # its weights are computed by the model, shared, or not float any more
    bias = np.frombuffer(parameter.raw(_CONV_BIAS, 4), "<f4")
    why_not = None
    if subgraph:
        why_not = "inside a loop or branch, whose tensors cannot be read"
    elif kind not in STATIC_TYPES:
        why_not = f"MNN has no static int8 {kind}"
    elif len(inputs) > 1:
        why_not = "its weights are an input"
    elif bias.size != channels:
        why_not = "it has no bias of its own"
    elif not np.isfinite(weights).all() or not np.isfinite(bias).all():
        why_not = "its weights hold NaN or Inf"
    return Layer(
        op.string(_OP_NAME) or tensors[outputs[0]],
        subgraph,
        kind,
        tensors[inputs[0]],
        tensors[outputs[0]],
        # Deconvolutions have their output channels second; their scales are the converter's business.
        np.abs(weights).reshape(channels, -1).max(axis=1),
        bias if bias.size == channels else np.zeros(channels, np.float32),
        why_not,
        common.number(_COMMON_GROUP, default=1) if common is not None else 1,
        bool(common.number(_COMMON_RELU6, "b")) if common is not None else True,
        parameter.extent(_CONV_WEIGHT, 4),
        parameter.extent(_CONV_BIAS, 4),
    )


def _with_doubt(layer: Layer, inner: Counter[str], outputs: Counter[str]) -> Layer:
    """MNN finds a layer's scales by its output's name alone, in subgraphs too: two of a name would share them."""
    twins = inner[layer.output] + outputs[layer.output] - (0 if layer.subgraph else 1)
    if layer.why_not is None and twins:
        return Layer(**{**vars(layer), "why_not": "another tensor has the name of its output"})
    return layer
