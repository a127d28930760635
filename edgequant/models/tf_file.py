"""Reads frozen TensorFlow graphs (GraphDef .pb) without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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

# Field numbers of graph.proto, node_def.proto and attr_value.proto.
GRAPH_FIELDS = {1: BYTES, 2: BYTES, 3: VARINT, 4: BYTES, 5: BYTES}
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool", 17: "uint16",
    19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
_OTHER_DTYPES = {7: "string", 8: "complex64", 14: "bfloat16", 18: "complex128", 20: "resource", 21: "variant"}
_WANTED = {"dtype", "shape", "T", "DstT", "out_type", "output_type", "Tout"}
_FLAGS = {"half_pixel_centers", "align_corners"}
_BOOLEAN = {
    "Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "LogicalAnd", "LogicalOr", "LogicalNot",
}  # fmt: skip
_NO_OUTPUT = {"NoOp", "Assert", "Const", "Placeholder", "PlaceholderV2", "SaveV2", "RestoreV2"}
_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "Enter", "Switch", "Merge", "PartitionedCall"}
_RECURRENT = {
    "LSTMBlockCell", "BlockLSTM", "BlockLSTMV2", "GRUBlockCell", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
}  # fmt: skip


@dataclass
class _Node:
    name: str = ""
    kind: str = ""
    inputs: list[str] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)
    shape: tuple[int | None, ...] | None = None
    flags: dict[str, Attribute] = field(default_factory=dict)
    constant: tuple[int, ...] | None = None
    integer: int | None = None


class _Reader:
    def __init__(self, data: Data) -> None:
        self.data = data
        self.work = Work(MAX_FIELDS)

    def string(self, wire: int, a: int, b: int) -> str:
        if wire != BYTES:
            raise BrokenFileError("a name is not a string")
        return text(self.data[a:b])

    def node(self, start: int, end: int) -> _Node:
        node = _Node()
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 1:
                node.name = self.string(wire, a, b)
            elif number == 2:
                node.kind = self.string(wire, a, b)
            elif number == 3:
                node.inputs.append(self.string(wire, a, b))
            elif number == 5 and wire == BYTES:
                self.attribute(node, a, b)
        if not node.name or not node.kind:
            raise BrokenFileError("a node has no name or no type")
        return node

    def attribute(self, node: _Node, start: int, end: int) -> None:
        key, value = "", None
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 1:
                key = self.string(wire, a, b)
            elif number == 2 and wire == BYTES:
                value = (a, b)
        if value is None:
            return
        if key in _FLAGS:
            node.flags[key] = next(
                (a for n, w, a, _ in fields(self.data, *value, self.work) if (n, w) == (5, VARINT)), 0
            )
        if key == "value" and node.kind in ("Const", ""):
            for number, wire, a, b in fields(self.data, *value, self.work):
                if number == 8 and wire == BYTES:
                    self.constant(node, a, b)
        if key not in _WANTED:
            return
        for number, wire, a, b in fields(self.data, *value, self.work):
            if number == 6 and wire == VARINT:
                node.types[key] = a
            elif number == 7 and wire == BYTES and key == "shape":
                node.shape = self.shape(a, b)

    def constant(self, node: _Node, start: int, end: int) -> None:
        """A TensorProto: its sizes, and its value where it is one int32."""
        sizes: tuple[int | None, ...] = ()
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 2 and wire == BYTES:
                sizes = self.shape(a, b) or ()
            elif number == 7 and (wire == VARINT or b - a <= 10):
                node.integer = next(iter(integers(self.data, wire, a, b, self.work)), None)
            elif number == 4 and wire == BYTES and b - a == 4:
                node.integer = int.from_bytes(self.data[a:b], "little", signed=True)
        node.constant = tuple(size or 0 for size in sizes)

    def shape(self, start: int, end: int) -> tuple[int | None, ...] | None:
        sizes = []
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number == 3 and wire == VARINT and a:
                return None
            if number == 2 and wire == BYTES:
                size = 0
                for inner, inner_wire, value, _ in fields(self.data, a, b, self.work):
                    if inner == 1 and inner_wire == VARINT:
                        size = signed(value)
                sizes.append(size)
        return fixed_or_dynamic(sizes)

    def library(self, start: int, end: int) -> list[OpInfo]:
        """The nodes of a FunctionDefLibrary's functions."""
        ops = []
        for number, wire, a, b in fields(self.data, start, end, self.work):
            if number != 1 or wire != BYTES:
                continue
            label, nodes = "", []
            for inner, inner_wire, x, y in fields(self.data, a, b, self.work):
                if inner == 1 and inner_wire == BYTES:
                    signature = fields(self.data, x, y, self.work)
                    label = next((self.string(w, p, q) for n, w, p, q in signature if n == 1), "")
                elif inner == 3 and inner_wire == BYTES:
                    nodes.append(self.node(x, y))
            ops += [OpInfo(node.name, node.kind, label, _sources(node), (node.name,)) for node in nodes]
        return ops


