"""Which layers of an .mnn run in int8 with fixed scales, as far as MNN's own kernels get such layers wrong.

Read in MNN's sources (CPUBackend.cpp, CPUPoolInt8.cpp and the kernels named below), and run: docs/verdicts.md has the
measurements.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.net import convolution, op_type, open_net, tensor
from edgequant.models.mnn.scale_flow import Flow
from edgequant.models.mnn.schema import (
    Convolution2D,
    Convolution2DCommon,
    Interp,
    Net,
    Op,
    Pool,
    PoolType,
    TensorDescribe,
    TensorQuantInfo,
)
from edgequant.models.model import OpInfo

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
        resizes: bilinear resizes that run in int8.  MNNBilinearSampleC8.S for ARM64 (MNN 2.5.3 to 3.6.1 at least) makes
            whole numbers of a column's two shares only where it takes four columns at once: of the one to three that
            are left over at the end of each row it takes the lowest byte of a float for its share.  And a share of 1 is
            128, which it reads as -128: columns that fall upon one of the input's come out negative.
    """

    described: int
    half_tiles: tuple[str, ...] = ()
    max_pools: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()
    resizes: tuple[str, ...] = ()


def read_static(path: Path) -> StaticLayers:
    """The layers of `path`, a file that `read_model` has accepted.

    Raises:
        BrokenFileError: the file is damaged.
    """
    with open_net(path) as net:
        tensors = net.strings(Net.tensor_name)
        scales = {name: scale for name, scale, _ in _described(net, tensors)}
        if not scales:
            return StaticLayers(0)
        ops = list(_main_graph(net, tensors))
        flow = Flow([op for op, _ in ops])
        int8 = flow.spread(scales)
        half_tiles, max_pools, whole, resizes = [], [], [], []
        for op, table in ops:
            if op.type in _CONVOLUTIONS and op.outputs:
                channels, groups, light = _channels(table)
                if channels % _PACK == 0:
                    whole.append(op.outputs[0])
                static = light and op.inputs and {op.inputs[0], op.outputs[0]} <= scales.keys()
                if op.type != "ConvolutionDepthwise" and static and odd_groups(channels, groups):
                    half_tiles.append(op.name)
            elif _is_max_pool(op, table) and not _float_pool(op, scales, int8):
                max_pools.append(op.name)
            elif _is_bilinear(op, table) and int8.issuperset((op.inputs[0], op.outputs[0])):
                resizes.append(op.name)
        tails = [name for name, _ in flow.tails(scales, whole)]
    return StaticLayers(len(scales), tuple(half_tiles), tuple(max_pools), tuple(tails), tuple(resizes))


def read_scales(path: Path) -> dict[str, tuple[float, float]]:
    """Tensor -> (scale, zero point), of `path`, a file that `read_model` has accepted.

    Raises:
        BrokenFileError: the file is damaged.
    """
    with open_net(path) as net:
        return {name: scale for name, scale, _ in _described(net, net.strings(Net.tensor_name))}


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
    tensors = net.strings(Net.tensor_name)
    scales, places = {}, {}
    for name, scale, place in _described(net, tensors):
        scales[name], places[name] = scale, place
    ops = list(_main_graph(net, tensors))
    int8 = Flow([op for op, _ in ops]).spread(scales)
    left = []
    # A scale that was changed is what the next pool has in front of it.
    for op, table in ops:
        if not _is_max_pool(op, table) or _float_pool(op, scales, int8):
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


def _described(net: Table, tensors: list[str]) -> Iterator[tuple[str, tuple[float, float], int | None]]:
    """Tensors with a scale of their own: name, (scale, zero point), where in the file the scale is."""
    for described in net.tables(Net.extra_tensor_describe):
        quant = described.table(TensorDescribe.quant_info)
        if quant is not None:
            scale = quant.real(TensorQuantInfo.scale), quant.real(TensorQuantInfo.zero)
            yield tensor(described.number(TensorDescribe.index), tensors), scale, quant.place(TensorQuantInfo.scale)


def _float_pool(op: OpInfo, scales: Mapping[str, tuple[float, float]], int8: set[str]) -> bool:
    before, behind = scales.get(op.inputs[0]), scales.get(op.outputs[0])
    apart = before is not None and behind is not None and before != behind
    return apart or op.outputs[0] not in int8


def read_max_pools(path: Path) -> list[tuple[str, str]]:
    """(Input, output) tensor of each max pool in the main graph of `path`, a file that `read_model` has accepted.

    Raises:
        BrokenFileError: the file is damaged.
    """
    with open_net(path) as net:
        ops = _main_graph(net, net.strings(Net.tensor_name))
        return [(op.inputs[0], op.outputs[0]) for op, table in ops if _is_max_pool(op, table)]


def odd_groups(channels: int, groups: int) -> bool:
    """Whether a convolution with so many output channels, in so many groups, is one of `StaticLayers.half_tiles`."""
    return bool(-(-(channels // max(groups, 1)) // _PACK) % 2)


_BILINEAR = 2
_CONVOLUTIONS = ("Convolution", "ConvInt8", "ConvolutionDepthwise")


def _main_graph(net: Table, tensors: list[str]) -> Iterator[tuple[OpInfo, Table]]:
    """Operators, each as it is described and as a table."""
    for op in net.tables(Net.oplists):
        inputs = tuple(tensor(index, tensors) for index in op.numbers(Op.input_indexes) if index >= 0)
        outputs = tuple(tensor(index, tensors) for index in op.numbers(Op.output_indexes))
        name = op.string(Op.name) or (outputs[0] if outputs else "")
        yield OpInfo(name, op_type(op), None, inputs, outputs), op


def _channels(op: Table) -> tuple[int, int, bool]:
    """Output channels, groups, and whether there are no float weights."""
    layer = convolution(op)
    common = layer.table(Convolution2D.common) if layer is not None else None
    if layer is None or common is None:
        return 0, 1, False
    light = not layer.count(Convolution2D.weight)
    return common.number(Convolution2DCommon.output_count), common.number(Convolution2DCommon.group), light


def _is_max_pool(op: OpInfo, table: Table) -> bool:
    pool = table.table(Op.main) if op.type == "Pooling" and op.inputs and op.outputs else None
    return pool is not None and pool.number(Pool.type) == PoolType.MAXPOOL


def _is_bilinear(op: OpInfo, table: Table) -> bool:
    resize = table.table(Op.main) if op.type == "Interp" and op.inputs and op.outputs else None
    return resize is not None and resize.number(Interp.resize_type) == _BILINEAR
