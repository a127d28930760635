"""Just enough of ELF (64-bit, little-endian): which libraries a file needs, and the file without its debug data.

Stripping is done here rather than by a tool: it needs nothing installed, gives the same bytes on every host, and moves
nothing in memory.  (auditwheel puts segments behind the debug data of the libraries it repairs; llvm-strip breaks such
files, and cutting off the end, as sstrip does, frees nothing.)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5
AARCH64 = 183


class ElfError(ValueError):
    """The file is not an ELF file of the expected kind, or is damaged."""


@dataclass(frozen=True)
class _Segment:
    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    align: int

    def holds(self, other: _Segment) -> bool:
        return self.offset <= other.offset and other.offset + other.file_size <= self.offset + self.file_size


def is_elf(data: bytes) -> bool:
    return data[:4] == b"\x7fELF"


def machine(data: bytes) -> int:
    """The number of the machine the file is for.  Raises ElfError."""
    return int(_header(data)[2])


def needed(data: bytes) -> list[str]:
    """The sonames of the libraries the file asks for, in its order.  Raises ElfError."""
    segments = _segments(data)
    dynamic = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return []
    entries = []
    for place in range(dynamic.offset, dynamic.offset + dynamic.file_size, _DYNAMIC.size):
        tag, value = _unpack(_DYNAMIC, data, place)
        if tag == 0:
            break
        entries.append((tag, value))
    strings = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    if strings is None:
        raise ElfError("no string table")
    start = _file_offset(segments, strings)
    return [_string(data, start + value) for tag, value in entries if tag == _DT_NEEDED]


def stripped(data: bytes) -> bytes:
    """The file with nothing but what is loaded into memory: no symbols, no debug data, no section headers.

    Loaded segments keep their addresses and contents; only their places in the file change.  Raises ElfError.
    """
    header = list(_header(data))
    segments = _segments(data)
    loads = sorted((segment for segment in segments if segment.kind == _PT_LOAD), key=lambda segment: segment.offset)
    if not loads or loads[0].offset != 0:
        raise ElfError("its first segment does not hold its header")
    # Offset and address must stay equal modulo the alignment; what goes are the holes between the segments.
    places: dict[_Segment, int] = {}
    output = bytearray()
    for load in loads:
        if load.offset + load.file_size > len(data):
            raise ElfError("a segment is cut off")
        align = max(load.align, 1)
        place = len(output) + (load.address - len(output)) % align
        if load.file_size == 0:
            places[load] = load.offset % align
            continue
        output += bytes(place - len(output)) + data[load.offset : load.offset + load.file_size]
        places[load] = place
    moved = []
    for segment in segments:
        around = segment if segment in places else next((load for load in loads if load.holds(segment)), None)
        if around is None and segment.file_size:
            raise ElfError(f"segment type {segment.kind:#x} is not loaded")
        shift = 0 if around is None else places[around] - around.offset
        moved.append((segment.kind, segment.flags, segment.offset + shift, *_rest(segment)))
    table, size = header[5], _PROGRAM.size * len(segments)
    if table + size > loads[0].file_size:
        raise ElfError("its program headers are not loaded")
    output[table : table + size] = b"".join(_PROGRAM.pack(*values) for values in moved)
    header[6] = header[12] = header[13] = 0  # offset, number and name index of the section headers
    output[: _HEADER.size] = _HEADER.pack(*header)
    return bytes(output)


def _rest(segment: _Segment) -> tuple[int, int, int, int, int]:
    return segment.address, segment.physical, segment.file_size, segment.memory_size, segment.align


def _header(data: bytes) -> tuple[int, ...]:
    if not is_elf(data) or data[4:6] != b"\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")
    return _unpack(_HEADER, data, 0)


def _segments(data: bytes) -> list[_Segment]:
    header = _header(data)
    return [_Segment(*_unpack(_PROGRAM, data, header[5] + index * header[9])) for index in range(header[10])]


def _unpack(form: struct.Struct, data: bytes, place: int) -> tuple[int, ...]:
    try:
        return form.unpack_from(data, place)
    except struct.error:
        raise ElfError("the file is cut off") from None


def _file_offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.file_size:
            return segment.offset + address - segment.address
    raise ElfError("its string table is not loaded")


def _string(data: bytes, place: int) -> str:
    end = data.find(b"\0", place)
    if end < 0:
        raise ElfError("a string does not end")
    return data[place:end].decode("utf-8", "replace")
