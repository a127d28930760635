"""A reader of FlatBuffers tables that trusts nothing: every offset is checked, all work is bounded by the file size."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgequant.models.model import BrokenFileError, Data, Work, text

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_SCALARS = {code: struct.Struct("<" + code) for code in "bBiIqQf"}


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
    """One table.  Fields are numbered in schema order from 0; a field that is left out reads as its default."""

    __slots__ = ("_file", "_position", "_vtable", "fields")

    def __init__(self, file: FlatFile, position: int) -> None:
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
        self._position = position
        self._vtable = vtable
        self.fields = (size - 4) // 2

    def _slot(self, field: int) -> int | None:
        if field >= self.fields:
            return None
        offset = int(_U16.unpack_from(self._file.data, self._vtable + 4 + 2 * field)[0])
        return self._position + offset if offset else None

    def place(self, field: int) -> int | None:
        """Position of a number's first byte in the file; None where the field is left out."""
        return self._slot(field)

    def has(self, field: int) -> bool:
        return self._slot(field) is not None

    def number(self, field: int, code: str = "i", default: int = 0) -> int:
        """An integer field; ``code`` is its struct format character."""
        slot = self._slot(field)
        if slot is None:
            return default
        scalar = _SCALARS[code]
        self._file.need(slot, scalar.size)
        return int(scalar.unpack_from(self._file.data, slot)[0])

    def real(self, field: int) -> float:
        """A float field; 0 if it is left out.  May be NaN or infinite."""
        slot = self._slot(field)
        if slot is None:
            return 0.0
        self._file.need(slot, 4)
        return float(_SCALARS["f"].unpack_from(self._file.data, slot)[0])

    def table(self, field: int) -> Table | None:
        slot = self._slot(field)
        return None if slot is None else Table(self._file, self._file.follow(slot))

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """(position of the first element, number of elements); (0, 0) if the field is left out."""
        slot = self._slot(field)
        if slot is None:
            return 0, 0
        start = self._file.follow(slot)
        count = self._file.u32(start)
        self._file.need(start + 4, count * width)
        return start + 4, count

    def count(self, field: int, width: int) -> int:
        """Number of elements of ``width`` bytes in a vector whose whole extent was checked; none of them is read."""
        return self._vector(field, width)[1]

    def extent(self, field: int, width: int) -> tuple[int, int]:
        """(position in the file, number of elements) of a vector whose whole extent was checked; (0, 0): left out."""
        return self._vector(field, width)

    def raw(self, field: int, width: int) -> bytes:
        """A copy of a vector of elements of ``width`` bytes, as it is stored: little-endian."""
        start, count = self._vector(field, width)
        self._file.work.spend(count)
        return bytes(self._file.data[start : start + count * width])

    def numbers(self, field: int, code: str = "i") -> tuple[int, ...]:
        start, count = self._vector(field, _SCALARS[code].size)
        self._file.work.spend(count)
        return struct.unpack_from(f"<{count}{code}", self._file.data, start) if count else ()

    def string(self, field: int) -> str | None:
        slot = self._slot(field)
        return None if slot is None else self._string_at(self._file.follow(slot))

    def _string_at(self, start: int) -> str:
        length = self._file.u32(start)
        self._file.need(start + 4, length + 1)  # a zero byte follows every string
        self._file.work.spend(1 + length)
        return text(self._file.data[start + 4 : start + 4 + length])

    def strings(self, field: int) -> list[str]:
        start, count = self._vector(field, 4)
        return [self._string_at(self._file.follow(start + 4 * index)) for index in range(count)]

    def tables(self, field: int) -> Iterator[Table]:
        for _, table in self.places(field):
            yield table

    def places(self, field: int) -> Iterator[tuple[int, Table]]:
        """The tables of a vector, each with the position of the offset that leads to it."""
        start, count = self._vector(field, 4)
        for index in range(count):
            slot = start + 4 * index
            yield slot, Table(self._file, self._file.follow(slot))

    @property
    def position(self) -> int:
        """Where the table is in the file, in bytes."""
        return self._position
