"""Faults that are planted into one layer of a quantized file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, Net, TensorDescribe, TensorQuantInfo
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.encode import Encoded, Form, encode, pack
from edgequant.quantize.search.blob import blob
from edgequant.quantize.swap import Exchange

Edit = Callable[[bytearray, Table, Weights], bool]
"""Changes a layer's bytes in place; false where it has nothing to be changed."""


def _quant(op: Table) -> Table | None:
    layer = convolution(op)
    return None if layer is None else layer.table(Convolution2D.quan_parameter)


def scaled(data: bytearray, op: Table, layer: Weights, change: Callable[[np.ndarray], None]) -> bool:
    """Change the weights' scales: [channels, blocks], the steps alone and not the least values."""
    quant = _quant(op)
    start, count = quant.extent(IDSTQuan.alpha) if quant is not None else (0, 0)
    if not count or layer.channels < 2:
        return False
    alpha = np.frombuffer(data, "<f4", count, start).copy()
    if layer.sym:
        steps = alpha.reshape(layer.channels, -1)
        change(steps)
    else:
        pairs = alpha.reshape(layer.channels, -1, 2)
        whole = np.ascontiguousarray(pairs.reshape(layer.channels, -1))
        change(whole)
        alpha = whole.reshape(-1)
    data[start : start + 4 * count] = alpha.astype("<f4").tobytes()
    return True


def _times(factor: float, part: float) -> Edit:
    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        def change(rows: np.ndarray) -> None:
            rows[: max(1, int(part * rows.shape[0]))] *= np.float32(factor)

        return scaled(data, op, layer, change)

    return edit


def _swapped(data: bytearray, op: Table, layer: Weights) -> bool:
    """The codes of half of the channels are their neighbours' (of a byte each); so are their scales."""
    quant = _quant(op)
    start, count = quant.extent(IDSTQuan.buffer) if quant is not None else (0, 0)
    size = layer.per_channel * layer.area
    if layer.bits != 8 or layer.channels < 4 or count < layer.channels * size or size < 4:
        return False
    first = start + count - layer.channels * size
    rows = np.frombuffer(data, np.uint8, layer.channels * size, first).reshape(layer.channels, size).copy()
    order = np.arange(layer.channels)
    order[0:2], order[2:4] = (1, 0), (3, 2)
    data[first : first + rows.size] = rows[order].tobytes()

    def change(scales: np.ndarray) -> None:
        scales[:] = scales[order]

    return scaled(data, op, layer, change)