def _sources(node: _Node) -> tuple[str, ...]:
    """Names of the nodes an operator reads: ``name``, ``name:1``; a leading ^ only orders execution."""
    return tuple(name.removesuffix(":0") for name in node.inputs if not name.startswith("^"))


def looks_like_graphdef(data: Data) -> bool:
    """Whether the first node is complete and has a name and a type."""
    reader = _Reader(data)
    try:
        for number, wire, a, b in fields(data, 0, len(data), reader.work):
            if GRAPH_FIELDS.get(number) != wire:
                return False
            if number == 1:
                node = reader.node(a, b)
                return node.name.isprintable() and node.kind.replace("_", "").replace(">", "").isalnum()
    except BrokenFileError:
        return False
    return False


def read_tf(data: Data, path: Path) -> Parsed:
    """Raises BrokenFileError, or InputError for an input element type."""
    reader = _Reader(data)
    nodes: list[_Node] = []
    functions: list[OpInfo] = []
    version = 0
    for number, wire, a, b in fields(data, 0, len(data), reader.work):
        if GRAPH_FIELDS.get(number) != wire:
            raise BrokenFileError(f"a TensorFlow graph has no field {number} of wire type {wire}")
        if number == 1:
            nodes.append(reader.node(a, b))
        elif number == 2:
            functions += reader.library(a, b)
        elif number == 4:
            version = next((x for n, w, x, _ in fields(data, a, b, reader.work) if n == 1 and w == VARINT), 0)
    if not nodes:
        raise BrokenFileError("it has no nodes")
    names = {node.name for node in nodes}
    consumed = set()
    for node in nodes:
        for source in node.inputs:
            name = source.removeprefix("^").split(":", 1)[0]
            if name not in names:
                # Nodes are written in an order of their own, so a cut between two of them shows here.
                raise BrokenFileError(f"node {node.name!r} reads {name!r}, which is not in the file", cut=True)
            consumed.add(name)
    inputs = [_input(node, path) for node in nodes if node.kind in ("Placeholder", "PlaceholderV2")]
    outputs = [
        TensorSpec(node.name, _output_dtype(node), None)
        for node in nodes
        if node.name not in consumed and node.kind not in _NO_OUTPUT
    ]
    if not outputs:
        raise BrokenFileError("it has no output")
    ops = [OpInfo(node.name, node.kind, None, _sources(node), (node.name,), node.flags) for node in nodes]
    return Parsed(
        constants={node.name: node.constant for node in nodes if node.constant is not None},
        integers={node.name: node.integer for node in nodes if node.integer is not None},
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        ops=ops + functions,
        has_subgraphs=bool(functions) or any(op.type in _CONTROL_FLOW for op in ops),
        recurrent=[op.name for op in ops + functions if op.type in _RECURRENT],
        producer=f"tensorflow graph version {version}" if version else None,
    )


def _input(node: _Node, path: Path) -> TensorSpec:
    number = node.types.get("dtype", 0)
    if number not in _DTYPES:
        raise unsupported_dtype("input", node.name, _OTHER_DTYPES.get(number, f"number {number}"), path)
    return TensorSpec(node.name, _DTYPES[number], node.shape)


def _output_dtype(node: _Node) -> str:
    if node.kind in _BOOLEAN:
        return "bool"
    if node.kind in ("ArgMax", "ArgMin") and "output_type" not in node.types:
        return "int64"
    keys = ("DstT", "output_type", "out_type", "Tout", "dtype", "T")
    number = next((node.types[key] for key in keys if key in node.types), 1)
    return _DTYPES.get(number, "float32")
