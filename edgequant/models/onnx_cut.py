"""Cuts operators out of an ONNX file as a model of their own, and opens inner tensors of one as outputs.

Neither needs the onnx package, and weights that nobody asked for are never read.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from edgequant.models.model import BrokenFileError, Data, Work, text
from edgequant.models.proto import BYTES, FIXED32, MAX_FIELDS, VARINT, fields, integers, signed
from edgequant.models.proto_write import content, number, numbers, real, tag, varint
from edgequant.tensors import SHAPE

Value: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""What an attribute may hold, but for tensors and graphs."""
Declared: TypeAlias = tuple[str, tuple[int | None, ...]]
"""An element type and sizes, None for any."""
_Extent = tuple[int, int]

DTYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip
_MOST_DEPTH = 40
_MOST_LISTED = 64  # numbers or words of one attribute


@dataclass(frozen=True)
class Node:
    """An operator of the main graph.

    reads: its inputs, and what its branches and bodies take from the main graph; without those that are left out.
    attributes: numbers, words and short lists of these.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Value]
    extent: _Extent

    @property
    def makes(self) -> tuple[str, ...]:
        """Its outputs, without those that are left out."""
        return tuple(filter(None, self.outputs))


@dataclass(frozen=True)
class Cut:
    """Which part of a model.

    nodes: places in `OnnxFile.nodes`, ascending.  fixed: tensors that become constants.  changed: attributes of the
    last node that are other ones; None: left out.
    """

    nodes: tuple[int, ...]
    inputs: Mapping[str, Declared]
    fixed: Mapping[str, np.ndarray]
    outputs: Mapping[str, Declared]
    changed: Mapping[str, Value | None] = field(default_factory=dict)


def with_constants(part: Cut, nodes: Sequence[Node], maker: Mapping[str, int], constant: Container[str]) -> list[int]:
    """The part's nodes and those that make its constants, in order.  maker: tensor -> place of the node that makes it.
    constant: tensors that no input has a part in."""
    wanted, waiting = set(part.nodes), list(part.nodes)
    while waiting:
        for name in nodes[waiting.pop()].reads:
            place = maker.get(name)
            if place is not None and place not in wanted and name in constant and name not in part.fixed:
                wanted.add(place)
                waiting.append(place)
    return sorted(wanted)


class OnnxFile:
    """An ONNX file's main graph, in pieces.  Use as a context manager.  Raises BrokenFileError, OSError."""

    suffix = ".onnx"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._work = Work(2 * MAX_FIELDS)
        with path.open("rb") as file:
            self._data: Data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._graph = (0, 0)
        self._field = 0  # where the graph's field begins, before its length
        self._rest: list[bytes] = []
        self.nodes: list[Node] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self._stored: dict[str, _Extent] = {}
        self._ir_version = 0
        self._read()
        self.maker = {name: place for place, node in enumerate(self.nodes) for name in node.makes}
        """Tensor -> place of the node that makes it."""
        self.constant = self._constants()
        """Tensors that no input has a part in, those that nodes make included."""

    def __enter__(self) -> OnnxFile:
        return self

    def __exit__(self, *exc: object) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()

    # ---- reading

    def _fields(self, extent: _Extent) -> Iterator[tuple[int, int, int, int]]:
        return fields(self._data, *extent, self._work)

    def _text(self, a: int, b: int) -> str:
        return text(self._data[a:b])

    def _read(self) -> None:
        start = 0
        for key, wire, a, b in self._fields((0, len(self._data))):
            if key == 7 and wire == BYTES:
                self._graph, self._field = (a, b), start
            elif key == 1 and wire == VARINT:
                self._ir_version = a
            elif key in (8, 25) and wire == BYTES:  # operator sets, functions
                self._rest.append(content(key, self._data[a:b]))
            start = b
        for key, wire, a, b in self._fields(self._graph):
            if wire != BYTES:
                continue
            if key == 1:
                self.nodes.append(self._node((a, b)))
            elif key in (5, 11, 12):
                name = self._name((a, b), 8 if key == 5 else 1)
                if key == 5:
                    self._stored[name] = (a, b)
                else:
                    (self.inputs if key == 11 else self.outputs).append(name)
        self.inputs = [name for name in self.inputs if name not in self._stored]

    def _name(self, extent: _Extent, place: int) -> str:
        return next(
            (self._text(a, b) for key, wire, a, b in self._fields(extent) if key == place and wire == BYTES), ""
        )

    def _node(self, extent: _Extent, depth: int = 0) -> Node:
        inputs, outputs, inner = list[str](), list[str](), list[str]()
        name = kind = domain = ""
        given: dict[str, Value] = {}
        for key, wire, a, b in self._fields(extent):
            if wire != BYTES:
                continue
            if key in (1, 2):
                (inputs if key == 1 else outputs).append(self._text(a, b))
            elif key == 3:
                name = self._text(a, b)
            elif key == 4:
                kind = self._text(a, b)
            elif key == 5:
                inner += self._attribute((a, b), given, depth)
            elif key == 7:
                domain = self._text(a, b)
        if domain not in ("", "ai.onnx"):
            kind = f"{domain}::{kind}"
        name = name or next(filter(None, outputs), f"{kind}_{len(self.nodes)}")
        reads = tuple(dict.fromkeys(filter(None, (*inputs, *inner))))
        return Node(name, kind, reads, tuple(inputs), tuple(outputs), given, extent)

    def _attribute(self, extent: _Extent, given: dict[str, Value], depth: int) -> list[str]:
        """Notes an attribute's value; what the graphs in it take from outside."""
        key, listed, inner = "", list[Any](), list[str]()
        value: Value | None = None
        for place, wire, a, b in self._fields(extent):
            if place == 1 and wire == BYTES:
                key = self._text(a, b)
            elif place == 2 and wire == FIXED32:
                (value,) = struct.unpack("<f", self._data[a:b])
            elif place == 3 and wire == VARINT:
                value = signed(a)
            elif place == 4 and wire == BYTES and b - a <= 200:
                value = self._text(a, b)
            elif place == 7 and (b - a) % 4 == 0 and (b - a) // 4 <= _MOST_LISTED:
                listed += struct.unpack(f"<{(b - a) // 4}f", self._data[a:b])
            elif place == 8 and len(listed) < _MOST_LISTED and (wire == VARINT or b - a <= 8 * _MOST_LISTED):
                listed += integers(self._data, wire, a, b, self._work)
            elif place == 9 and wire == BYTES and len(listed) < _MOST_LISTED:
                listed.append(self._text(a, b))
            elif place in (6, 11) and wire == BYTES:
                inner += self._outer((a, b), depth + 1)
        if listed:
            given[key] = tuple(listed)
        elif value is not None:
            given[key] = value
        return inner

    def _outer(self, extent: _Extent, depth: int) -> list[str]:
        """Tensors that a branch or body takes from the graphs around it."""
        if depth > _MOST_DEPTH:
            raise BrokenFileError("its branches are nested too deep")
        made, read = set[str](), list[str]()
        for key, wire, a, b in self._fields(extent):
            if wire != BYTES:
                continue
            if key == 1:
                node = self._node((a, b), depth)
                made.update(node.outputs)
                read += node.reads
            elif key in (5, 11):
                made.add(self._name((a, b), 8 if key == 5 else 1))
            elif key == 12:
                read.append(self._name((a, b), 1))
        return [name for name in read if name not in made]

    def _constants(self) -> set[str]:
        found = set(self._stored)
        for node in self.nodes:
            if all(name in found for name in node.reads) and "Random" not in node.kind:
                found.update(node.makes)
        return found

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data)

    @property
    def opset(self) -> int:
        """Of ONNX's own operators; 1 where it is not told."""
        found = 1
        for key, wire, a, b in self._fields((0, len(self._data))):
            if key == 8 and wire == BYTES:
                pairs = {place: (c, d) for place, _, c, d in self._fields((a, b))}
                if 1 not in pairs or self._text(*pairs[1]) in ("", "ai.onnx"):
                    found = pairs.get(2, (1, 0))[0]
        return found

    def of_values(self) -> set[str]:
        """Tensors that values of an input have a part in, and not its sizes alone."""
        found = set(self.inputs)
        for node in self.nodes:
            if node.kind not in ("Shape", "Size") and not found.isdisjoint(node.reads):
                found.update(node.makes)
        return found

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """Of a stored tensor; None where it is none."""
        if name not in self._stored:
            return None
        found: list[int] = []
        for key, wire, a, b in self._fields(self._stored[name]):
            found += integers(self._data, wire, a, b, self._work) if key == 1 else []
        return tuple(found)

    def is_stored(self, name: str) -> bool:
        return name in self._stored

    # ---- writing

    def open_tensors(self, names: Iterable[str], shapes: Iterable[str], out: Path) -> None:
        """A copy that hands out these tensors, and the sizes of those in `shapes` as NAME + SHAPE, beside its own
        outputs.  External weights have to lie beside the copy as they do beside the source."""
        added = b"".join(content(12, content(1, name)) for name in names if name not in self.outputs)
        for name in shapes:
            node = content(1, name) + content(2, name + SHAPE) + content(4, "Shape")
            added += content(1, node) + content(12, _value(name + SHAPE, "int64", (None,)))
        a, b = self._graph
        with out.open("wb") as file, memoryview(self._data) as data:
            for start, end, more in ((0, self._field, tag(7, BYTES) + varint(b - a + len(added))), (a, b, added)):
                with data[start:end] as kept:
                    file.write(kept)
                file.write(more)
            with data[b:] as kept:
                file.write(kept)

    def spliced(self, before: Mapping[int, bytes], reads: Mapping[int, Mapping[str, str]], out: Path) -> None:
        """A copy with something in front of nodes (fields of a graph, by the place of the node), which read it in place
        of what they read.  External weights: as `open_tensors` has them."""
        a, b = self._graph
        pieces, start, place = list[bytes](), a, 0
        for key, wire, c, d in self._fields(self._graph):
            whole = self._data[start:d]
            if key == 1 and wire == BYTES:
                if place in before:
                    whole = before[place] + content(1, self._reading((c, d), reads[place]))
                place += 1
            pieces.append(whole)
            start = d
        graph = b"".join(pieces)
        with out.open("wb") as file:
            file.write(self._data[: self._field] + tag(7, BYTES) + varint(len(graph)) + graph + self._data[b:])

    def _reading(self, extent: _Extent, other: Mapping[str, str]) -> bytes:
        pieces, start = list[bytes](), extent[0]
        for key, wire, a, b in self._fields(extent):
            name = self._text(a, b) if key == 1 and wire == BYTES else ""
            pieces.append(content(1, other[name]) if name in other else self._data[start:b])
            start = b
        return b"".join(pieces)

    def cut(self, part: Cut, out: Path) -> None:
        """Write a part as a model of its own, with its weights in it."""
        nodes = with_constants(part, self.nodes, self.maker, self.constant)
        pieces = [content(2, "cut")]
        wanted = dict.fromkeys(name for place in nodes for name in self.nodes[place].reads)
        for place in nodes:
            a, b = self.nodes[place].extent
            last = bool(part.changed) and place == part.nodes[-1]
            pieces.append(content(1, self._changed((a, b), part.changed) if last else self._data[a:b]))
        for name in wanted:
            if name in part.fixed:
                pieces.append(content(5, tensor(name, part.fixed[name])))
            elif name in self._stored:
                pieces.append(content(5, self._initializer(self._stored[name])))
        pieces += [content(11, _value(name, dtype, sizes)) for name, (dtype, sizes) in part.inputs.items()]
        pieces += [content(12, _value(name, dtype, sizes)) for name, (dtype, sizes) in part.outputs.items()]
        with out.open("wb") as file:
            file.write(number(1, max(self._ir_version, 4)) + b"".join(self._rest) + content(7, b"".join(pieces)))

    def _changed(self, extent: _Extent, changed: Mapping[str, Value | None]) -> bytes:
        pieces, start = [], extent[0]
        for key, wire, a, b in self._fields(extent):
            if not (key == 5 and wire == BYTES and self._name((a, b), 1) in changed):
                pieces.append(self._data[start:b])
            start = b
        pieces += [content(5, attribute(name, value)) for name, value in changed.items() if value is not None]
        return b"".join(pieces)

    def _initializer(self, extent: _Extent) -> bytes:
        """A TensorProto with its contents in it, wherever they were."""
        kept, entries, external = list[bytes](), dict[str, str](), False
        for key, wire, a, b in self._fields(extent):
            if key == 13 and wire == BYTES:
                pair = {place: self._text(c, d) for place, w, c, d in self._fields((a, b)) if w == BYTES}
                entries[pair.get(1, "")] = pair.get(2, "")
            elif key == 14:
                external = a == 1
            elif key in (1, 2) and wire == VARINT:
                kept.append(number(key, a))
            elif key in (1, 8) and wire == BYTES:
                kept.append(content(key, self._data[a:b]))
        if not external:
            return self._data[extent[0] : extent[1]]
        # Whether it lies beside the model was looked at when the model was read.
        with (self.path.parent / entries["location"]).open("rb") as file:
            file.seek(int(entries.get("offset") or 0))
            length = int(entries["length"]) if entries.get("length") else os.fstat(file.fileno()).st_size
            return b"".join(kept) + content(9, file.read(length))


