"""How each layer of a .mnn keeps its weights: bits, blocks, zero points, bytes, and where its operator is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgequant.errors import InputError
from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution, graphs, op_type, open_net
from edgequant.models.mnn.schema import Convolution2D, Convolution2DCommon, IDSTQuan, IDSTQuanType, Op
from edgequant.models.model import BrokenFileError

LAYER_TYPES = ("Convolution", "ConvolutionDepthwise", "Deconvolution", "DeconvolutionDepthwise")
"""What MNN's converter quantizes.  Matrix products with constant weights are Convolution, GRU and LSTM gates too."""
_INT8_TYPES = {"ConvInt8": "Convolution", "DepthwiseConvInt8": "ConvolutionDepthwise"}

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
        with open_net(path) as net:
            return [
                found
                for subgraph, places in graphs(net)
                for slot, op in places
                if (found := _weights(op, slot, subgraph)) is not None
            ]
    except (BrokenFileError, ValueError) as error:
        raise InputError("MODEL_BROKEN", f"it cannot be read: {error}", where=str(path)) from None


def _weights(op: Table, slot: int, subgraph: str) -> Weights | None:
    kind = op_type(op)
    static = kind in _INT8_TYPES
    kind = _INT8_TYPES.get(kind, kind)
    parameter = convolution(op)
    common = parameter.table(Convolution2D.common) if parameter is not None else None
    if kind not in LAYER_TYPES or parameter is None or common is None:
        return None
    plain = parameter.count(Convolution2D.weight)
    quant = parameter.table(Convolution2D.quan_parameter)
    int8 = parameter.has(Convolution2D.symmetric_quan)
    if not plain and quant is None and not int8 and not parameter.count(Convolution2D.external):
        return None  # its weights are computed by the model, or shared
    channels = common.number(Convolution2DCommon.output_count)
    area = max(1, common.number(Convolution2DCommon.kernel_x) * common.number(Convolution2DCommon.kernel_y))
    per_channel = common.number(Convolution2DCommon.input_count) // max(1, common.number(Convolution2DCommon.group))
    if plain and channels > 0:
        per_channel = plain // channels // area
    kept, bits, block, sym, payload = _how(quant, plain, channels, per_channel)
    if static or int8:
        kept, bits, block, sym = "static", 8, None, True
    return Weights(
        op.string(Op.name) or "",
        subgraph,
        kind,
        kept,
        bits,
        block,
        sym,
        payload,
        slot,
        op.position,
        op.numbers(Op.input_indexes),
        op.numbers(Op.output_indexes),
        channels,
        per_channel,
        area,
    )


def _how(quant: Table | None, plain: int, channels: int, per_channel: int) -> tuple[Kept, int, int | None, bool, int]:
    """(kept, bits, block, sym, payload)."""
    number = quant.number(IDSTQuan.type) if quant is not None else 0
    if quant is None or not number:
        return "float", 32, None, False, 4 * plain
    scales = quant.count(IDSTQuan.alpha) or quant.count(IDSTQuan.alpha_fp16)
    payload = quant.count(IDSTQuan.buffer) + 4 * quant.count(IDSTQuan.alpha) + 2 * quant.count(IDSTQuan.alpha_fp16)
    if number == IDSTQuanType.FP16:
        return "fp16", 16, None, False, payload
    sym = quant.number(IDSTQuan.read_type) == 0
    groups = scales // (1 if sym else 2) // channels if channels > 0 else 1
    block = per_channel // groups if groups > 1 else None
    # Files of before it was stored keep 0 there, or the largest value: those were all 8 bits.
    bits = quant.number(IDSTQuan.a_max_or_bits)
    return "quantized", bits if 2 <= bits <= 8 else 8, block, sym, payload
