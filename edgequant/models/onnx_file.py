"""Reads ONNX files without the onnx package: names, shapes and structure, never the weights.

One reader for everybody: the package is an optional extra, and loading a 2 GB model to learn its input names costs
several times that in memory.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Literal

from edgequant.errors import InputError
from edgequant.models.model import (
    Attribute,
    BrokenFileError,
    Data,
    OpInfo,
    Parsed,
    Work,
    fixed_or_dynamic,
    text,
    unsupported_dtype,
)
from edgequant.models.proto import BYTES, MAX_FIELDS, VARINT, fields, integers, signed
from edgequant.tensors import TensorSpec

# Field numbers of onnx.proto, which never change.
MODEL_FIELDS = {
    1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES, 25: BYTES,
    26: BYTES,
}  # fmt: skip
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
_OTHER_DTYPES = {8: "string", 14: "complex64", 15: "complex128", 16: "bfloat16", 21: "uint4", 22: "int4"}
_CONTAINERS = {4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional"}
_RECURRENT = {"GRU", "LSTM", "RNN"}
_NO_SYMBOL = {"", "?", "-1", "0", "None"}  # written by exporters for "unknown": two of them need not be equal

_WIDE: dict[int, Literal["q", "I", "Q"]] = {7: "q", 12: "I", 13: "Q"}
"""Integer types that hold more than int32 does."""
_MOST_SCANNED = 1 << 22  # bytes of one constant
_MOST_LISTED = 16
_ENDLESS = 1 << 62
"""What exporters write for "to the end": MNN makes the largest int32 of it."""

_Extent = tuple[int, int]


class _Reader:
    def __init__(self, data: Data, path: Path) -> None:
        self.data = data
        self.path = path
        self.work = Work(MAX_FIELDS)
        self.ops: list[OpInfo] = []
        self.external: dict[str, int] = {}  # location -> bytes it must have at least
        self.graphs: deque[tuple[_Extent, str | None]] = deque()
        self.inputs: list[_Extent] = []
        self.outputs: list[_Extent] = []
        self.values: list[_Extent] = []
        self.initializers: set[str] = set()
        self.constants: dict[str, tuple[int, ...]] = {}
        self.beyond: list[str] = []
        self.reset_first: list[str] = []

    def fields(self, extent: _Extent) -> list[tuple[int, int, int, int]]:
        return list(fields(self.data, *extent, self.work))

    def string(self, wire: int, a: int, b: int) -> str:
        if wire != BYTES:
            raise BrokenFileError("a name is not a string")
        return text(self.data[a:b])

    def graph(self, extent: _Extent, label: str | None) -> None:
        """A GraphProto; ``label`` is None for the main graph."""
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if wire != BYTES:
                continue
            if number == 1:
                self.node((a, b), label)
            elif number in (5, 15):
                name = self.tensor((a, b)) if number == 5 else self.sparse((a, b))
                if label is None:
                    self.initializers.add(name)
            elif label is None and number in (11, 12, 13):
                {11: self.inputs, 12: self.outputs, 13: self.values}[number].append((a, b))

    def function(self, extent: _Extent) -> None:
        """A FunctionProto: a named list of nodes that other nodes call."""
        found = self.fields(extent)
        name = next((self.string(wire, a, b) for number, wire, a, b in found if number == 1), "")
        for number, wire, a, b in found:
            if number == 7 and wire == BYTES:
                self.node((a, b), f"function {name}")

    def node(self, extent: _Extent, label: str | None) -> None:
        inputs, outputs, attributes = [], [], []
        name = kind = domain = ""
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if number == 1:
                inputs.append(self.string(wire, a, b))
            elif number == 2:
                outputs.append(self.string(wire, a, b))
            elif number == 3:
                name = self.string(wire, a, b)
            elif number == 4:
                kind = self.string(wire, a, b)
            elif number == 5 and wire == BYTES:
                attributes.append((a, b))
            elif number == 7:
                domain = self.string(wire, a, b)
        if not kind:
            raise BrokenFileError("an operator has no type")
        if domain not in ("", "ai.onnx"):
            kind = f"{domain}::{kind}"
        name = name or next(filter(None, outputs), f"{kind}_{len(self.ops)}")
        given: dict[str, Attribute] = {}
        self.ops.append(OpInfo(name, kind, label, tuple(inputs), tuple(outputs), given))
        made = outputs[0] if kind == "Constant" and outputs else ""
        for attribute in attributes:
            self.attribute(attribute, name, given, made)
        if kind == "GRU" and not given.get("linear_before_reset"):
            self.reset_first.append(name)

    def attribute(self, extent: _Extent, owner: str, given: dict[str, Attribute], constant: str) -> None:
        """An AttributeProto of the node ``owner``; numbers and words go to ``given``.  constant: name of a tensor."""
        key, graphs, tensors = "", [], []
        value: Attribute | None = None
        words: list[str] = []
        numbers: list[int] = []
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if number == 3 and wire == VARINT:
                value = signed(a)
            elif number == 8 and len(numbers) < _MOST_LISTED and (wire == VARINT or b - a <= _MOST_LISTED):
                numbers += integers(self.data, wire, a, b, self.work)
            if wire != BYTES:
                # The values of a long list of numbers that an old exporter did not pack end up here.
                continue
            if number == 1:
                key = self.string(wire, a, b)
            elif number == 4 and b - a <= 100:
                value = self.string(wire, a, b)
            elif number == 9 and b - a <= 100 and len(words) < _MOST_LISTED:
                words.append(self.string(wire, a, b))
            elif number in (6, 11):
                graphs.append((a, b))
            elif number in (5, 10):
                tensors.append((a, b))
        if words or numbers:
            value = tuple(words) or tuple(numbers)
        if value is not None:
            given[key] = value
        # Only the owner's name: whole paths of nested branches would grow with the square of their depth.
        self.graphs.extend((graph, f"{owner}/{key}") for graph in graphs)
        for tensor in tensors:
            self.tensor(tensor, constant)

    def tensor(self, extent: _Extent, name: str = "") -> str:
        """A TensorProto's name, or the one it goes by; notes the file its contents are in, if they are in one."""
        external, entries, dims, kind = False, [], [], 0
        raw: list[_Extent] = []
        listed: list[_Extent] = []
        for number, wire, a, b in fields(self.data, *extent, self.work):
            if number == 1:
                dims += integers(self.data, wire, a, b, self.work)
            elif number == 2 and wire == VARINT:
                kind = a
            elif number in (7, 11) and wire == BYTES:
                listed.append((a, b))
            elif number == 8:
                name = name or self.string(wire, a, b)
            elif number == 9 and wire == BYTES:
                raw.append((a, b))
            elif number == 13 and wire == BYTES:
                entries.append((a, b))
            elif number == 14 and wire == VARINT:
                external = a == 1
        if name:
            self.constants[name] = tuple(dims)
        if kind in _WIDE and name and self.wide(kind, raw, listed):
            self.beyond.append(name)
        if external:
            pairs = {}
            for entry in entries:
                found = {number: self.string(wire, a, b) for number, wire, a, b in self.fields(entry)}
                pairs[found.get(1, "")] = found.get(2, "")
            try:
                needed = int(pairs.get("offset") or 0) + int(pairs.get("length") or 0)
            except ValueError as error:
                raise BrokenFileError("the place of an external tensor is not a number") from error
            location = pairs.get("location", "")
            self.external[location] = max(self.external.get(location, 0), needed)
        return name

    def wide(self, kind: int, raw: list[_Extent], listed: list[_Extent]) -> bool:
        """Whether a constant holds integers beyond int32 that are not meant as "to the end"."""
        code = _WIDE[kind]
        ends: list[int] = []
        for a, b in raw:
            if 0 < b - a <= _MOST_SCANNED and not (b - a) % struct.calcsize(code):
                values = memoryview(self.data[a:b]).cast(code)
                ends += (min(values), max(values))
        for a, b in listed:
            if b - a <= _MOST_SCANNED >> 4:
                ends += integers(self.data, BYTES, a, b, self.work)
        return any((1 << 31) <= value < _ENDLESS or -_ENDLESS < value < -(1 << 31) for value in ends)

    def sparse(self, extent: _Extent) -> str:
        for number, wire, a, b in self.fields(extent):
            if number == 1 and wire == BYTES:
                return self.tensor((a, b))
        return ""

    def value(self, kind: str, extent: _Extent) -> TensorSpec:
        """A ValueInfoProto as a TensorSpec; an output may leave its type out."""
        name = ""
        types: list[_Extent] = []
        for number, wire, a, b in self.fields(extent):
            if number == 1:
                name = self.string(wire, a, b)
            elif number == 2 and wire == BYTES:
                types.append((a, b))
        element, shape, container = 0, None, None
        for number, wire, a, b in (item for extent in types for item in self.fields(extent)):
            if number in _CONTAINERS:
                container = _CONTAINERS[number]
            elif number == 1 and wire == BYTES:
                for inner, inner_wire, start, end in self.fields((a, b)):
                    if inner == 1 and inner_wire == VARINT:
                        element = start
                    elif inner == 2 and inner_wire == BYTES:
                        shape = (start, end)
        if container is not None:
            raise unsupported_dtype(kind, name, container, self.path)
        if element == 0 and kind == "output":
            return TensorSpec(name, "float32", None)
        if element not in _DTYPES:
            raise unsupported_dtype(kind, name, _OTHER_DTYPES.get(element, f"number {element}"), self.path)
        if shape is None:
            return TensorSpec(name, _DTYPES[element], None)
        sizes, symbols = self.shape(shape)
        return TensorSpec(name, _DTYPES[element], sizes, symbols if any(symbols) else None)

    def shape(self, extent: _Extent) -> tuple[tuple[int | None, ...], tuple[str | None, ...]]:
        sizes, symbols = [], []
        for number, wire, a, b in self.fields(extent):
            if number != 1 or wire != BYTES:
                continue
            size, symbol = -1, ""
            for inner, inner_wire, start, end in self.fields((a, b)):
                if inner == 1 and inner_wire == VARINT:
                    size = signed(start)
                elif inner == 2:
                    symbol = self.string(inner_wire, start, end)
            sizes.append(size)
            symbols.append(None if size > 0 or symbol in _NO_SYMBOL else symbol)
        return fixed_or_dynamic(sizes), tuple(symbols)

    def outputs_specs(self) -> tuple[TensorSpec, ...]:
        specs = [self.value("output", extent) for extent in self.outputs]
        untyped = {spec.name for spec in specs if spec.shape is None}
        if not untyped:
            return tuple(specs)
        # Shape inference writes what it found next to the graph's own outputs.
        known = {}
        for extent in self.values:
            name = next((self.string(w, a, b) for number, w, a, b in self.fields(extent) if number == 1), "")
            if name in untyped:
                known[name] = self.value("output", extent)
        return tuple(known.get(spec.name, spec) for spec in specs)

    def external_files(self) -> tuple[Path, ...]:
        folder = self.path.parent.resolve()
        files = []
        for location, needed in self.external.items():
            relative = PurePosixPath(location)
            # realpath, because Path.resolve raises RuntimeError on a loop of links.
            file = Path(os.path.realpath(folder / relative)) if "\0" not in location else folder
            if not location or relative.is_absolute() or file == folder or not file.is_relative_to(folder):
                raise InputError(
                    "MODEL_EXTERNAL_DATA_UNSAFE",
                    f"it wants weights from {location!r}, which is outside of its own directory",
                    hint="Save the model again with its weights next to it.",
                    where=str(self.path),
                )
            if not file.is_file():
                raise InputError(
                    "MODEL_EXTERNAL_DATA_MISSING",
                    f"its weights are in {location!r}, which is not there",
                    hint=f"Copy {location} into {folder} as well: the model does not work without it.",
                    where=str(self.path),
                )
            if file.stat().st_size < needed:
                raise InputError(
                    "MODEL_TRUNCATED",
                    f"its weight file {location!r} is {file.stat().st_size} bytes long, at least {needed} are needed",
                    hint="Copy or download the weight file again.",
                    where=str(self.path),
                )
            files.append(file)
        return tuple(dict.fromkeys(files))


