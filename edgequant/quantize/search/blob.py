"""Writes one operator of a .mnn: the layer's own, with weights kept in another form.

A blob is a run of bytes that can stand anywhere in a file, on a multiple of 16, for offsets in FlatBuffers are
relative.  What is not about weights is copied from the layer as it is in the float model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from edgequant.models.flat import Table
from edgequant.quantize.encode import Encoded

_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE, _OP_LAYOUT = 0, 1, 2, 3, 4, 5, 6
_CONV_COMMON, _CONV_BIAS, _CONV_QUANT = 0, 2, 3
_COMMON_INTS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11)
_COMMON_BYTES = (8, 12, 13, 16)
_COMMON_VECTORS = (14, 15)
OP_FIELDS, CONV_FIELDS, COMMON_FIELDS = 8, 7, 17
"""Fields known here; a layer with more is of an MNN that keeps something this would lose."""

Child = Callable[["_Writer"], int]
Field = tuple[int, str, "int | float | Child"]


class _Writer:
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

    def table(self, fields: Sequence[Field]) -> int:
        """A table, then what its offsets (code ``o``) lead to; returns where the table is."""
        offsets: dict[int, int] = {}
        size = 4
        for number, code, _ in fields:
            width = 4 if code == "o" else struct.calcsize("<" + code)
            size += -size % width
            offsets[number] = size
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
        for number, code, value in fields:
            if code == "o":
                assert callable(value)
                children.append((start + offsets[number], value))
            else:
                assert not callable(value)
                struct.pack_into("<" + code, self.data, start + offsets[number], value)
        for slot, child in children:
            struct.pack_into("<I", self.data, slot, child(self) - slot)
        return start


def blob(op: Table, encoded: Encoded) -> tuple[bytes, int]:
    """(the bytes, where in them the operator is)."""
    parameter = op.table(_OP_MAIN)
    assert parameter is not None
    common = parameter.table(_CONV_COMMON)
    assert common is not None
    writer = _Writer()
    convolution: list[Field] = [
        (_CONV_COMMON, "o", lambda w: w.table(_common(common))),
        (_CONV_BIAS, "o", lambda w: w.vector(parameter.raw(_CONV_BIAS, 4), 4)),
        (_CONV_QUANT, "o", lambda w: w.table(_quant(encoded))),
    ]
    fields: list[Field] = [
        (_OP_INPUTS, "o", lambda w: w.vector(op.raw(_OP_INPUTS, 4), 4)),
        (_OP_KIND, "B", op.number(_OP_KIND, "B")),
        (_OP_MAIN, "o", lambda w: w.table(convolution)),
        (_OP_NAME, "o", lambda w: w.string(op.string(_OP_NAME) or "")),
        (_OP_OUTPUTS, "o", lambda w: w.vector(op.raw(_OP_OUTPUTS, 4), 4)),
        (_OP_TYPE, "i", op.number(_OP_TYPE)),
        (_OP_LAYOUT, "b", op.number(_OP_LAYOUT, "b", 1)),
    ]
    start = writer.table(fields)
    return bytes(writer.data), start


def _common(common: Table) -> list[Field]:
    ones = (2, 3, 4, 5, 6, 7, 9)  # kernel, stride, dilation and group are 1 where they are left out
    fields: list[Field] = [(n, "i", common.number(n, default=int(n in ones))) for n in _COMMON_INTS]
    fields += [(n, "b", common.number(n, "b")) for n in _COMMON_BYTES]
    for number in _COMMON_VECTORS:
        if common.has(number):
            fields.append((number, "o", _copied(common.raw(number, 4))))
    return sorted(fields, key=lambda field: field[0])


def _copied(content: bytes) -> Child:
    return lambda writer: writer.vector(content, 4)


def _quant(encoded: Encoded) -> list[Field]:
    half = encoded.form.bits == 16
    fields: list[Field] = [(0, "o", lambda w: w.vector(encoded.buffer, 1))]
    if not half:
        fields.append((1, "o", lambda w: w.vector(encoded.scales.tobytes(), 4)))
    fields += [(2, "i", 3 if half else 1), (3, "b", 0), (4, "f", 0.0 if half else 1.0), (5, "f", 0.0), (6, "f", 0.0)]
    shifted = not half and not encoded.form.sym
    least = -(2 ** (encoded.form.bits - 1)) if shifted else 0
    fields += [(7, "i", 0 if half else encoded.form.bits), (8, "i", least)]
    fields += [(9, "i", encoded.groups if shifted else 0), (10, "b", 0), (11, "b", int(encoded.wide)), (12, "I", 0)]
    return fields
