"""Finds the constants of an ONNX file and the operators they belong to, without the onnx package."""

from __future__ import annotations

import math
import mmap
import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgequant.models.model import BrokenFileError, ModelGraph, OpInfo, Work, text
from edgequant.models.proto import BYTES, FIXED32, MAX_FIELDS, VARINT, fields, integers, signed
from edgequant.models.stored import CONVOLUTION, NOTHING, WEIGHT_ONLY, Found, Stored, Weight

_Extent = tuple[int, int]
_FLOATS = {1: ("<f4", 4), 10: ("<f2", 5), 11: ("<f8", 10)}  # TensorProto.DataType: (type, field of typed values)
_SAME = {"Identity", "Cast"}
_RNN = {"GRU", "LSTM", "RNN"}
_PRODUCTS = {"Gemm", "MatMul"}
_CHANGING = {"Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Split", "Flatten", "Pad", "Expand"}
_WORKING = _RNN | _PRODUCTS | {"Conv", "ConvTranspose", "Einsum"}
_SHARED = 4
"""MNN keeps a constant that more matrix products than this share as it is (ConvertMatMulToConv2D.cpp)."""


@dataclass
class _Scope:
    """One graph: the main one, a branch or a loop's body, which sees the constants of those around it."""

    outer: _Scope | None = None
    constants: dict[str, Stored] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def find(self, name: str) -> Stored | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.constants:
                return scope.constants[name]
            scope = scope.outer
        return None


def find_onnx_weights(graph: ModelGraph) -> Found:
    """The constants of all graphs.  Raises BrokenFileError, or OSError."""
    with graph.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data, graph)
        for number, wire, a, b in fields(data, 0, len(data), reader.work):
            if number == 7 and wire == BYTES:
                reader.waiting.append(((a, b), None))
        while reader.waiting:
            reader.graph(*reader.waiting.popleft())
    # The same walk as that of the structure's reader, so the operators come in the same order.
    if len(reader.scopes) > len(graph.ops):
        raise BrokenFileError("it has changed since its structure was read")
    main = reader.main
    for spec in (*(graph.inputs or ()), *(graph.outputs or ())):
        if spec.shape is not None and all(size is not None for size in spec.shape):
            main.shapes[spec.name] = tuple(size for size in spec.shape if size is not None)
    found = _assign(list(zip(graph.ops, reader.scopes, strict=False)), main, reader.turned)
    if not graph.has_subgraphs:
        found.products = _products(graph.ops, main)
    return found


