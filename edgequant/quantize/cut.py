"""One operator of a .mnn as a model of its own: what it reads becomes an input, what it makes an output.

A small head is put in front of the file, with lists that lead to this operator and its constants alone, and MNN's
converter, which reads a .mnn and writes what it has read, leaves the rest behind.  So an operator of any kind can be
cut out, and its weights stay as they are, to the bit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.files import disk_error
from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.net import names, op_type, open_net
from edgequant.models.mnn.schema import OP_TYPES, DataFormat, DataType, Input, Net, Op, OpParameter, TensorDescribe
from edgequant.models.model import BrokenFileError
from edgequant.quantize.child import run_child, tools_argv
from edgequant.quantize.search.blob import Child, Value, Writer

_INPUT = next(number for number, name in OP_TYPES.items() if name == "Input")
_CONSTANT = ("Const", "TrainableParam")
_SECONDS = 60.0
_TYPES = {"float32": DataType.DT_FLOAT, "int32": DataType.DT_INT32, "uint8": DataType.DT_UINT8,
          "int8": DataType.DT_INT8}  # fmt: skip


@dataclass(frozen=True)
class Feed:
    """An input of the part: NumPy's name of its element type, its sizes, and their order."""

    dtype: str
    shape: tuple[int, ...]
    order: DataFormat


@dataclass(frozen=True)
class Part:
    """What an operator of the main graph reads, constants left out, and what it makes: names of tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def part_of(model: Path, operator: str) -> Part | None:
    """None where the main graph has no such operator.  Raises ToolError CUT_IMPOSSIBLE for a damaged file."""
    try:
        with open_net(model) as net:
            found = _Found.of(net, operator)
            if found is None:
                return None
            return Part(tuple(found.tensors[each] for each in found.live), found.made)
    except (BrokenFileError, ValueError) as error:
        raise ToolError("CUT_IMPOSSIBLE", f"the operator cannot be cut out: {error}") from None


def cut(model: Path, operator: str, feeds: Mapping[str, Feed], out: Path) -> None:
    """Write the operator as a model of its own.

    Args:
        model: of any size; it is read whole.
        operator: by name, of the main graph.
        feeds: of each of the part's inputs.
        out: appears when it is whole.  What is needed meanwhile lies beside it.

    Raises:
        ToolError: CUT_IMPOSSIBLE: there is no such operator, or MNN's tools do not take it alone.
        EdgequantError: the disk takes no more.
    """
    head, log = out.with_suffix(".head"), out.with_suffix(".log")
    try:
        data = model.read_bytes()
        found = _Found.of(FlatFile(data).root(), operator)
        if found is None or not {found.tensors[each] for each in found.live} <= feeds.keys():
            raise ToolError("CUT_IMPOSSIBLE", f"the operator '{operator}' cannot be cut out: its inputs are not known")
        size = len(_head(found, feeds, 0))
        head.write_bytes(_head(found, feeds, size + -size % 16).ljust(size + -size % 16, b"\0") + data)
        call = ["-f", "MNN", "--modelFile", str(head), "--MNNModel", str(out), "--bizCode", "MNN"]
        run_child(tools_argv(("mnnconvert", call)), log=log, timeout=_SECONDS, cwd=out.parent)
        if not out.is_file():
            raise ToolError("CUT_IMPOSSIBLE", f"MNN's converter does not write the operator '{operator}' alone")
    except (BrokenFileError, ValueError) as error:
        raise ToolError("CUT_IMPOSSIBLE", f"the operator cannot be cut out: {error}") from None
    except OSError as error:
        raise disk_error(out, error) from None
    finally:
        head.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Found:
    """The operator in its file; tensors are numbers, `live` those that become inputs."""

    net: Table
    op: Table
    tensors: list[str]
    live: tuple[int, ...]
    constants: tuple[Table, ...]

    @property
    def made(self) -> tuple[str, ...]:
        return names(self.op.numbers(Op.output_indexes), self.tensors)

    @classmethod
    def of(cls, net: Table, operator: str) -> _Found | None:
        tensors = net.strings(Net.tensor_name)
        constants: dict[int, Table] = {}
        found = None
        for op in net.tables(Net.oplists):
            if op_type(op) in _CONSTANT:
                constants.update(dict.fromkeys(op.numbers(Op.output_indexes), op))
            made = op.numbers(Op.output_indexes)
            if operator == (op.string(Op.name) or (names(made, tensors) or ("",))[0]):
                found = found or op
        if found is None:
            return None
        read = [each for each in dict.fromkeys(found.numbers(Op.input_indexes)) if each >= 0]
        names(read, tensors)
        held = [constants[each] for each in read if each in constants]
        return cls(net, found, tensors, tuple(each for each in read if each not in constants), tuple(held))


def _head(found: _Found, feeds: Mapping[str, Feed], size: int) -> bytes:
    """What is put in front of the file: size is its own length, which what lies in the file is moved by."""

    def old(table: Table) -> Child:
        return lambda _writer: size + table.position

    used = {*found.live, *(each for op in (found.op, *found.constants) for each in op.numbers(Op.output_indexes))}
    given = [_input(found.tensors[each], each, feeds[found.tensors[each]]) for each in found.live]
    described = [
        old(each) for each in found.net.tables(Net.extra_tensor_describe)
        if each.number(TensorDescribe.index) in used
    ]  # fmt: skip
    listed = [name if number in used else str(number) for number, name in enumerate(found.tensors)]
    values: list[Value] = [
        (Net.extra_tensor_describe, _offsets(described)),
        (Net.oplists, _offsets([*given, *map(old, found.constants), old(found.op)])),
        (Net.output_name, _offsets(_strings(found.made))),
        (Net.source_type, found.net.number(Net.source_type)),
        (Net.tensor_name, _offsets(_strings(listed))),
        (Net.tensor_number, len(listed)),
    ]
    writer = Writer()
    writer.data += bytes(4)
    struct.pack_into("<I", writer.data, 0, writer.table(values))
    return bytes(writer.data)


def _strings(texts: Sequence[str]) -> list[Child]:
    def child(text: str) -> Child:
        return lambda writer: writer.string(text)

    return [child(text) for text in texts]


def _offsets(children: Sequence[Child]) -> Child:
    def write(writer: Writer) -> int:
        writer.align(4)
        start = len(writer.data)
        writer.data += struct.pack("<I", len(children)) + bytes(4 * len(children))
        for number, child in enumerate(children):
            place = start + 4 + 4 * number
            struct.pack_into("<I", writer.data, place, child(writer) - place)
        return start

    return write


def _input(name: str, index: int, feed: Feed) -> Child:
    def numbers(values: Sequence[int]) -> Callable[[Writer], int]:
        return lambda writer: writer.vector(struct.pack(f"<{len(values)}i", *values), 4)

    parameter: list[Value] = [
        (Input.dims, numbers(feed.shape)), (Input.dtype, _TYPES[feed.dtype]), (Input.dformat, feed.order),
    ]  # fmt: skip
    operator: list[Value] = [
        (Op.main_type, OpParameter.Input),
        (Op.main, lambda writer: writer.table(parameter)),
        (Op.name, lambda writer: writer.string(name)),
        (Op.output_indexes, numbers([index])),
        (Op.type, _INPUT),
        (Op.default_dimention_format, feed.order),
    ]
    return lambda writer: writer.table(operator)
