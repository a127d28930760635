"""Faults to be planted into the numbers of a .mnn file, in place: its size and its structure stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgequant.errors import InputError
from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution, graphs, open_net, tensor
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, Net, TensorDescribe, TensorQuantInfo
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.models.model import BrokenFileError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: what it is, such as "scale of a channel".
        layer, subgraph: where; subgraph: "" in the main graph.
        channel: which; None where it is the whole layer's.
        size: how large, as the kind counts it; of kinds that have no size None.
        edits: position in the file -> bytes to be there.
        copied: the layer's weights are no rounded ones: in the file, even a last bit that is another is a fault.
    """

    kind: str
    layer: str
    subgraph: str
    channel: int | None
    size: float | None
    edits: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)
    copied: bool = False

    def planted(self, data: bytes) -> bytes:
        """The file with it."""
        found = bytearray(data)
        for position, content in self.edits:
            found[position : position + len(content)] = content
        return bytes(found)

    def __str__(self) -> str:
        where = self.layer + (f" (in {self.subgraph})" if self.subgraph else "")
        channel = "" if self.channel is None else f", channel {self.channel}"
        size = "" if self.size is None else f" ({self.size:g})"
        return f"{self.kind}{size}: {where}{channel}"


@dataclass(frozen=True)
class _Layer:
    """A layer's numbers, with their places in the file.

    pairs: (lowest value, scale) of each group of weights, or one scale; [channels, groups, 2 or 1].
    rows: its weights where they are floats or halves, [channels, rest].
    """

    of: Weights
    data: bytes
    pairs: tuple[int, Floats] | None
    bias: tuple[int, Floats] | None
    rows: tuple[int, Floats] | None
    codes: tuple[int, int]

    def fault(self, kind: str, channel: int | None, size: float | None, *edits: tuple[int, Floats | bytes]) -> Fault:
        packed = tuple((at, what if isinstance(what, bytes) else self.bytes(at, what)) for at, what in edits)
        return Fault(kind, self.of.name, self.of.subgraph, channel, size, packed, self.rows is not None)

    def bytes(self, at: int, what: Floats) -> bytes:
        """As they are kept at this place: its weights as halves, where these are that."""
        half = self.width == 2 and self.rows is not None and self.rows[0] <= at < self.rows[0] + 2 * self.rows[1].size
        with np.errstate(over="ignore"):
            return what.astype("<f2" if half else "<f4").tobytes()

    @property
    def width(self) -> int:
        """Bytes of a number of `scales`."""
        return 2 if self.of.kept == "fp16" else 4

    @property
    def scales(self) -> tuple[int, Floats] | None:
        """What makes a weight larger or smaller, first axis channels."""
        return self.pairs or self.rows


CHANNEL_SIZES, LAYER_SIZES, BIAS_SIZES = (0.5, 0.2, 0.1, 0.05, 0.02), (0.1, 0.03, 0.01), (1.0, 0.3, 0.1)
TENSOR_SIZES, CLIPPED_SIZES, ZERO_SIZES = (0.5, 0.1, 0.03), (0.5, 0.2, 0.05), (32, 8, 2)
"""Of the activations of static int8 layers: scale too large; too small, so that what lies beyond is cut; steps."""
NULL = "nothing"
"""The kind of what is no fault."""
NOTHING = 2.0**-23
"""A size that nobody can notice: the last bit of a number."""


def faults(path: Path, count: int, seed: int) -> list[Fault]:
    """Draw `count` faults, all kinds and layers alike; fewer where the file has no room for so many different ones.

    Raises InputError (MODEL_BROKEN, AUDIT_IMPOSSIBLE).
    """
    layers = _layers(path)
    rng = np.random.default_rng(seed)
    by_kind: dict[str, list[Fault]] = {}
    for layer in layers:
        for fault in _of_layer(layer, rng):
            by_kind.setdefault(fault.kind, []).append(fault)
    for fault in _of_tensors(path):
        by_kind.setdefault(fault.kind, []).append(fault)
    waiting = {kind: [found[i] for i in rng.permutation(len(found))] for kind, found in sorted(by_kind.items())}
    drawn: list[Fault] = []
    while len(drawn) < count and any(waiting.values()):
        for found in waiting.values():
            if found and len(drawn) < count:
                drawn.append(found.pop())
    if not drawn:
        raise InputError(
            "AUDIT_IMPOSSIBLE",
            f"{path.name}: no layer keeps weights in a way that faults can be planted into",
            hint="Audit a variant whose weights are in the file itself.",
        )
    return drawn


