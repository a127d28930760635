"""What all readers of .mnn files share: opening one, its graphs, names of operators and tensors."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.schema import OP_TYPES, Net, Op, OpParameter, SubGraphProto
from edgequant.models.model import BrokenFileError


@contextmanager
def open_net(path: Path) -> Iterator[Table]:
    """The root table of a .mnn, which can be read until the block ends.

    Raises:
        OSError; BrokenFileError: it is damaged; ValueError: it is empty.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield FlatFile(data).root()


def graphs(net: Table) -> Iterator[tuple[str, Iterator[tuple[int, Table]]]]:
    """Each graph's name, "" for the main one, and its operators with the position of the offset that leads to each."""
    yield "", net.places(Net.oplists)
    for graph in net.tables(Net.subgraphs):
        yield graph.string(SubGraphProto.name) or "", graph.places(SubGraphProto.nodes)


def operators(net: Table) -> Iterator[Table]:
    """The operators of all graphs."""
    for _, places in graphs(net):
        for _, op in places:
            yield op


def op_type(op: Table) -> str:
    number = op.number(Op.type)
    return OP_TYPES.get(number, f"OP_{number}")


def convolution(op: Table) -> Table | None:
    """The Convolution2D of an operator that has one: of layers with weights, deconvolutions too."""
    return op.table(Op.main) if op.number(Op.main_type) == OpParameter.Convolution2D else None


def constant(op: Table) -> Table | None:
    """The Blob of an operator that is a constant."""
    return op.table(Op.main) if op.number(Op.main_type) == OpParameter.Blob and op_type(op) == "Const" else None


def tensor(index: int, tensors: Sequence[str]) -> str:
    """The name of a tensor.  Raises BrokenFileError where there is none of that number."""
    if not 0 <= index < len(tensors):
        raise BrokenFileError("an operator refers to a tensor that does not exist")
    return tensors[index]


def names(indexes: Sequence[int], tensors: Sequence[str]) -> tuple[str, ...]:
    """The same of several; "" for an input that is left out."""
    return tuple([tensor(index, tensors) if index >= 0 else "" for index in indexes])