class _Reader:
    def __init__(self, data: mmap.mmap, graph: ModelGraph) -> None:
        self.data = data
        self.model = graph
        self.work = Work(MAX_FIELDS)
        self.external = {os.path.realpath(path): path for path in graph.external_files}
        self.main = _Scope()
        self.scopes: list[_Scope] = []  # of each operator
        self.turned: set[int] = set()  # numbers of Gemms with transB
        self.waiting: deque[tuple[_Extent, _Scope | None]] = deque()

    def graph(self, extent: _Extent, outer: _Scope | None) -> None:
        scope = self.main if outer is None else _Scope(outer)
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if wire != BYTES:
                continue
            if number == 1:
                self.node((a, b), scope)
            elif number == 5:
                self.tensor((a, b), scope, None)
            elif number == 13:
                self.value((a, b), scope)

    def node(self, extent: _Extent, scope: _Scope) -> None:
        outputs, attributes = [], []
        kind = ""
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if wire != BYTES:
                continue
            if number == 2:
                outputs.append(text(self.data[a:b]))
            elif number == 4:
                kind = text(self.data[a:b])
            elif number == 5:
                attributes.append((a, b))
        for attribute in attributes:
            self.attribute(attribute, kind, outputs, scope)
        self.scopes.append(scope)

    def attribute(self, extent: _Extent, kind: str, outputs: list[str], scope: _Scope) -> None:
        key, integer, tensor = "", 0, None
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if number == 1 and wire == BYTES:
                key = text(self.data[a:b])
            elif number == 3 and wire == VARINT:
                integer = a
            elif number == 5 and wire == BYTES:
                tensor = (a, b)
            elif number in (6, 11) and wire == BYTES:
                self.waiting.append(((a, b), scope))
        if kind == "Gemm" and key == "transB" and integer:
            self.turned.add(len(self.scopes))
        elif kind == "Constant" and key == "value" and tensor is not None and outputs:
            self.tensor(tensor, scope, outputs[0])

    def tensor(self, extent: _Extent, scope: _Scope, name: str | None) -> None:
        """A TensorProto of floats; `name` is that of the Constant it is the value of."""
        shape: list[int] = []
        dtype, own, external = 0, "", False
        raw: _Extent | None = None
        typed: dict[int, list[_Extent]] = {}
        entries = []
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if number == 1:
                shape += integers(self.data, wire, a, b, self.work)
            elif number == 2 and wire == VARINT:
                dtype = a
            elif number == 8 and wire == BYTES:
                own = text(self.data[a:b])
            elif number == 9 and wire == BYTES:
                raw = (a, b)
            elif number in (4, 10) and wire in (BYTES, FIXED32):
                typed.setdefault(number, []).append((a, b))
            elif number == 13 and wire == BYTES:
                entries.append((a, b))
            elif number == 14 and wire == VARINT:
                external = a == 1
        if dtype not in _FLOATS or any(size < 0 for size in shape):
            return
        kind, place = _FLOATS[dtype]
        path: Path | None = None
        offset = 0
        needed = math.prod(shape) * int(kind[2])
        if external:
            path, offset = self.outside(entries, needed)
        else:
            # Values that an old exporter did not pack are in as many pieces as there are values: left alone.
            pieces = [raw] if raw is not None else typed.get(place, [])
            if len(pieces) == 1 and pieces[0][1] - pieces[0][0] == needed:
                path, offset = self.model.path, pieces[0][0]
        scope.constants[name or own] = Stored(tuple(shape), kind, path, offset)

    def outside(self, entries: list[_Extent], needed: int) -> tuple[Path | None, int]:
        pairs = {}
        for entry in entries:
            found = {number: text(self.data[a:b]) for number, wire, a, b in self.fields(entry) if wire == BYTES}
            pairs[found.get(1, "")] = found.get(2, "")
        location = pairs.get("location", "")
        # Only files that the reader of the structure found to be inside the model's directory.
        path = self.external.get(os.path.realpath(self.model.path.parent.resolve() / location))
        try:
            offset = int(pairs.get("offset") or 0)
        except ValueError as error:
            raise BrokenFileError("the place of an external tensor is not a number") from error
        if path is None or offset < 0 or offset + needed > path.stat().st_size:
            return None, 0
        return path, offset

    def fields(self, extent: _Extent) -> list[tuple[int, int, int, int]]:
        return list(fields(self.data, *extent, self.work))

    def value(self, extent: _Extent, scope: _Scope) -> None:
        """A ValueInfoProto's shape, where shape inference left one with nothing open."""
        name, sizes = "", None
        for number, wire, a, b in self.fields(extent):
            if number == 1 and wire == BYTES:
                name = text(self.data[a:b])
            elif number == 2 and wire == BYTES:
                sizes = self.sizes((a, b))
        if sizes is not None and all(size > 0 for size in sizes):
            scope.shapes[name] = tuple(sizes)

    def sizes(self, extent: _Extent) -> list[int] | None:
        for number, wire, a, b in self.fields(extent):
            if number != 1 or wire != BYTES:
                continue
            for inner, inner_wire, start, end in self.fields((a, b)):
                if inner == 2 and inner_wire == BYTES:
                    return [self.size((c, d)) for dim, w, c, d in self.fields((start, end)) if dim == 1 and w == BYTES]
        return None

    def size(self, extent: _Extent) -> int:
        return next((signed(a) for number, wire, a, _ in self.fields(extent) if number == 1 and wire == VARINT), -1)