def words(value: Value) -> str:
    """An attribute's value for people; floats as short as float32 has them."""
    if isinstance(value, tuple):
        return ",".join(words(each) for each in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def tensor(name: str, array: np.ndarray) -> bytes:
    """A TensorProto."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return (
        numbers(1, array.shape) + number(2, DTYPES[array.dtype.name]) + content(8, name) + content(9, little.tobytes())
    )


def attribute(name: str, value: Value) -> bytes:
    """An AttributeProto."""
    if isinstance(value, float):
        kind, raw = 1, real(2, value)
    elif isinstance(value, int):
        kind, raw = 2, number(3, value)
    elif isinstance(value, str):
        kind, raw = 3, content(4, value)
    elif value and isinstance(value[0], str):
        kind, raw = 8, b"".join(content(9, str(each)) for each in value)
    elif value and isinstance(value[0], float):
        kind, raw = 6, b"".join(real(7, float(each)) for each in value)
    else:
        kind, raw = 7, numbers(8, (int(each) for each in value))
    return content(1, name) + raw + number(20, kind)


def _value(name: str, dtype: str, sizes: Sequence[int | None]) -> bytes:
    """A ValueInfoProto; sizes that are None get a symbol each."""
    dims = b"".join(
        content(1, content(2, f"{name}_{place}") if size is None else number(1, size))
        for place, size in enumerate(sizes)
    )
    return content(1, name) + content(2, content(1, number(1, DTYPES[dtype]) + content(2, dims)))
