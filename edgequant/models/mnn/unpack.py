"""The numbers of layers as their file keeps them: packed with a scale per row, in half precision, or float.

Read in MNN 3.6.1's sources: ConvolutionCommon.cpp (`ReadQuanData_c`, `load`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, IDSTQuanType
from edgequant.models.mnn.weights import Weights
from edgequant.models.model import BrokenFileError

Floats = npt.NDArray[np.float32]
_OLD_LEAST = -128
_MOST_DIMS = 4


@dataclass(frozen=True)
class Values:
    """One layer's numbers.

    Attributes:
        weights: float32 [groups, rest]; a group has a scale of its own, else it is an output channel.
        bias: float32 [channels], or empty.
        low, scale: float32 [groups]: what the least code means, and what one more adds; None where nothing is packed.
    """

    weights: Floats
    bias: Floats
    low: Floats | None = None
    scale: Floats | None = None


def values(net: Table, layer: Weights) -> Values | None:
    """The numbers of a layer in the net it was found in; None where they are in a form that is not read here: sparse,
    an older static int8, or in a file beside it.

    Raises BrokenFileError.
    """
    op = net.at(layer.place)
    parameter = convolution(op)
    if parameter is None or layer.channels <= 0:
        return None
    bias = _floats(parameter.raw(Convolution2D.bias), "<f4")
    quant = parameter.table(Convolution2D.quan_parameter)
    if layer.kept == "float":
        flat = _floats(parameter.raw(Convolution2D.weight), "<f4")
    elif layer.kept == "fp16" and quant is not None:
        flat = _floats(quant.raw(IDSTQuan.buffer), "<f2")
    elif quant is not None and quant.number(IDSTQuan.type) == IDSTQuanType.INT8:
        return _packed(quant, layer, bias)
    else:
        return None
    if not flat.size or flat.size % layer.channels:
        return None
    return Values(flat.reshape(layer.channels, -1), bias)


def _floats(raw: bytes, dtype: str) -> Floats:
    return np.frombuffer(raw, dtype).astype(np.float32)


def _packed(quant: Table, layer: Weights, bias: Floats) -> Values | None:
    alpha = _floats(quant.raw(IDSTQuan.alpha), "<f4")
    if not alpha.size:
        alpha = _floats(quant.raw(IDSTQuan.alpha_fp16), "<f2")
    buffer = quant.raw(IDSTQuan.buffer)
    if not buffer or not alpha.size or quant.real(IDSTQuan.quant_scale) != 1.0:
        return None
    codes = _codes(buffer, wide=bool(quant.number(IDSTQuan.shape_int32)))
    groups = alpha.size if layer.sym else alpha.size // 2
    if not groups or codes.size % groups:
        raise BrokenFileError(f"layer '{layer.name}' has {codes.size} weights and {alpha.size} scales")
    codes = codes.reshape(groups, -1)
    if layer.sym:
        low, scale = np.zeros(groups, np.float32), alpha
    else:
        low, scale = alpha.reshape(-1, 2).T
        codes = codes - np.float32(quant.number(IDSTQuan.a_min) or _OLD_LEAST)
    return Values(codes * scale[:, None] + low[:, None], bias, low, scale)


def _codes(buffer: bytes, *, wide: bool) -> Floats:
    """The codes of a packed layer, signed: sizes, the values that codes stand for, then codes of so many bits."""
    dims, width = buffer[0], 4 if wide else 2
    at = 1 + dims * width
    if not 0 < dims <= _MOST_DIMS or len(buffer) <= at:
        raise BrokenFileError("its packed weights have no sizes")
    count = math.prod(int(each) for each in np.frombuffer(buffer, "<u4" if wide else "<u2", dims, 1))
    kinds = buffer[at] or 256
    known = np.sort(np.frombuffer(buffer, np.int8, min(kinds, len(buffer) - at - 1), at + 1))
    bits = max(1, (kinds - 1).bit_length())
    body = np.frombuffer(buffer, np.uint8, offset=at + 1 + known.size)
    if known.size != kinds or body.size * 8 < count * bits:
        raise BrokenFileError("its packed weights are cut off")
    if bits == 8:
        index = body[:count]
    else:
        each = np.unpackbits(body, count=count * bits).reshape(count, bits)
        index = np.packbits(each, axis=1)[:, 0] >> np.uint8(8 - bits)
    if count and int(index.max()) >= kinds:
        raise BrokenFileError("its packed weights have codes that stand for nothing")
    return np.asarray(known[index], np.float32)
