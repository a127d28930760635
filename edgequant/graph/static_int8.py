"""Which layers of an .mnn run in int8 with fixed scales, as far as MNN's own kernels get such layers wrong.

Read in MNN's sources (CPUBackend.cpp, CPUPoolInt8.cpp and the kernels named below), and run: docs/devices.md has the
measurements.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.graph.flat import FlatFile, Table
from edgequant.graph.model import BrokenFileError
from edgequant.graph.op_names import MNN_OPS

_NET_DESCRIBED, _NET_OPS, _NET_TENSORS = 1, 3, 7
_TENSOR_INDEX, _TENSOR_QUANT = 1, 4
_QUANT_SCALE, _QUANT_ZERO = 0, 1
_OP_INPUTS, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE = 0, 2, 3, 4, 5
_CONV_COMMON, _CONV_WEIGHT = 0, 1
_COMMON_GROUP, _COMMON_OUTPUTS = 9, 10
_POOL_TYPE, _MAX_POOL = 7, 0
_PACK = 4
"""Channels that MNN's ARM64 kernels write together."""
_PACKED = {"Convolution", "ConvolutionDepthwise", "ConvInt8", "DepthwiseConvInt8", "Deconvolution", "Pooling"}
"""What puts out NC4HW4, whose size is a multiple of _PACK.  Leaving it takes a ConvertTensor."""
_AS_IT_COMES = {"BinaryOp", "UnaryOp", "ReLU", "ReLU6", "PReLU", "Scale"}


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
            positive number it takes the negative one.  MNN pools in int8 unless both sides have a scale and these
            differ; scales it hands on through other operators are not followed here, so this may name one too many.
        tails: int8 sums, products and the like of tensors whose size need not be a multiple of four.  On ARM,
            CPUBinaryInt8.cpp (MNN 2.5.0 to 3.6.1 at least) hands size / 4 to its kernels, and the one to three
            elements that are left over are never written.
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
        scales: dict[int, tuple[float, float]] = {}
        for described in net.tables(_NET_DESCRIBED):
            quant = described.table(_TENSOR_QUANT)
            if quant is not None:
                scales[described.number(_TENSOR_INDEX)] = (quant.real(_QUANT_SCALE), quant.real(_QUANT_ZERO))
        if not scales:
            return StaticLayers(0)
        names = net.strings(_NET_TENSORS)
        found: dict[str, list[str]] = {"half_tiles": [], "max_pools": [], "tails": []}
        packed: set[int] = set()
        for op in net.tables(_NET_OPS):
            kind = _kind(op, scales, packed)
            if kind is not None:
                found[kind].append(op.string(_OP_NAME) or _first_output(op, names))
    return StaticLayers(len(scales), **{kind: tuple(layers) for kind, layers in found.items()})


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
    scales: dict[int, tuple[float, float]] = {}
    places: dict[int, int | None] = {}
    for described in net.tables(_NET_DESCRIBED):
        quant = described.table(_TENSOR_QUANT)
        if quant is not None:
            index = described.number(_TENSOR_INDEX)
            scales[index] = (quant.real(_QUANT_SCALE), quant.real(_QUANT_ZERO))
            places[index] = quant.place(_QUANT_SCALE)
    names = net.strings(_NET_TENSORS)
    left = []
    # A scale that was changed is what the next pool has in front of it.
    for op in net.tables(_NET_OPS):
        if _kind(op, scales, set()) != "max_pools":
            continue
        before, behind = scales.get(op.numbers(_OP_INPUTS)[0]), op.numbers(_OP_OUTPUTS)[0]
        place = places.get(behind)
        if before is None or place is None:
            left.append(op.string(_OP_NAME) or _first_output(op, names))
            continue
        scale = float(np.nextafter(np.float32(before[0]), np.float32(np.inf)))
        struct.pack_into("<f", changed, place, scale)
        scales[behind] = (scale, scales[behind][1])
    return bytes(changed), tuple(left)


def _kind(op: Table, scales: Mapping[int, tuple[float, float]], packed: set[int]) -> str | None:
    """Which of the lists this operator belongs to; adds to `packed` the tensors it puts out in NC4HW4."""
    kind, parameter = MNN_OPS.get(op.number(_OP_TYPE)), op.table(_OP_MAIN)
    inputs, outputs = op.numbers(_OP_INPUTS), op.numbers(_OP_OUTPUTS)
    if not inputs or not outputs or parameter is None:
        return None
    if kind in _PACKED or (kind in _AS_IT_COMES and not packed.isdisjoint(inputs)):
        packed.update(outputs)
    if kind == "BinaryOp":
        return "tails" if all(index in scales for index in inputs) and outputs[0] not in packed else None
    if kind not in ("Convolution", "ConvInt8", "Pooling"):
        return None
    before, behind = scales.get(inputs[0]), scales.get(outputs[0])
    if kind == "Pooling":
        apart = before is not None and behind is not None and before != behind
        return "max_pools" if not apart and parameter.number(_POOL_TYPE, "b") == _MAX_POOL else None
    common = parameter.table(_CONV_COMMON)
    if common is None or before is None or behind is None or parameter.count(_CONV_WEIGHT, 4):
        return None
    groups = max(common.number(_COMMON_GROUP, default=1), 1)
    channels = common.number(_COMMON_OUTPUTS) // groups
    return "half_tiles" if -(-channels // _PACK) % 2 else None


def _first_output(op: Table, names: list[str]) -> str:
    index = op.numbers(_OP_OUTPUTS)[0]
    if not 0 <= index < len(names):
        raise BrokenFileError("an operator refers to a tensor that does not exist")
    return names[index]
