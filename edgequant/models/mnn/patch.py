"""Repairs .mnn files whose outputs MNN's tools wrote down wrongly or not at all."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.files import atomic_write
from edgequant.models.flat import Field, FlatFile, fields
from edgequant.models.mnn.schema import Net, Op
from edgequant.models.model import BrokenFileError, ModelGraph

_FIELDS = fields(Net)
_ALIGN = 16


@dataclass(frozen=True)
class Output:
    """An output of a model: its name, and the operator that makes it as its `index`-th result (None: an input)."""

    name: str
    operator: str | None
    index: int = 0


def outputs_of(graph: ModelGraph) -> tuple[Output, ...]:
    """The outputs of a model and where they come from."""
    made = {
        tensor: Output(tensor, op.name, index)
        for op in graph.ops
        if op.subgraph is None
        for index, tensor in enumerate(op.outputs)
    }
    return tuple(made.get(spec.name, Output(spec.name, None)) for spec in graph.outputs or ())


def restore_outputs(path: Path, outputs: Sequence[Output]) -> None:
    """Make a model's outputs those of the model it was made from, by name and in order.

    EMA and static conversion leave the list out.  MNN then takes every tensor nobody reads, so that a GRU's unused last
    state becomes an output, and an output that is also used inside is lost.  And EMA names tensors after the operators
    that make them, so that an output's name can sit on another tensor, of another shape, or on two.  Operators keep
    their names, so the outputs are found by these.

    A FlatBuffer's offsets are relative and point forward: so new names are put behind it, and a new root in front.
    Nothing else is touched, and nothing at all where nothing is wrong.

    Raises ToolError QUANTIZER_OUTPUT_LOST where there is no such tensor, QUANTIZER_BAD_OUTPUT for a file of another
    form.
    """
    data = path.read_bytes()
    names = [output.name for output in outputs]
    try:
        net = FlatFile(data).root()
        tensors = net.strings(Net.tensor_name)
        made = {op.string(Op.name): op.numbers(Op.output_indexes) for op in net.tables(Net.oplists)}
        renamed = _renamed(tensors, made, outputs)
        listed = net.strings(Net.output_name)
        if any(net.has(Field(number, "o")) for number in range(len(_FIELDS), net.fields)):
            raise BrokenFileError("it has parts that are not known here")
    except BrokenFileError as error:
        raise ToolError("QUANTIZER_BAD_OUTPUT", f"the model it wrote cannot be completed: {error}") from None
    if not renamed and listed == names:
        return
    body = _with_names(data, renamed)
    with atomic_write(path) as stream:
        stream.write(_front(body, [name.encode() for name in names]))
        stream.write(body)


def _renamed(
    tensors: Sequence[str], made: dict[str | None, tuple[int, ...]], outputs: Sequence[Output]
) -> dict[int, str]:
    """New names by tensor number, so that every output's name is that of its own tensor alone."""
    renamed: dict[int, str] = {}
    for output in outputs:
        named = [number for number, name in enumerate(tensors) if name == output.name]
        results = made.get(output.operator, ()) if output.operator is not None else ()
        right = results[output.index] if output.index < len(results) else named[0] if len(named) == 1 else -1
        if not 0 <= right < len(tensors):
            raise ToolError("QUANTIZER_OUTPUT_LOST", f"the model it wrote has no output '{output.name}' any more")
        if tensors[right] != output.name:
            renamed[right] = output.name
        for number in named:
            if number != right:
                renamed.setdefault(number, f"{output.name}__inner_{number}")
    return renamed


def _with_names(data: bytes, renamed: dict[int, str]) -> bytes:
    """The file with other names for some tensors, appended at its end."""
    body = bytearray(data)
    names, _ = FlatFile(data).root().extent(Net.tensor_name)
    for number, name in renamed.items():
        body += bytes(-len(body) % 4)
        entry = names + 4 * number
        struct.pack_into("<I", body, entry, len(body) - entry)
        body += struct.pack("<I", len(name.encode())) + name.encode() + b"\0"
    return bytes(body)


def _front(data: bytes, names: Sequence[bytes]) -> bytes:
    """The bytes to put before `data`: the root offset, a table like the old root, and the outputs' names."""
    old = FlatFile(data).root()
    kept = [field for field in _FIELDS if old.has(field) or field == Net.output_name]
    slots = {field: 4 + 4 * number for number, field in enumerate(kept)}  # four bytes each, numbers too
    new_vtable = 4
    table = new_vtable + 4 + 2 * len(_FIELDS)
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
    struct.pack_into("<HH", out, new_vtable, 4 + 2 * len(_FIELDS), 4 + 4 * len(kept))
    struct.pack_into("<i", out, table, table - new_vtable)
    for field in kept:
        struct.pack_into("<H", out, new_vtable + 4 + 2 * field.number, slots[field])
        slot, source = table + slots[field], old.place(field)
        if field == Net.output_name or source is None:
            struct.pack_into("<I", out, slot, vector - slot)
        elif field.inline:
            struct.pack_into("<" + field.kind, out, slot, old.number(field))
        else:
            struct.pack_into("<I", out, slot, size + source + struct.unpack_from("<I", data, source)[0] - slot)
    struct.pack_into("<I", out, vector, len(names))
    for number, (name, start) in enumerate(zip(names, strings, strict=True)):
        place = vector + 4 + 4 * number
        struct.pack_into("<I", out, place, start - place)
        struct.pack_into(f"<I{len(name)}s", out, start, len(name), name)
    return bytes(out)
