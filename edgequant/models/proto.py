"""A reader of protobuf messages that trusts nothing and copies nothing it is not asked for.

Reading a whole ONNX file with its own package takes several times its size in memory; all that is wanted here are
names and shapes, so fields that are not asked for (the weights) are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.models.model import BrokenFileError, Data, Work

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

MAX_FIELDS = 10_000_000
"""More fields than any real graph has; a crafted file of the allowed size could hold a hundred times as many."""


def varint(data: Data, position: int, end: int) -> tuple[int, int]:
    """(value, position behind it) of the unsigned number at ``position``."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise BrokenFileError("a number has more than ten bytes")
    raise BrokenFileError("it ends inside a number", cut=end == len(data))


def fields(data: Data, start: int, end: int, work: Work) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message in ``data[start:end]``, one level deep.

    Yields (number, wire type, a, b): a varint's value in ``a``; for everything else the extent ``data[a:b]``.
    """
    position = start
    while position < end:
        work.spend()
        tag, position = varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise BrokenFileError("a field has the number 0")
        if wire == VARINT:
            value, position = varint(data, position, end)
            yield number, wire, value, position
            continue
        if wire == BYTES:
            length, position = varint(data, position, end)
        elif wire == FIXED32:
            length = 4
        elif wire == FIXED64:
            length = 8
        else:
            raise BrokenFileError(f"a field has the unknown wire type {wire}")
        stop = position + length
        if stop > end:
            raise BrokenFileError(f"a field goes on for {stop - end} bytes behind the end", cut=end == len(data))
        yield number, wire, position, stop
        position = stop


def signed(value: int) -> int:
    """A varint as the int64 it was written from."""
    return value - (1 << 64) if value >= 1 << 63 else value


def integers(data: Data, wire: int, a: int, b: int, work: Work) -> list[int]:
    """A repeated int64 field's values, whichever of the two encodings (packed or not) it has."""
    if wire == VARINT:
        return [signed(a)]
    if wire != BYTES:
        raise BrokenFileError("a list of numbers has the wrong type")
    values = []
    while a < b:
        work.spend()
        value, a = varint(data, a, b)
        values.append(signed(value))
    return values
