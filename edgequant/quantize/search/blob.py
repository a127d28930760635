"""Writes one operator of a .mnn: the layer's own, with weights kept in another form.

A blob is a run of bytes that can stand anywhere in a file, on a multiple of 16, for offsets in FlatBuffers are
relative.  What is not about weights is copied from the layer as it is in the float model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from edgequant.models.flat import Field, Table, fields
from edgequant.models.mnn.net import convolution
from edgequant.models.mnn.schema import Convolution2D, Convolution2DCommon, IDSTQuan, IDSTQuanType, Op
from edgequant.quantize.encode import Encoded

Child = Callable[["Writer"], int]
Value = tuple[Field, "int | float | Child"]


class Writer:
    """Objects one behind the other; an offset is filled in when what it leads to is written."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += b"\0" * (-len(self.data) % size)

    def vector(self, content: bytes, width: int) -> int:
        self.align(4)
        start = len(self.data)
        self.data += struct.pack("<I", len(content) // width) + content
        return start

    def string(self, text: str) -> int:
        raw = text.encode("utf-8")
        start = self.vector(raw, 1)
        self.data += b"\0"
        return start

    def table(self, values: Sequence[Value]) -> int:
        """A table, then what its offsets lead to; returns where the table is."""
        offsets: dict[int, int] = {}
        size = 4
        for field, _ in values:
            width = struct.calcsize("<" + field.kind) if field.inline else 4
            size += -size % width
            offsets[field.number] = size
            size += width
        count = max(offsets) + 1
        self.align(4)
        vtable = len(self.data)
        self.data += struct.pack("<HH", 4 + 2 * count, size)
        self.data += struct.pack(f"<{count}H", *(offsets.get(number, 0) for number in range(count)))
        self.align(4)
        start = len(self.data)
        self.data += struct.pack("<i", start - vtable) + b"\0" * (size - 4)
        children = []
        for field, value in values:
            if callable(value):
                children.append((start + offsets[field.number], value))
            else:
                struct.pack_into("<" + field.kind, self.data, start + offsets[field.number], value)
        for slot, child in children:
            struct.pack_into("<I", self.data, slot, child(self) - slot)
        return start


def blob(op: Table, encoded: Encoded) -> tuple[bytes, int]:
    """(the bytes, where in them the operator is)."""
    layer = convolution(op)
    assert layer is not None
    common = layer.table(Convolution2D.common)
    assert common is not None
    writer = Writer()
    convolution_2d: list[Value] = [
        (Convolution2D.common, lambda w: w.table(_copied(common, Convolution2DCommon))),
        (Convolution2D.bias, _vector(layer, Convolution2D.bias)),
        (Convolution2D.quan_parameter, lambda w: w.table(_quant(encoded))),
    ]
    values: list[Value] = [
        (Op.input_indexes, _vector(op, Op.input_indexes)),
        (Op.main_type, op.number(Op.main_type)),
        (Op.main, lambda w: w.table(convolution_2d)),
        (Op.name, lambda w: w.string(op.string(Op.name) or "")),
        (Op.output_indexes, _vector(op, Op.output_indexes)),
        (Op.type, op.number(Op.type)),
        (Op.default_dimention_format, op.number(Op.default_dimention_format)),
    ]
    start = writer.table(values)
    return bytes(writer.data), start


def float_blob(op: Table, like: Table) -> tuple[bytes, int]:
    """As `blob`: a layer with its float weights, in place of the operator `like`, whose tensors it gets.

    op: of the float model, which may number its tensors otherwise.
    """
    layer = convolution(op)
    assert layer is not None
    common = layer.table(Convolution2D.common)
    assert common is not None
    writer = Writer()
    convolution_2d: list[Value] = [
        (Convolution2D.common, lambda w: w.table(_copied(common, Convolution2DCommon))),
        (Convolution2D.weight, _vector(layer, Convolution2D.weight)),
        (Convolution2D.bias, _vector(layer, Convolution2D.bias)),
    ]
    values: list[Value] = [
        (Op.input_indexes, _vector(like, Op.input_indexes)),
        (Op.main_type, op.number(Op.main_type)),
        (Op.main, lambda w: w.table(convolution_2d)),
        (Op.name, lambda w: w.string(like.string(Op.name) or "")),
        (Op.output_indexes, _vector(like, Op.output_indexes)),
        (Op.type, op.number(Op.type)),
        (Op.default_dimention_format, like.number(Op.default_dimention_format)),
    ]
    start = writer.table(values)
    return bytes(writer.data), start


def _copied(table: Table, layout: type) -> list[Value]:
    """A table of numbers and vectors of four-byte numbers, as it is."""
    values: list[Value] = []
    for field in fields(layout):
        if field.inline:
            values.append((field, table.number(field)))
        elif table.has(field):
            values.append((field, _vector(table, field)))
    return values


def _vector(table: Table, field: Field) -> Child:
    return lambda writer: writer.vector(table.raw(field), 4)


def _quant(encoded: Encoded) -> list[Value]:
    half = encoded.form.bits == 16
    shifted = not half and not encoded.form.sym
    values: list[Value] = [(IDSTQuan.buffer, lambda w: w.vector(encoded.buffer, 1))]
    if not half:
        values.append((IDSTQuan.alpha, lambda w: w.vector(encoded.scales.tobytes(), 4)))
    return [
        *values,
        (IDSTQuan.type, IDSTQuanType.FP16 if half else IDSTQuanType.INT8),
        (IDSTQuan.use_int32, 0),
        (IDSTQuan.quant_scale, 0.0 if half else 1.0),
        (IDSTQuan.scale_in, 0.0),
        (IDSTQuan.scale_out, 0.0),
        (IDSTQuan.a_max_or_bits, 0 if half else encoded.form.bits),
        (IDSTQuan.a_min, -(2 ** (encoded.form.bits - 1)) if shifted else 0),
        (IDSTQuan.read_type, encoded.groups if shifted else 0),
        (IDSTQuan.has_scale_int, 0),
        (IDSTQuan.shape_int32, int(encoded.wide)),
        (IDSTQuan.weight_size, 0),
    ]
