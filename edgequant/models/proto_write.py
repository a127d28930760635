"""Writes protobuf messages field by field: what `proto` reads."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from edgequant.models.proto import BYTES, FIXED32, VARINT


def varint(value: int) -> bytes:
    """An int64 as it is written; negative ones take ten bytes."""
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def number(field: int, value: int) -> bytes:
    return tag(field, VARINT) + varint(value)


def content(field: int, value: bytes | str) -> bytes:
    """A string, bytes or a message."""
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return tag(field, BYTES) + varint(len(raw)) + raw


def real(field: int, value: float) -> bytes:
    return tag(field, FIXED32) + struct.pack("<f", value)


def numbers(field: int, values: Iterable[int]) -> bytes:
    """A list of int64, not packed: every reader takes that."""
    return b"".join(number(field, value) for value in values)
