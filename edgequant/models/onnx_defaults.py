"""Attributes that ONNX lets be left out and MNN's converter (3.6.1) reads all the same, with another default or none.

Read in its sources, tried with the standard's own tests under MALLOC_PERTURB_:

- ConstantOfShape without `value` comes out as whatever memory held; LogSoftmax without `axis` ends the converter, pools
  without `strides` end the runner.
- ReduceL1 and its kin drop the dimension, OneHot takes the first axis, Softmax below opset 13 the last one, Resize is
  linear, normalizations have an epsilon of 1e-10, RoiAlign and Resize below the opsets that let one choose compute as
  the later ones do by default.
- A GRU needs to be told its size, a convolution over three dimensions its kernel.
- ReduceL1 and its kin take the axes from an attribute, as ONNX had it before opset 18; where these are an input, all
  axes are reduced.
- Less of floats is wrong on x86 where both are negative (see `mnn.compares`); Greater is right, and says the same.
- Of an LSTM it reads three outputs, however many there are: what lies behind the last is no name, and may end it.

So what is left out is written out in a copy, which is what is converted; by the standard both are the same model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgequant.models import proto_write as write
from edgequant.models.model import BrokenFileError, Data, Work, text
from edgequant.models.proto import BYTES, MAX_FIELDS, VARINT, fields, integers

_Piece = tuple[int, int] | bytes
"""An extent of the source, or bytes of our own."""
_INT64 = 7
_MOST_BYTES = 1024
"""Of constants whose numbers are read."""
_MOST_DEPTH = 40
"""Of branches in branches.  What is deeper stays as it is."""
_STANDARD = ("", "ai.onnx")
_LESS_EITHER_WAY = 7
"""Opset since which either side of a comparison is broadcast."""


@dataclass(frozen=True)
class Constants:
    """sizes: dimensions of initializers, by name; numbers: what those of a few integers hold, and Constant nodes."""

    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Node:
    """inputs: in order; given: its attributes; lists: integers in those that are lists of them; outputs: how many."""

    kind: str
    inputs: tuple[str, ...]
    given: frozenset[str]
    lists: dict[str, int]
    outputs: int = 0

    def rank(self, known: Constants) -> int:
        """Spatial dimensions of a kernel; 0 where they are not known."""
        if "kernel_shape" in self.lists:
            return self.lists["kernel_shape"]
        weights = known.sizes.get(self.inputs[1]) if len(self.inputs) > 1 else None
        return 0 if weights is None else max(len(weights) - 2, 0)


@dataclass
class WrittenOut:
    """What was added to a copy: names of attributes by operator, and how many nodes got some."""

    attributes: dict[str, set[str]] = field(default_factory=dict)
    nodes: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{kind} ({', '.join(sorted(names))})" for kind, names in sorted(self.attributes.items()))


def write_defaults(data: Data, out: Path, opset: int) -> WrittenOut | None:
    """Write a copy of an ONNX file with these attributes written out; None, and no file, where there are none.

    Raises BrokenFileError, OSError.
    """
    copier = _Copier(data, opset)
    pieces = copier.model()
    if not copier.written.nodes:
        return None
    with open(out, "wb") as file:
        _save(data, pieces, file)
    return copier.written


def _save(data: Data, pieces: Sequence[_Piece], file: BinaryIO) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            with memoryview(data) as view, view[piece[0] : piece[1]] as part:
                file.write(part)


class _Copier:
    def __init__(self, data: Data, opset: int) -> None:
        self.data = data
        self.opset = opset
        self.work = Work(3 * MAX_FIELDS)
        self.written = WrittenOut()

    def string(self, a: int, b: int) -> str:
        return text(self.data[a:b])

    def model(self) -> list[_Piece]:
        return self.message((0, len(self.data)), {7: lambda extent: self.graph(extent, Constants(), 0)})

    def message(
        self, extent: tuple[int, int], inner: dict[int, Callable[[tuple[int, int]], list[_Piece]]]
    ) -> list[_Piece]:
        """The pieces of a message: those fields that are messages again by themselves, the rest as it is."""
        pieces: list[_Piece] = []
        copied = position = extent[0]
        for number, wire, a, b in fields(self.data, *extent, self.work):
            end = b
            if wire == BYTES and number in inner:
                found = inner[number]((a, b))
                if found != [(a, b)]:
                    pieces += [(copied, position), write.tag(number, BYTES) + write.varint(_length(found)), *found]
                    copied = end
            position = end
        pieces.append((copied, extent[1]))
        return [piece for piece in pieces if isinstance(piece, bytes) or piece[0] < piece[1]]

    def graph(self, extent: tuple[int, int], outer: Constants, depth: int) -> list[_Piece]:
        if depth > _MOST_DEPTH:
            return [extent]
        known = Constants(dict(outer.sizes), dict(outer.numbers))
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if number == 5 and wire == BYTES:
                name, sizes, numbers = self.tensor(a, b)
                known.sizes[name] = sizes
                if numbers:
                    known.numbers[name] = numbers
            elif number == 1 and wire == BYTES:
                known.numbers.update(self.constant(a, b))
        return self.message(extent, {1: lambda node: self.node(node, known, depth)})

    def tensor(self, start: int, end: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """Name, dimensions, and what it holds where that is a few int64."""
        name, kind = "", 0
        sizes: list[int] = []
        numbers: list[int] = []
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 1:
                sizes += integers(self.data, wire, a, b, self.work)
            elif number == 2 and wire == VARINT:
                kind = a
            elif number == 7 and (wire == VARINT or b - a <= _MOST_BYTES):
                numbers += integers(self.data, wire, a, b, self.work)
            elif number == 8 and wire == BYTES:
                name = self.string(a, b)
            elif number == 9 and wire == BYTES and b - a <= _MOST_BYTES and (b - a) % 8 == 0:
                numbers += struct.unpack(f"<{(b - a) // 8}q", self.data[a:b])
        return name, tuple(sizes), tuple(numbers) if kind == _INT64 else ()

    def constant(self, start: int, end: int) -> dict[str, tuple[int, ...]]:
        """The output of a Constant node of a few integers, and what it is; nothing of another node."""
        kind = name = ""
        numbers: tuple[int, ...] = ()
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 2 and wire == BYTES:
                name = self.string(a, b)
            elif number == 4 and wire == BYTES:
                kind = self.string(a, b)
            elif number == 5 and wire == BYTES and b - a <= 4 * _MOST_BYTES:
                listed: list[int] = []
                for inner, inner_wire, first, last in fields(self.data, a, b, self.work):
                    if inner == 5 and inner_wire == BYTES:
                        numbers = self.tensor(first, last)[2]
                    elif inner == 8:
                        listed += integers(self.data, inner_wire, first, last, self.work)
                numbers = numbers or tuple(listed)
        return {name: numbers} if kind == "Constant" and numbers else {}

    def node(self, extent: tuple[int, int], known: Constants, depth: int) -> list[_Piece]:
        kind, domain, inputs, outputs = "", "", list[tuple[int, int]](), 0
        lists: dict[str, int] = {}
        given: set[str] = set()
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if wire != BYTES:
                continue
            if number == 1:
                inputs.append((a, b))
            elif number == 2:
                outputs += 1
            elif number == 4:
                kind = self.string(a, b)
            elif number == 7:
                domain = self.string(a, b)
            elif number == 5:
                name, count = self.attribute(a, b)
                given.add(name)
                lists[name] = count
        if kind == "Less" and domain in _STANDARD and len(inputs) == 2 and self.opset >= _LESS_EITHER_WAY:
            self.written.nodes += 1
            self.written.attributes.setdefault(kind, set()).add("as Greater")
            turned = dict(zip(inputs, reversed(inputs), strict=True))
            return self.message(extent, {1: lambda name: [turned[name]], 4: lambda _kind: [b"Greater"]})
        pieces = self.message(extent, {5: lambda attribute: self.branches(attribute, known, depth)})
        if domain not in _STANDARD:
            return pieces
        node = _Node(kind, tuple(self.string(*name) for name in inputs), frozenset(given), lists, outputs)
        added = list(missing(node, self.opset, known))
        unnamed = unnamed_outputs(node)
        if added or unnamed:
            self.written.nodes += 1
            names = [name for name, _ in added] + ["outputs"] * bool(unnamed)
            self.written.attributes.setdefault(kind, set()).update(names)
        # An output without a name is one that nobody uses.
        pieces += [write.content(2, b"")] * unnamed
        return pieces + [write.content(5, attribute(name, value)) for name, value in added]

    def attribute(self, start: int, end: int) -> tuple[str, int]:
        """An attribute's name, and how many integers it lists."""
        name, count = "", 0
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 1 and wire == BYTES:
                name = self.string(a, b)
            elif number == 8:
                count += len(integers(self.data, wire, a, b, self.work))
        return name, count

    def branches(self, extent: tuple[int, int], known: Constants, depth: int) -> list[_Piece]:
        def graph(inner: tuple[int, int]) -> list[_Piece]:
            return self.graph(inner, known, depth + 1)

        return self.message(extent, {6: graph, 11: graph})