def nothings(path: Path, count: int, seed: int) -> list[Fault]:
    """As many changes of a last bit, which no check may notice."""
    layers = [each for each in _layers(path) if each.scales is not None]
    rng = np.random.default_rng(seed)
    found = []
    for number in rng.integers(len(layers), size=count if layers else 0):
        layer = layers[number]
        assert layer.scales is not None
        channel = int(rng.integers(len(layer.scales[1])))
        found.append(_scaled(layer, NULL, channel, NOTHING))
    return found


def unreachable(path: Path) -> list[str]:
    """Layers into which nothing can be planted: weights in a file beside it, or in a form that is not known."""
    reached = {each.of.key for each in _layers(path)}
    return [each.name for each in read_weights(path) if each.key not in reached]


def _layers(path: Path) -> list[_Layer]:
    known = {each.place: each for each in read_weights(path)}
    data = path.read_bytes()
    found = []
    try:
        with open_net(path) as net:
            for _, places in graphs(net):
                for _, op in places:
                    parameter = convolution(op)
                    if op.position in known and parameter is not None:
                        found.append(_layer(known[op.position], parameter, data))
    except (BrokenFileError, ValueError) as error:
        raise InputError("MODEL_BROKEN", f"it cannot be read: {error}", where=str(path)) from None
    return [each for each in found if each.scales is not None]


def _layer(of: Weights, parameter: Table, data: bytes) -> _Layer:
    quant = parameter.table(Convolution2D.quan_parameter)
    pairs = rows = None
    codes = (0, 0)
    if quant is not None and of.kept in ("quantized", "static"):
        codes = quant.extent(IDSTQuan.buffer)
        start, count = quant.extent(IDSTQuan.alpha)
        width = 1 if of.sym else 2
        if count and of.channels > 0 and count % (of.channels * width) == 0:
            pairs = start, _floats(data, start, count).reshape(of.channels, -1, width)
    elif of.kept in ("float", "fp16"):
        half = of.kept == "fp16" and quant is not None
        start, count = quant.extent(IDSTQuan.buffer) if half and quant else parameter.extent(Convolution2D.weight)
        count //= 2 if half else 1
        if count and of.channels > 0 and count % of.channels == 0:
            rows = start, _floats(data, start, count, "<f2" if half else "<f4").reshape(of.channels, -1)
    start, count = parameter.extent(Convolution2D.bias)
    bias = (start, _floats(data, start, count)) if count else None
    return _Layer(of, data, pairs, bias, rows, codes)


def _floats(data: bytes, start: int, count: int, dtype: str = "<f4") -> Floats:
    return np.frombuffer(data, dtype, count, start).astype(np.float32)


def _of_tensors(path: Path) -> Iterator[Fault]:
    """Of activations that have a scale in the file: static int8."""
    with open_net(path) as net:
        names = net.strings(Net.tensor_name)
        for described in net.tables(Net.extra_tensor_describe):
            quant = described.table(TensorDescribe.quant_info)
            scale = None if quant is None else quant.place(TensorQuantInfo.scale)
            if quant is None or scale is None:
                continue
            name, value = tensor(described.number(TensorDescribe.index), names), quant.real(TensorQuantInfo.scale)
            for kind, sign, sizes in (("range too wide", 1, TENSOR_SIZES), ("range clipped", -1, CLIPPED_SIZES)):
                for size in sizes:
                    yield _of_tensor(f"{kind} (activation)", name, size, scale, value * (1 + sign * size))
            zero = quant.place(TensorQuantInfo.zero)
            if zero is not None:
                was = quant.real(TensorQuantInfo.zero)
                for steps in ZERO_SIZES:
                    moved = was + steps if was + steps <= 127 else was - steps
                    yield _of_tensor("zero point of an activation", name, steps, zero, moved)