def read_onnx(data: Data, path: Path) -> Parsed:
    """Raises BrokenFileError, or InputError for element types and external data files."""
    reader = _Reader(data, path)
    main: _Extent | None = None
    producer, version = "", ""
    opset: int | None = None
    domains: set[str] = set()
    functions = []
    for number, wire, a, b in fields(data, 0, len(data), reader.work):
        if MODEL_FIELDS.get(number) != wire:
            raise BrokenFileError(f"an ONNX model has no field {number} of wire type {wire}")
        if number == 2:
            producer = reader.string(wire, a, b)
        elif number == 3:
            version = reader.string(wire, a, b)
        elif number == 7:
            main = (a, b)
        elif number == 8:
            found = {inner: (w, start, end) for inner, w, start, end in reader.fields((a, b))}
            domain = reader.string(*found[1]) if 1 in found else ""
            if domain in ("", "ai.onnx"):
                opset = found[2][1] if 2 in found else None
            else:
                domains.add(domain)
        elif number == 25:
            functions.append((a, b))
    if main is not None and opset is None and domains:
        raise InputError(
            "OP_UNSUPPORTED",
            f"its operators are of {', '.join(sorted(domains))}, and MNN converts those of ai.onnx alone",
            hint="Export it with operators of ONNX itself.",
            where=str(path),
            evidence={"domains": sorted(domains)},
        )
    if main is None or opset is None:
        missing = "graph" if main is None else "operator set"
        raise BrokenFileError(f"it ends before its {missing}", cut=True)
    reader.graphs.append((main, None))
    has_subgraphs = bool(functions)
    while reader.graphs:
        extent, label = reader.graphs.popleft()
        has_subgraphs = has_subgraphs or label is not None
        reader.graph(extent, label)
    for function in functions:
        reader.function(function)
    while reader.graphs:
        reader.graph(*reader.graphs.popleft())
    # Before IR version 4 every initializer is also listed as an input.
    inputs = [
        spec
        for spec in (reader.value("input", extent) for extent in reader.inputs)
        if spec.name not in reader.initializers
    ]
    outputs = reader.outputs_specs()
    if not outputs:
        raise BrokenFileError("its graph has no outputs")
    return Parsed(
        inputs=tuple(inputs),
        outputs=outputs,
        ops=reader.ops,
        has_subgraphs=has_subgraphs,
        recurrent=[op.name for op in reader.ops if op.type in _RECURRENT],
        reset_first=reader.reset_first,
        producer=f"{producer} {version}".strip() or None,
        opset=opset,
        external_files=reader.external_files(),
        constants=reader.constants,
        beyond_int32=reader.beyond,
    )
