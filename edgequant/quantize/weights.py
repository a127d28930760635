"""How each layer of a .mnn keeps its weights: bits, blocks, zero points, bytes, and where its operator is."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgequant.errors import InputError
from edgequant.models.flat import FlatFile, Table
from edgequant.models.model import BrokenFileError
from edgequant.models.op_names import MNN_OPS

LAYER_TYPES = ("Convolution", "ConvolutionDepthwise", "Deconvolution", "DeconvolutionDepthwise")
"""What MNN's converter quantizes.  Matrix products with constant weights are Convolution, GRU and LSTM gates too."""
_INT8_TYPES = {"ConvInt8": "Convolution", "DepthwiseConvInt8": "ConvolutionDepthwise"}

_NET_OPS, _NET_SUBGRAPHS = 3, 10
_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE = 0, 1, 2, 3, 4, 5
_SUB_NAME, _SUB_NODES = 0, 4
_CONV_PARAMETERS = 9
_CONV_COMMON, _CONV_WEIGHT, _CONV_QUANT, _CONV_INT8, _CONV_EXTERNAL = 0, 1, 3, 4, 6
_COMMON_KERNEL_X, _COMMON_KERNEL_Y, _COMMON_GROUP, _COMMON_OUTPUTS, _COMMON_INPUTS = 2, 3, 9, 10, 11
_QUANT_BUFFER, _QUANT_ALPHA, _QUANT_TYPE, _QUANT_BITS, _QUANT_READ, _QUANT_ALPHA16 = 0, 1, 2, 7, 9, 14
_FP16_WEIGHTS = 3

Kept = Literal["float", "fp16", "quantized", "static"]


@dataclass(frozen=True)
class Weights:
    """One operator with weights.

    Attributes:
        name: of the operator, as the converter's parameter file has it; subgraph: "" in the main graph.
        type: Convolution, ConvolutionDepthwise, Deconvolution or DeconvolutionDepthwise.
        kept: ``float``, ``fp16``, ``quantized`` (the activations are float in the graph), or ``static`` int8.
        bits: of a weight: 32, 16, or 2 to 8.
        block: input channels that share a scale; None for one scale per output channel.
        sym: no zero point; False where not quantized.
        payload: bytes of weights and scales in the file.
        slot: position of the offset that leads to the operator; place: of the operator itself.
        inputs, outputs: tensor numbers in its graph.
        channels: output channels; per_channel: input channels of each; area: kernel width times height.
    """

    name: str
    subgraph: str
    type: str
    kept: Kept
    bits: int
    block: int | None
    sym: bool
    payload: int
    slot: int
    place: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    channels: int
    per_channel: int
    area: int

    @property
    def key(self) -> tuple[str, str]:
        return self.subgraph, self.name


def read_weights(path: Path) -> list[Weights]:
    """All operators whose weights the converter would quantize, or has: the main graph's first, in file order.

    Raises:
        InputError: MODEL_BROKEN where the file contradicts itself; `edgequant.models.read_model` tells more.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            net = FlatFile(data).root()
            graphs: list[tuple[str, Iterator[tuple[int, Table]]]] = [("", net.places(_NET_OPS))]
            for _, graph in net.places(_NET_SUBGRAPHS):
                graphs.append((graph.string(_SUB_NAME) or "", graph.places(_SUB_NODES)))
            return [
                found
                for subgraph, places in graphs
                for slot, op in places
                if (found := _weights(op, slot, subgraph)) is not None
            ]
    except (BrokenFileError, ValueError) as error:
        raise InputError("MODEL_BROKEN", f"it cannot be read: {error}", where=str(path)) from None


def _weights(op: Table, slot: int, subgraph: str) -> Weights | None:
    kind = MNN_OPS.get(op.number(_OP_TYPE), "")
    static = kind in _INT8_TYPES
    kind = _INT8_TYPES.get(kind, kind)
    parameter = op.table(_OP_MAIN) if op.number(_OP_KIND, "B") == _CONV_PARAMETERS else None
    common = parameter.table(_CONV_COMMON) if parameter is not None else None
    if kind not in LAYER_TYPES or parameter is None or common is None:
        return None
    plain = parameter.count(_CONV_WEIGHT, 4)
    quant = parameter.table(_CONV_QUANT)
    if not plain and quant is None and not parameter.has(_CONV_INT8) and not parameter.count(_CONV_EXTERNAL, 8):
        return None  # its weights are computed by the model, or shared
    channels = common.number(_COMMON_OUTPUTS)
    area = max(1, common.number(_COMMON_KERNEL_X, default=1) * common.number(_COMMON_KERNEL_Y, default=1))
    per_channel = common.number(_COMMON_INPUTS) // max(1, common.number(_COMMON_GROUP, default=1))
    if plain and channels > 0:
        per_channel = plain // channels // area
    kept, bits, block, sym, payload = _how(quant, plain, channels, per_channel)
    if static or parameter.has(_CONV_INT8):
        kept, bits, block, sym = "static", 8, None, True
    return Weights(
        op.string(_OP_NAME) or "",
        subgraph,
        kind,
        kept,
        bits,
        block,
        sym,
        payload,
        slot,
        op.position,
        op.numbers(_OP_INPUTS),
        op.numbers(_OP_OUTPUTS),
        channels,
        per_channel,
        area,
    )


def _how(quant: Table | None, plain: int, channels: int, per_channel: int) -> tuple[Kept, int, int | None, bool, int]:
    """(kept, bits, block, sym, payload)."""
    number = quant.number(_QUANT_TYPE) if quant is not None else 0
    if quant is None or not number:
        return "float", 32, None, False, 4 * plain
    scales = quant.count(_QUANT_ALPHA, 4) or quant.count(_QUANT_ALPHA16, 2)
    payload = quant.count(_QUANT_BUFFER, 1) + 4 * quant.count(_QUANT_ALPHA, 4) + 2 * quant.count(_QUANT_ALPHA16, 2)
    if number == _FP16_WEIGHTS:
        return "fp16", 16, None, False, payload
    sym = quant.number(_QUANT_READ) == 0
    groups = scales // (1 if sym else 2) // channels if channels > 0 else 1
    block = per_channel // groups if groups > 1 else None
    # Files of before it was stored keep 0 there, or the largest value: those were all 8 bits.
    bits = quant.number(_QUANT_BITS)
    return "quantized", bits if 2 <= bits <= 8 else 8, block, sym, payload
