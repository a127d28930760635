"""Which layers of an .mnn run in int8 with fixed scales, as far as MNN's own kernels get such layers wrong.

Read in MNN's sources (CPUBackend.cpp, CPUPoolInt8.cpp and the kernels named below), and run: docs/verdicts.md has the
measurements.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.models.flat import FlatFile, Table
from edgequant.models.model import BrokenFileError, OpInfo
from edgequant.models.op_names import MNN_OPS
from edgequant.models.scale_flow import Flow

_NET_DESCRIBED, _NET_OPS, _NET_TENSORS = 1, 3, 7
_TENSOR_INDEX, _TENSOR_QUANT = 1, 4
_QUANT_SCALE, _QUANT_ZERO = 0, 1
_OP_INPUTS, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE = 0, 2, 3, 4, 5
_CONV_COMMON, _CONV_WEIGHT = 0, 1
_COMMON_GROUP, _COMMON_OUTPUTS = 9, 10
_POOL_TYPE, _MAX_POOL = 7, 0
_PACK = 4
"""Channels that MNN's ARM64 kernels write together."""


@dataclass(frozen=True)
class StaticLayers:
    """Layers of the main graph, by operator name, in the order they are computed.

    Attributes:
        described: how many tensors have a scale of their own; 0: nothing of this file is static int8.
        half_tiles: int8 convolutions and matrix products whose output channels are an odd number of groups of four.
            MNNGemmInt8AddBiasScale_ARMV86_Unit.S (MNN 3.3.0 to 3.6.1 at least) takes two groups at a time, and for the
            one that is left over, at the last of an odd number of output positions, it adds the bias to a register
            that holds something else; on its way there it can also move its output pointer too far and write where
            it should not.
        max_pools: max pools that may run in int8.  On x86 int8 tensors are kept as bytes with 128 added, and
            MNNMaxPoolInt8_ (x86_x64/FunctionDispatcher.cpp) compares them as if they were signed: of a negative and a
            positive number it takes the negative one.  MNN pools in int8 where a scale reaches both sides
            and is the same there; how far one reaches is followed only roughly, so this may name one too many.
        tails: int8 sums, products and the like of tensors whose size need not be a multiple of four; see `Flow.tails`.
            On ARM, CPUBinaryInt8.cpp (MNN 2.5.0 to 3.6.1 at least) hands size / 4 to its kernels, and the one to
            three elements that are left over are never written.
    """

    described: int
    half_tiles: tuple[str, ...] = ()
    max_pools: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()


def read_static(path: Path) -> StaticLayers:
    """The layers of `path`, a file that `read_model` has accepted.

    Raises:
        BrokenFileError: the file is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        names = net.strings(_NET_TENSORS)
        scales = {name: scale for name, scale, _ in _described(net, names)}
        if not scales:
            return StaticLayers(0)
        ops = list(_main_graph(net, names))
        flow = Flow([op for op, _ in ops])
        int8 = flow.spread(scales)
        half_tiles, max_pools, whole = [], [], []
        for op, parameter in ops:
            if op.type in _CONVOLUTIONS and op.outputs:
                channels, groups, light = _channels(parameter)
                if channels % _PACK == 0:
                    whole.append(op.outputs[0])
                static = light and op.inputs and {op.inputs[0], op.outputs[0]} <= scales.keys()
                if op.type != "ConvolutionDepthwise" and static and odd_groups(channels, groups):
                    half_tiles.append(op.name)
            elif _is_max_pool(op, parameter) and not _float_pool(op, scales, int8):
                max_pools.append(op.name)
        tails = [name for name, _ in flow.tails(scales, whole)]
    return StaticLayers(len(scales), tuple(half_tiles), tuple(max_pools), tuple(tails))


def with_float_pools(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of `path`, a file that `read_model` has accepted, changed so that MNN runs its max pools in float; and
    those of `max_pools` that could not be changed.

    MNN pools in float where the scales in front and behind differ, so the one behind becomes the next float after the
    one in front.  The largest of some numbers is the same before and after they are scaled; so, to one part in ten
    million, the changed file computes what the file computes where int8 max pools are right.

    Raises:
        BrokenFileError: the file is damaged.
    """
    data = path.read_bytes()
    changed = bytearray(data)
    net = FlatFile(data).root()
    names = net.strings(_NET_TENSORS)
    scales, places = {}, {}
    for name, scale, place in _described(net, names):
        scales[name], places[name] = scale, place
    ops = list(_main_graph(net, names))
    int8 = Flow([op for op, _ in ops]).spread(scales)
    left = []
    # A scale that was changed is what the next pool has in front of it.
    for op, parameter in ops:
        if not _is_max_pool(op, parameter) or _float_pool(op, scales, int8):
            continue
        before, behind = scales.get(op.inputs[0]), op.outputs[0]
        place = places.get(behind)
        if before is None or place is None:
            left.append(op.name)
            continue
        apart = float(np.nextafter(np.float32(before[0]), np.float32(np.inf)))
        struct.pack_into("<f", changed, place, apart)
        scales[behind] = (apart, scales[behind][1])
    return bytes(changed), tuple(left)


