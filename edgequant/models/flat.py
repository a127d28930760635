"""A reader of FlatBuffers tables that trusts nothing: every offset is checked, all work is bounded by the file size."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from edgequant.models.model import BrokenFileError, Data, Work, text

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_SCALARS = {code: struct.Struct("<" + code) for code in "bBHiIqQf"}
_WIDTHS = {"s": 1, "[o]": 4, "[s]": 4, **{f"[{code}]": scalar.size for code, scalar in _SCALARS.items()}}


class Field(NamedTuple):
    """A field of a table, as a schema has it.

    Attributes:
        number: its place in the schema, from 0; a union takes two.
        kind: the struct format character of a number, ``o`` (a table) or ``s`` (a string); in brackets a vector of it.
        default: what a number is where it is left out.
    """

    number: int
    kind: str
    default: int = 0

    @property
    def inline(self) -> bool:
        """Whether it is a number, which is in the table itself and not behind an offset."""
        return self.kind in _SCALARS


def fields(layout: type) -> tuple[Field, ...]:
    """All fields of a table that is written down as a class, in order."""
    return tuple(each for each in vars(layout).values() if isinstance(each, Field))


class FlatFile:
    """A FlatBuffers file.

    A crafted file can let many tables share one vector; each read of an element is counted, so the total stays
    linear in the file size however the offsets are laid out.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.size = len(data)
        self.work = Work(2 * self.size + 65536)

    def need(self, position: int, length: int) -> None:
        """Raise BrokenFileError unless ``length`` bytes at ``position`` are inside the file."""
        if position < 0:
            raise BrokenFileError("an offset points in front of the file")
        if position + length > self.size:
            raise BrokenFileError(f"an offset points {position + length - self.size} bytes behind the end", cut=True)

    def u32(self, position: int) -> int:
        self.need(position, 4)
        return int(_U32.unpack_from(self.data, position)[0])

    def follow(self, position: int) -> int:
        """The position an offset stored at ``position`` points to."""
        offset = self.u32(position)
        if offset == 0:
            raise BrokenFileError("an offset points at itself")
        return position + offset

    def root(self) -> Table:
        return Table(self, self.follow(0))


class Table:
    """One table.  A field that is left out reads as its default."""

    __slots__ = ("_file", "_vtable", "fields", "position")

    def __init__(self, file: FlatFile, position: int) -> None:
        """position: where it is in the file, in bytes.  `fields`: how many it can have."""
        file.work.spend()
        file.need(position, 4)
        vtable = position - int(_I32.unpack_from(file.data, position)[0])
        file.need(vtable, 4)
        size = int(_U16.unpack_from(file.data, vtable)[0])
        inline = int(_U16.unpack_from(file.data, vtable + 2)[0])
        if size < 4 or size % 2 or inline < 4:
            raise BrokenFileError("a table has no valid field list")
        file.need(vtable, size)
        file.need(position, inline)
        self._file = file
        self._vtable = vtable
        self.position = position
        self.fields = (size - 4) // 2

    def at(self, position: int) -> Table:
        """The table at another position in the same file."""
        return Table(self._file, position)

    def place(self, field: Field) -> int | None:
        """Position of a field's first byte, of a number or an offset; None where the field is left out."""
        if field.number >= self.fields:
            return None
        offset = int(_U16.unpack_from(self._file.data, self._vtable + 4 + 2 * field.number)[0])
        return self.position + offset if offset else None

    def has(self, field: Field) -> bool:
        return self.place(field) is not None

    def number(self, field: Field) -> int:
        place = self.place(field)
        return field.default if place is None else int(self._scalar(field, place))

    def real(self, field: Field) -> float:
        """May be NaN or infinite."""
        place = self.place(field)
        return float(field.default if place is None else self._scalar(field, place))

    def _scalar(self, field: Field, place: int) -> float:
        scalar = _SCALARS[field.kind]
        self._file.need(place, scalar.size)
        value: float = scalar.unpack_from(self._file.data, place)[0]
        return value

    def table(self, field: Field) -> Table | None:
        place = self.place(field)
        return None if place is None else Table(self._file, self._file.follow(place))

    def extent(self, field: Field) -> tuple[int, int]:
        """(position of the first element, number of elements) of a vector or string; (0, 0) where it is left out.

        The whole extent was checked; nothing of it is read.
        """
        place = self.place(field)
        if place is None:
            return 0, 0
        start = self._file.follow(place)
        count = self._file.u32(start)
        self._file.need(start + 4, count * _WIDTHS[field.kind])
        return start + 4, count

    def count(self, field: Field) -> int:
        """Number of elements of a vector, as `extent` has it."""
        return self.extent(field)[1]

    def raw(self, field: Field) -> bytes:
        """A copy of a vector as it is stored: little-endian."""
        start, count = self.extent(field)
        self._file.work.spend(count)
        return bytes(self._file.data[start : start + count * _WIDTHS[field.kind]])

    def numbers(self, field: Field) -> tuple[int, ...]:
        start, count = self.extent(field)
        self._file.work.spend(count)
        return struct.unpack_from(f"<{count}{field.kind[1]}", self._file.data, start) if count else ()

    def string(self, field: Field) -> str | None:
        place = self.place(field)
        return None if place is None else self._string_at(self._file.follow(place))

    def _string_at(self, start: int) -> str:
        length = self._file.u32(start)
        self._file.need(start + 4, length + 1)  # a zero byte follows every string
        self._file.work.spend(1 + length)
        return text(self._file.data[start + 4 : start + 4 + length])

    def strings(self, field: Field) -> list[str]:
        start, count = self.extent(field)
        return [self._string_at(self._file.follow(start + 4 * index)) for index in range(count)]

    def tables(self, field: Field) -> Iterator[Table]:
        for _, table in self.places(field):
            yield table

    def places(self, field: Field) -> Iterator[tuple[int, Table]]:
        """The tables of a vector, each with the position of the offset that leads to it."""
        start, count = self.extent(field)
        for index in range(count):
            place = start + 4 * index
            yield place, Table(self._file, self._file.follow(place))
