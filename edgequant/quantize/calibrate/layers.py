"""The layers of a float .mnn that could be quantized: where their tensors are and how large their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution, op_type, open_net
from edgequant.models.mnn.schema import Convolution2D, Convolution2DCommon, Net, Op, SubGraphProto

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
    with open_net(path) as net:
        tensors = net.strings(Net.tensor_name)
        found = [layer for op in net.tables(Net.oplists) if (layer := _layer(op, tensors, "")) is not None]
        inner: Counter[str] = Counter()
        for subgraph in net.tables(Net.subgraphs):
            names = subgraph.strings(SubGraphProto.tensors)
            inner.update(names)
            nodes: Iterator[Table] = subgraph.tables(SubGraphProto.nodes)
            title = subgraph.string(SubGraphProto.name) or ""
            found += [layer for op in nodes if (layer := _layer(op, names, title)) is not None]
    outputs = Counter(layer.output for layer in found)
    return [_with_doubt(layer, inner, outputs) for layer in found]


def _layer(op: Table, tensors: list[str], subgraph: str) -> Layer | None:
    kind = op_type(op)
    parameter = convolution(op)
    if kind not in WEIGHT_TYPES or parameter is None:
        return None
    inputs, outputs = op.numbers(Op.input_indexes), op.numbers(Op.output_indexes)
    weights = np.frombuffer(parameter.raw(Convolution2D.weight), "<f4")
    common = parameter.table(Convolution2D.common)
    channels = common.number(Convolution2DCommon.output_count) if common is not None else 0
    if not weights.size or not inputs or not outputs or channels <= 0 or weights.size % channels:
        return None  # its weights are computed by the model, shared, or not float any more
    bias = np.frombuffer(parameter.raw(Convolution2D.bias), "<f4")
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
        op.string(Op.name) or tensors[outputs[0]],
        subgraph,
        kind,
        tensors[inputs[0]],
        tensors[outputs[0]],
        # Deconvolutions have their output channels second; their scales are the converter's business.
        np.abs(weights).reshape(channels, -1).max(axis=1),
        bias if bias.size == channels else np.zeros(channels, np.float32),
        why_not,
        common.number(Convolution2DCommon.group) if common is not None else 1,
        bool(common.number(Convolution2DCommon.relu6)) if common is not None else True,
        parameter.extent(Convolution2D.weight),
        parameter.extent(Convolution2D.bias),
    )


def _with_doubt(layer: Layer, inner: Counter[str], outputs: Counter[str]) -> Layer:
    """MNN finds a layer's scales by its output's name alone, in subgraphs too: two of a name would share them."""
    twins = inner[layer.output] + outputs[layer.output] - (0 if layer.subgraph else 1)
    if layer.why_not is None and twins:
        return Layer(**{**vars(layer), "why_not": "another tensor has the name of its output"})
    return layer