# ---- what is missing

_Value = int | float | str | tuple[int, ...] | bytes
_LAST, _ANY = 1 << 30, 0
_ZERO_TENSOR = bytes([0x08, 1, 0x10, 1, 0x4A, 4, 0, 0, 0, 0])
"""A TensorProto: one float32, 0."""

REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
"""That MNN's converter puts together from others."""
_PLAIN: tuple[tuple[tuple[str, ...], str, _Value, int, int], ...] = (
    (("ConstantOfShape",), "value", _ZERO_TENSOR, _ANY, _LAST),
    (("Softmax", "LogSoftmax"), "axis", 1, _ANY, 12),
    (("LogSoftmax",), "axis", -1, 13, _LAST),
    (("Concat",), "axis", 1, _ANY, 3),
    (REDUCTIONS, "keepdims", 1, _ANY, _LAST),
    (("BatchNormalization", "InstanceNormalization"), "epsilon", 1e-5, _ANY, _LAST),
    (("Resize", "Upsample"), "mode", "nearest", _ANY, _LAST),
    (("Resize",), "coordinate_transformation_mode", "asymmetric", _ANY, 10),
    (("Resize",), "nearest_mode", "floor", _ANY, 10),
    (("RoiAlign",), "coordinate_transformation_mode", "output_half_pixel", _ANY, 15),
)
"""Operators, attribute, default, first and last opset it is that in."""


