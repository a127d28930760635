"""Finds the float weights of a .mnn file and the operators they belong to."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator

from edgequant.models.flat import FlatFile, Table
from edgequant.models.model import ModelGraph
from edgequant.models.op_names import MNN_OPS
from edgequant.models.stored import CONVOLUTION, NOTHING, WEIGHT_ONLY, Found, Method, Stored, Weight

# Field numbers in schema order.
_NET_OPS, _NET_SUBGRAPHS, _SUB_NODES = 3, 10, 4
_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE = 0, 1, 2, 3, 4, 5
_CONVOLUTION, _BLOB = 9, 7  # numbers of OpParameter
_CONV_COMMON, _CONV_WEIGHT, _CONV_QUANT, _CONV_EXTERNAL = 0, 1, 3, 6
_COMMON_KERNEL_X, _COMMON_KERNEL_Y, _COMMON_OUT = 2, 3, 10
_QUANT_BUFFER, _QUANT_TYPE, _FP16 = 0, 2, 3
_BLOB_DIMS, _BLOB_FLOATS = 0, 7
_PASSING = {"Unsqueeze", "Squeeze", "Reshape", "Permute", "Transpose", "ConvertTensor", "Identity", "ExpandDims"}
_METHODS: dict[str, frozenset[Method]] = {
    "Convolution": CONVOLUTION, "ConvolutionDepthwise": CONVOLUTION, "Deconvolution": CONVOLUTION,
    "DeconvolutionDepthwise": WEIGHT_ONLY,
}  # fmt: skip


def find_mnn_weights(graph: ModelGraph) -> Found:
    """The float and half-precision constants of all graphs.  Raises BrokenFileError, or OSError."""
    found = Found()
    with graph.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        _graph(net.tables(_NET_OPS), graph, found, main=True)
        for subgraph in net.tables(_NET_SUBGRAPHS):
            _graph(subgraph.tables(_SUB_NODES), graph, found, main=False)
    return found


def _graph(nodes: Iterator[Table], graph: ModelGraph, found: Found, *, main: bool) -> None:
    tables: dict[int, Stored] = {}  # tensor number -> the constant in it
    for op in nodes:
        kind = MNN_OPS.get(op.number(_OP_TYPE), "")
        inputs, outputs = op.numbers(_OP_INPUTS), op.numbers(_OP_OUTPUTS)
        name = op.string(_OP_NAME) or kind
        parameter = op.table(_OP_MAIN)
        number = op.number(_OP_KIND, "B")
        if kind in _METHODS and parameter is not None and number == _CONVOLUTION:
            methods = _METHODS[kind] if main else _METHODS[kind] & WEIGHT_ONLY
            weight = _convolution(name, kind, methods, parameter, graph)
            if weight is not None:
                found.weights.append(weight)
        elif kind == "Const" and parameter is not None and number == _BLOB:
            shape = parameter.numbers(_BLOB_DIMS)
            start, count = parameter.extent(_BLOB_FLOATS, 4)
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
    common = parameter.table(_CONV_COMMON)
    quant = parameter.table(_CONV_QUANT)
    channels = common.number(_COMMON_OUT) if common is not None else 0
    if common is None or channels <= 0:
        return None
    start, count = parameter.extent(_CONV_WEIGHT, 4)
    path, dtype = graph.path, "<f4"
    if quant is not None and quant.number(_QUANT_TYPE) == _FP16:
        start, size = quant.extent(_QUANT_BUFFER, 1)
        count, dtype = size // 2, "<f2"
    elif quant is not None and quant.number(_QUANT_TYPE):
        return None
    elif not count:
        place = parameter.numbers(_CONV_EXTERNAL, "q")
        if len(place) < 2 or not graph.external_files:
            return None
        path, start, count = graph.external_files[0], place[0], place[1] // 4
        if start < 0 or count < 0 or start + 4 * count > path.stat().st_size:
            return None
    if not count or count % channels:
        return None
    area = max(1, common.number(_COMMON_KERNEL_X, default=1)) * max(1, common.number(_COMMON_KERNEL_Y, default=1))
    rest = count // channels
    return Weight(name, kind, Stored((channels, rest), dtype, path, start), methods, inner=max(1, rest // area))
