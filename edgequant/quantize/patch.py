"""Small repairs of .mnn files that MNN's tools wrote incompletely."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.files import atomic_write
from edgequant.graph.flat import FlatFile
from edgequant.graph.model import BrokenFileError

# Fields of a Net in schema order: "o" an offset, else the struct format of a number.
_NET = ("o", "o", "o", "o", "o", "b", "b", "o", "i", "b", "o", "o")
_NET_OUTPUTS, _NET_TENSORS = 4, 7
_ALIGN = 16


def set_outputs(path: Path, names: Sequence[str]) -> None:
    """Write into a model which tensors are its outputs, in this order.

    EMA and static conversion leave that out.  MNN then takes every tensor nobody reads, so that a GRU's unused last
    state becomes an output, and an output that is also used inside is lost.

    A FlatBuffer's offsets are relative and its root may be anywhere before what it points to: so a new root is put in
    front, and the rest stays as it is.

    Raises ToolError QUANTIZER_OUTPUT_LOST where there is no such tensor, QUANTIZER_BAD_OUTPUT for a file of another
    form.
    """
    data = path.read_bytes()
    try:
        net = FlatFile(data).root()
        lost = set(names) - set(net.strings(_NET_TENSORS))
        if lost:
            raise ToolError("QUANTIZER_OUTPUT_LOST", f"the model it wrote has no output '{sorted(lost)[0]}' any more")
        if any(net.has(field) for field in range(len(_NET), net.fields)):
            raise BrokenFileError("it has parts that are not known here")
    except BrokenFileError as error:
        raise ToolError("QUANTIZER_BAD_OUTPUT", f"the model it wrote cannot be completed: {error}") from None
    with atomic_write(path) as stream:
        stream.write(_front(data, [name.encode() for name in names]))
        stream.write(data)


def _front(data: bytes, names: Sequence[bytes]) -> bytes:
    """The bytes to put before `data`: the root offset, a table like the old root, and the outputs' names."""
    root = struct.unpack_from("<I", data, 0)[0]
    vtable = root - struct.unpack_from("<i", data, root)[0]
    length = struct.unpack_from("<H", data, vtable)[0]
    old = [
        struct.unpack_from("<H", data, vtable + 4 + 2 * field)[0] if 4 + 2 * field < length else 0
        for field in range(len(_NET))
    ]
    kept = [field for field in range(len(_NET)) if old[field] or field == _NET_OUTPUTS]
    slots = {field: 4 + 4 * number for number, field in enumerate(kept)}  # four bytes each, numbers too
    new_vtable = 4
    table = new_vtable + 4 + 2 * len(_NET)
    table += -table % 4
    vector = table + 4 + 4 * len(kept)
    at = vector + 4 + 4 * len(names)
    strings = []
    for name in names:
        strings.append(at)
        at += 4 + len(name) + 1
        at += -at % 4
    size = at + -at % _ALIGN
    out = bytearray(size)
    struct.pack_into("<I", out, 0, table)
    struct.pack_into("<HH", out, new_vtable, 4 + 2 * len(_NET), 4 + 4 * len(kept))
    struct.pack_into("<i", out, table, table - new_vtable)
    for field in kept:
        struct.pack_into("<H", out, new_vtable + 4 + 2 * field, slots[field])
        slot = table + slots[field]
        if field == _NET_OUTPUTS:
            struct.pack_into("<I", out, slot, vector - slot)
        elif _NET[field] == "o":
            source = root + old[field]
            struct.pack_into("<I", out, slot, size + source + struct.unpack_from("<I", data, source)[0] - slot)
        else:
            code = "<" + _NET[field]
            struct.pack_into(code, out, slot, struct.unpack_from(code, data, root + old[field])[0])
    struct.pack_into("<I", out, vector, len(names))
    for number, (name, start) in enumerate(zip(names, strings, strict=True)):
        place = vector + 4 + 4 * number
        struct.pack_into("<I", out, place, start - place)
        struct.pack_into(f"<I{len(name)}s", out, start, len(name), name)
    return bytes(out)