def _assign(ops: list[tuple[OpInfo, _Scope]], main: _Scope, turned: set[int]) -> Found:
    """Which operator each constant belongs to."""
    for op, scope in ops:  # in topological order, as ONNX demands
        if op.type in _SAME and op.inputs and op.outputs:
            same = scope.find(op.inputs[0])
            if same is not None:
                scope.constants[op.outputs[0]] = same
    users: Counter[Stored] = Counter()
    for op, scope in ops:
        values = scope.find(op.inputs[1]) if op.type in _PRODUCTS and len(op.inputs) > 1 else None
        if values is not None:
            users[values] += 1
    found = Found()
    seen: set[tuple[str, Stored]] = set()
    for number, (op, scope) in enumerate(ops):
        if op.type in _SAME or op.type == "Constant":
            continue
        for place, name in enumerate(op.inputs):
            values = scope.find(name)
            if values is None or len(values.shape) < 2 or not values.count or (op.type in _RNN and place > 2):
                continue
            weight = _weight(op, place, values, number in turned, users[values])
            if scope is not main:
                weight = replace(weight, methods=weight.methods & WEIGHT_ONLY)
            if (op.type, values) in seen:  # a constant that several operators share is stored once
                continue
            seen.add((op.type, values))
            if op.type in _CHANGING:
                found.unknown += values.count
            else:
                found.weights.append(weight)
    return found


def _weight(op: OpInfo, place: int, values: Stored, turned: bool, users: int) -> Weight:
    shape = values.shape
    if op.type == "Conv" and place == 1 and len(shape) in (3, 4):
        return Weight(op.name, op.type, values, CONVOLUTION, inner=shape[1])
    if op.type == "ConvTranspose" and place == 1 and len(shape) in (3, 4):
        # A depthwise one's kernel has one channel on the second axis.
        if shape[1] == 1 and shape[0] > 1:
            return Weight(op.name, op.type, values, WEIGHT_ONLY)
        return Weight(op.name, op.type, values, CONVOLUTION, "deconv", shape[0])
    if op.type in _PRODUCTS and place == 1 and len(shape) == 2 and users <= _SHARED:
        if turned:
            return Weight(op.name, op.type, values, CONVOLUTION, inner=shape[1])
        return Weight(op.name, op.type, values, CONVOLUTION, "columns", shape[0])
    if op.type in _RNN and place in (1, 2) and len(shape) == 3:
        return Weight(op.name, op.type, values, WEIGHT_ONLY, inner=shape[2], channels=shape[0] * shape[1])
    return Weight(op.name, op.type, values, NOTHING)


def _products(ops: Iterable[OpInfo], main: _Scope) -> dict[str, tuple[int, int]] | None:
    """Multiply-accumulates by operator type; None as soon as one operator's is not known."""
    found: dict[str, tuple[int, int]] = {}
    for op in ops:
        if op.type not in _WORKING or len(op.inputs) < 2 or not op.outputs:
            continue
        weight = main.find(op.inputs[1])
        source, result = main.shapes.get(op.inputs[0]), main.shapes.get(op.outputs[0])
        quantizable = weight is not None and len(weight.shape) in {"Conv": (3, 4), "ConvTranspose": (3, 4)}.get(
            op.type, (3,) if op.type in _RNN else (2,)
        )
        count = None
        if op.type in _PRODUCTS and source and result:
            count = math.prod(result) * source[-1]
        elif op.type == "Conv" and weight is not None and result:
            count = math.prod(result) * math.prod(weight.shape[1:])
        elif op.type == "ConvTranspose" and weight is not None and source:
            count = math.prod(source) * math.prod(weight.shape[1:])
        elif op.type in _RNN and weight is not None and source and len(op.inputs) > 2:
            recurrent = main.find(op.inputs[2])
            steps = math.prod(source[:2])  # steps and batch, whatever their order
            count = steps * (weight.count + recurrent.count) if recurrent is not None else None
        if count is None:
            return None
        yes, no = found.get(op.type, (0, 0))
        found[op.type] = (yes + count, no) if quantizable else (yes, no + count)
    return found