def _described(net: Table, names: list[str]) -> Iterator[tuple[str, tuple[float, float], int | None]]:
    """Tensors with a scale of their own: name, (scale, zero point), where in the file the scale is."""
    for described in net.tables(_NET_DESCRIBED):
        quant = described.table(_TENSOR_QUANT)
        if quant is not None:
            name = _named(described.number(_TENSOR_INDEX), names)
            yield name, (quant.real(_QUANT_SCALE), quant.real(_QUANT_ZERO)), quant.place(_QUANT_SCALE)


def _float_pool(op: OpInfo, scales: Mapping[str, tuple[float, float]], int8: set[str]) -> bool:
    before, behind = scales.get(op.inputs[0]), scales.get(op.outputs[0])
    apart = before is not None and behind is not None and before != behind
    return apart or op.outputs[0] not in int8


def read_max_pools(path: Path) -> list[tuple[str, str]]:
    """(Input, output) tensor of each max pool in the main graph of `path`, a file that `read_model` has accepted.

    Raises:
        BrokenFileError: the file is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        ops = _main_graph(net, net.strings(_NET_TENSORS))
        return [(op.inputs[0], op.outputs[0]) for op, parameter in ops if _is_max_pool(op, parameter)]


def odd_groups(channels: int, groups: int) -> bool:
    """Whether a convolution with so many output channels, in so many groups, is one of `StaticLayers.half_tiles`."""
    return bool(-(-(channels // max(groups, 1)) // _PACK) % 2)


_CONVOLUTIONS = ("Convolution", "ConvInt8", "ConvolutionDepthwise")


def _main_graph(net: Table, names: list[str]) -> Iterator[tuple[OpInfo, Table | None]]:
    """Operators with their parameters."""
    for op in net.tables(_NET_OPS):
        inputs = tuple(_named(index, names) for index in op.numbers(_OP_INPUTS) if index >= 0)
        outputs = tuple(_named(index, names) for index in op.numbers(_OP_OUTPUTS))
        name = op.string(_OP_NAME) or (outputs[0] if outputs else "")
        kind = MNN_OPS.get(op.number(_OP_TYPE), "")
        yield OpInfo(name, kind, None, inputs, outputs), op.table(_OP_MAIN)


def _channels(parameter: Table | None) -> tuple[int, int, bool]:
    """Output channels, groups, and whether there are no float weights."""
    common = parameter.table(_CONV_COMMON) if parameter is not None else None
    if parameter is None or common is None:
        return 0, 1, False
    light = not parameter.count(_CONV_WEIGHT, 4)
    return common.number(_COMMON_OUTPUTS), common.number(_COMMON_GROUP, default=1), light


def _is_max_pool(op: OpInfo, parameter: Table | None) -> bool:
    ends = bool(op.inputs and op.outputs)
    return op.type == "Pooling" and ends and parameter is not None and parameter.number(_POOL_TYPE, "b") == _MAX_POOL


def _named(index: int, names: list[str]) -> str:
    if not 0 <= index < len(names):
        raise BrokenFileError("an operator refers to a tensor that does not exist")
    return names[index]