def missing(node: _Node, opset: int, known: Constants) -> Iterator[tuple[str, _Value]]:
    """What has to be written out of a node."""
    for kinds, name, value, first, last in _PLAIN:
        if node.kind in kinds and name not in node.given and first <= opset <= last:
            yield name, value
    if node.kind in REDUCTIONS and "axes" not in node.given and len(node.inputs) > 1:
        axes = known.numbers.get(node.inputs[1])
        if axes:
            yield "axes", axes
    rank = node.rank(known)
    if node.kind in ("MaxPool", "AveragePool", "LpPool") and rank:
        if "strides" not in node.given:
            yield "strides", (1,) * rank
        if rank == 3 and "pads" not in node.given and "auto_pad" not in node.given:
            yield "pads", (0,) * 6
    if node.kind in ("Conv", "ConvTranspose") and rank == 3 and "kernel_shape" not in node.given:
        yield "kernel_shape", known.sizes[node.inputs[1]][2:]
    if node.kind in ("GRU", "LSTM", "RNN") and "hidden_size" not in node.given:
        recurrence = known.sizes.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if recurrence is not None and len(recurrence) == 3:
            yield "hidden_size", recurrence[2]


def unnamed_outputs(node: _Node) -> int:
    """How many outputs have to be added to a node's, without names."""
    return max(3 - node.outputs, 0) if node.kind == "LSTM" else 0


def _length(pieces: Sequence[_Piece]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)


def attribute(name: str, value: _Value) -> bytes:
    """An AttributeProto: one float (type 1), integer (2), string (3), tensor (4) or list of integers (7)."""
    if isinstance(value, float):
        kind, value_field = 1, write.real(2, value)
    elif isinstance(value, int):
        kind, value_field = 2, write.number(3, value)
    elif isinstance(value, str):
        kind, value_field = 3, write.content(4, value)
    elif isinstance(value, bytes):
        kind, value_field = 4, write.content(5, value)
    else:
        kind, value_field = 7, write.numbers(8, value)
    return write.content(1, name) + value_field + write.number(20, kind)


__all__ = ["REDUCTIONS", "BrokenFileError", "Constants", "WrittenOut", "attribute", "missing", "write_defaults"]