def _of_tensor(kind: str, name: str, size: float, place: int, value: float) -> Fault:
    return Fault(kind, name, "", None, size, ((place, np.float32(value).tobytes()),))


def _of_layer(layer: _Layer, rng: np.random.Generator) -> Iterator[Fault]:
    place = layer.scales
    assert place is not None
    start, values = place
    channels = len(values)
    drawn = [int(each) for each in rng.permutation(channels)[:4]]
    for size in CHANNEL_SIZES:
        yield _scaled(layer, "scale of a channel", drawn[0], size)
    for size in LAYER_SIZES:
        yield layer.fault("scale of a layer", None, size, (start, values * np.float32(1 + size)))
    for channel in drawn[:2]:
        yield layer.fault("weights of a channel 0", channel, None, (_row(layer, channel), values[channel] * 0))
        yield layer.fault("sign of a channel", channel, None, (_row(layer, channel), -values[channel]))
    if channels > 1:
        one, other = drawn[:2]
        if not np.array_equal(values[one], values[other]):
            kind = "channels exchanged" if layer.rows else "scales of channels exchanged"
            yield layer.fault(kind, one, None, (_row(layer, one), values[other]), (_row(layer, other), values[one]))
    yield from _of_codes(layer, drawn, rng)
    yield from _of_bias(layer, drawn)


def _row(layer: _Layer, channel: int) -> int:
    """Where the numbers of a channel begin in `layer.scales`."""
    assert layer.scales is not None
    start, values = layer.scales
    return start + layer.width * channel * int(np.prod(values.shape[1:], dtype=np.int64))


def _scaled(layer: _Layer, kind: str, channel: int, size: float) -> Fault:
    assert layer.scales is not None
    return layer.fault(kind, channel, size, (_row(layer, channel), layer.scales[1][channel] * np.float32(1 + size)))


def _of_codes(layer: _Layer, drawn: Sequence[int], rng: np.random.Generator) -> Iterator[Fault]:
    if layer.pairs is not None and layer.pairs[1].shape[2] == 2:
        start, pairs = layer.pairs
        for steps in (8, 2, 1):
            moved = pairs.copy()
            moved[drawn[0], :, 0] += np.float32(steps) * pairs[drawn[0], :, 1]
            row = _row(layer, drawn[0])
            yield layer.fault("zero point of a channel", drawn[0], steps, (row, moved[drawn[0]]))
            moved = pairs.copy()
            moved[:, :, 0] += np.float32(steps) * pairs[:, :, 1]
            yield layer.fault("zero points of a layer", None, steps, (start, moved))
    start, size = layer.codes
    if size >= 256:  # its head says how the rest is to be read
        for share in (0.02, 0.002):
            flipped = max(1, int(share * size / 2))
            places = start + size // 2 + rng.choice(size // 2, flipped, replace=False)
            edits = [(int(at), bytes([layer.data[at] ^ 0x40])) for at in sorted(places)]
            yield layer.fault("bits of weights flipped", None, share / 2, *edits)


def _of_bias(layer: _Layer, drawn: Sequence[int]) -> Iterator[Fault]:
    if layer.bias is None or not layer.bias[1].any():
        return
    start, bias = layer.bias
    yield layer.fault("bias lost", None, None, (start, bias * 0))
    channel = next((each for each in drawn if each < len(bias)), 0)
    for size in BIAS_SIZES:
        value = bias[channel] + np.float32(size) * np.abs(bias).max()
        yield layer.fault("bias of a channel", channel, size, (start + 4 * channel, np.array([value], np.float32)))