def _coarse(data: bytearray, op: Table, layer: Weights) -> bool:
    """Codes that lost their lower bits."""
    quant = _quant(op)
    start, count = quant.extent(IDSTQuan.buffer) if quant is not None else (0, 0)
    size = layer.channels * layer.per_channel * layer.area
    if layer.bits != 8 or count < size or not size:
        return False
    first = start + count - size
    codes = np.frombuffer(data, np.uint8, size, first)
    data[first : first + size] = ((codes // 64) * 64 + 32).astype(np.uint8).tobytes()
    return True


def _no_bias(data: bytearray, op: Table, layer: Weights) -> bool:
    parameter = convolution(op)
    start, count = parameter.extent(Convolution2D.bias) if parameter is not None else (0, 0)
    bias = np.frombuffer(data, "<f4", count, start)
    if not count or float(np.abs(bias).max()) < 1e-3:
        return False
    data[start : start + 4 * count] = bytes(4 * count)
    return True


def _output(change: Callable[[float, float], tuple[float, float]]) -> Edit:
    """The fixed scale and zero point of the layer's output tensor."""

    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        del op
        if layer.kept != "static" or layer.subgraph:
            return False
        net = _root(data)
        for described in net.tables(Net.extra_tensor_describe):
            info = described.table(TensorDescribe.quant_info)
            if info is None or described.number(TensorDescribe.index) != layer.outputs[0]:
                continue
            places = [info.place(field) for field in (TensorQuantInfo.scale, TensorQuantInfo.zero)]
            before = [0.0 if at is None else float(np.frombuffer(data, "<f4", 1, at)[0]) for at in places]
            after = change(before[0], before[1])
            if any(at is None and new != old for at, old, new in zip(places, before, after, strict=True)):
                return False
            for at, new in zip(places, after, strict=True):
                if at is not None:
                    data[at : at + 4] = np.asarray(new, "<f4").tobytes()
            return True
        return False

    return edit


def _root(data: bytearray) -> Table:
    return FlatFile(bytes(data)).root()


def _lows(steps: float) -> Edit:
    """The least values of the weights, by so many steps: what their zero point is."""

    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        quant = _quant(op)
        start, count = quant.extent(IDSTQuan.alpha) if quant is not None else (0, 0)
        if not count or layer.sym or layer.kept != "quantized":
            return False
        pairs = np.frombuffer(data, "<f4", count, start).copy().reshape(-1, 2)
        pairs[:, 0] += np.float32(steps) * pairs[:, 1]
        data[start : start + 4 * count] = pairs.astype("<f4").tobytes()
        return True

    return edit


def _bias(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        del layer
        parameter = convolution(op)
        start, count = parameter.extent(Convolution2D.bias) if parameter is not None else (0, 0)
        bias = np.frombuffer(data, "<f4", count, start).copy()
        if not count or float(np.abs(bias).max()) < 1e-3:
            return False
        data[start : start + 4 * count] = change(bias).astype("<f4").tobytes()
        return True

    return edit


def _infinite(data: bytearray, op: Table, layer: Weights) -> bool:
    """The scale of one channel."""

    def change(rows: np.ndarray) -> None:
        rows[0] = np.inf

    return layer.kept == "quantized" and not layer.subgraph and scaled(data, op, layer, change)


EDITS: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "scales of a quarter of the channels times 3": (_times(3.0, 0.25), ("WEIGHT_SCALE_WRONG",)),
    "scale of one channel times 1.3": (_times(1.3, 0.0), ("WEIGHT_SCALE_WRONG",)),
    "all scales 5 % too large": (_times(1.05, 1.0), ("WEIGHT_SCALE_WRONG",)),
    "scales of half of the channels 0": (_times(0.0, 0.5), ("ZERO_SCALE",)),
    "channels exchanged": (_swapped, ("WEIGHTS_MISPLACED",)),
    "weights of two bits": (_coarse, ("WEIGHT_ROUNDED_BADLY",)),
    "zero point of weights 12 steps off": (_lows(12.0), ("ZERO_POINT_WRONG",)),
    "zero point of weights 3 steps off": (_lows(3.0), ("ZERO_POINT_WRONG",)),
    "bias gone": (_no_bias, ("BIAS_LOST",)),
    "bias a fifth too small": (_bias(lambda bias: bias * 0.8), ("BIAS_LOST",)),
    "a scale is infinite": (_infinite, ("NAN_BORN", "NAN_SWALLOWED", "WEIGHTS_NOT_FINITE")),
    "output clipped": (_output(lambda scale, zero: (scale / 8, zero)), ("RANGE_CLIPPED",)),
    "output clipped a little": (_output(lambda scale, zero: (scale / 2, zero)), ("RANGE_CLIPPED",)),
    "output's scale too wide": (_output(lambda scale, zero: (scale * 40, zero)), ("RANGE_TOO_WIDE",)),
    "output's zero point off": (
        _output(lambda scale, zero: (scale, min(zero + 100, 120.0))), ("ZERO_POINT_WRONG",),
    ),
}  # fmt: skip
"""What is planted -> how, and the causes that name it."""


def planted(made: Path, layer: Weights, edit: Edit, out: Path) -> bool:
    """Write the file with one layer changed; false where this layer has nothing of the kind."""
    data = bytearray(made.read_bytes())
    with open_net(made) as net:
        if not edit(data, net.at(layer.place), layer):
            return False
    out.write_bytes(data)
    return True


# ---- layers that are written anew, from the float ones

Coding = Callable[[np.ndarray, Weights], "Encoded | None"]


def _bits(bits: int) -> Coding:
    return lambda weights, layer: encode(weights, layer.channels, layer.area, Form(bits))


def _one_scale(weights: np.ndarray, layer: Weights) -> Encoded | None:
    """8 bits with the same scale for all channels; only where channels differ enough for it to matter."""
    rows = weights.reshape(layer.channels, -1)
    largest = np.abs(rows).max(axis=1)
    if layer.channels < 4 or largest.max() < 6 * np.median(largest):
        return None
    usual = encode(weights, layer.channels, layer.area, Form(8, sym=True))
    scale = np.float32(largest.max() / 127)
    codes = (np.clip(np.round(rows / scale), -127, 127) + 128).astype(np.uint8)
    head = len(usual.buffer) - codes.size
    scales = np.full(layer.channels, scale, np.float32)
    return usual._replace(buffer=usual.buffer[:head] + pack(codes.ravel(), 8), scales=scales)


CODINGS: dict[str, tuple[Coding, tuple[str, ...]]] = {
    "one layer of 2 bits": (_bits(2), ("BITS_TOO_FEW",)),
    "one layer of 4 bits": (_bits(4), ("BITS_TOO_FEW",)),
    "one scale for all channels": (_one_scale, ("PER_TENSOR",)),
}


def coded(made: Path, plain: Path, layer: Weights, coding: Coding, out: Path) -> bool:
    """Write the file with one layer's weights packed in another way; false where that cannot be done."""
    own = next((each for each in read_weights(plain) if each.key == layer.key and each.kept == "float"), None)
    if own is None or layer.kept != "quantized":
        return False
    with open_net(plain) as net:
        op = net.at(own.place)
        parameter = convolution(op)
        assert parameter is not None
        weights = np.frombuffer(parameter.raw(Convolution2D.weight), "<f4")
        encoded = coding(weights, own)
        if encoded is None or (own.inputs, own.outputs) != (layer.inputs, layer.outputs):
            return False
        piece, place = blob(op, encoded)
    data = bytearray(made.read_bytes())
    data += b"\0" * (-len(data) % 16)
    data[layer.slot : layer.slot + 4] = (len(data) + place - layer.slot).to_bytes(4, "little")
    out.write_bytes(bytes(data) + piece)
    return True


def left_float(made: Path, plain: Path, layer: Weights, out: Path) -> bool:
    """Write the file with one layer that nothing quantized."""
    exchange = Exchange(made, plain, out)
    if layer.key not in exchange.layers:
        return False
    exchange.choose([layer.key])
    return True
