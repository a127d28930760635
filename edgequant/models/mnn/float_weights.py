"""Finds the float weights of a .mnn file and the operators they belong to."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgequant.models.flat import Table
from edgequant.models.mnn.net import constant, convolution, graphs, op_type, open_net
from edgequant.models.mnn.schema import Blob, Convolution2D, Convolution2DCommon, IDSTQuan, IDSTQuanType, Op
from edgequant.models.model import ModelGraph
from edgequant.models.stored import CONVOLUTION, NOTHING, WEIGHT_ONLY, Found, Method, Stored, Weight

_PASSING = {"Unsqueeze", "Squeeze", "Reshape", "Permute", "Transpose", "ConvertTensor", "Identity", "ExpandDims"}
_METHODS: dict[str, frozenset[Method]] = {
    "Convolution": CONVOLUTION, "ConvolutionDepthwise": CONVOLUTION, "Deconvolution": CONVOLUTION,
    "DeconvolutionDepthwise": WEIGHT_ONLY,
}  # fmt: skip


def find_mnn_weights(graph: ModelGraph) -> Found:
    """The float and half-precision constants of all graphs.  Raises BrokenFileError, or OSError."""
    found = Found()
    with open_net(graph.path) as net:
        for number, (_, places) in enumerate(graphs(net)):
            _graph((op for _, op in places), graph, found, main=number == 0)
    return found


def _graph(nodes: Iterator[Table], graph: ModelGraph, found: Found, *, main: bool) -> None:
    tables: dict[int, Stored] = {}  # tensor number -> the constant in it
    for op in nodes:
        kind = op_type(op)
        inputs, outputs = op.numbers(Op.input_indexes), op.numbers(Op.output_indexes)
        name = op.string(Op.name) or kind
        layer = convolution(op) if kind in _METHODS else None
        value = constant(op)
        if layer is not None:
            methods = _METHODS[kind] if main else _METHODS[kind] & WEIGHT_ONLY
            weight = _convolution(name, kind, methods, layer, graph)
            if weight is not None:
                found.weights.append(weight)
        elif value is not None:
            shape = value.numbers(Blob.dims)
            start, count = value.extent(Blob.float32s)
            if outputs and len(shape) >= 2 and count and min(shape) > 0 and math.prod(shape) == count:
                tables[outputs[0]] = Stored(tuple(shape), "<f4", graph.path, start)
        elif kind in _PASSING and inputs and outputs and inputs[0] in tables:
            tables[outputs[0]] = tables.pop(inputs[0])
        elif kind in ("If", "While"):
            found.unknown += sum(tables.pop(i).count for i in inputs if i in tables)
        else:
            # Each is counted for the first operator that takes it.
            found.weights += [Weight(name, kind, tables.pop(i), NOTHING) for i in inputs if i in tables]


def _convolution(
    name: str, kind: str, methods: frozenset[Method], parameter: Table, graph: ModelGraph
) -> Weight | None:
    """None where it has no weights of its own, or weights that are quantized already."""
    common = parameter.table(Convolution2D.common)
    quant = parameter.table(Convolution2D.quan_parameter)
    channels = common.number(Convolution2DCommon.output_count) if common is not None else 0
    if common is None or channels <= 0:
        return None
    start, count = parameter.extent(Convolution2D.weight)
    path, dtype = graph.path, "<f4"
    if quant is not None and quant.number(IDSTQuan.type) == IDSTQuanType.FP16:
        start, size = quant.extent(IDSTQuan.buffer)
        count, dtype = size // 2, "<f2"
    elif quant is not None and quant.number(IDSTQuan.type):
        return None
    elif not count:
        place = parameter.numbers(Convolution2D.external)
        if len(place) < 2 or not graph.external_files:
            return None
        path, start, count = graph.external_files[0], place[0], place[1] // 4
        if start < 0 or count < 0 or start + 4 * count > path.stat().st_size:
            return None
    if not count or count % channels:
        return None
    area = max(1, common.number(Convolution2DCommon.kernel_x)) * max(1, common.number(Convolution2DCommon.kernel_y))
    rest = count // channels
    return Weight(name, kind, Stored((channels, rest), dtype, path, start), methods, inner=max(1, rest // area))
