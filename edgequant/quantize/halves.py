"""Rounds what the converter's half precision would cut.

``--fp16`` (MNN 3.6.1) keeps the upper bits of a float and drops the rest, which is up to twice the error of rounding
and all of it in one direction: measured on five models, 2 to 11 dB on the worst output.  A number that is a half
already loses nothing.  It halves the weights of all layers in `LAYER_TYPES` and all float constants, those of loops
and branches included, but no biases.  What is beyond 65504 becomes 65504, infinity too, without a word.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.findings import Finding
from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.net import constant, convolution, open_net, operators
from edgequant.models.mnn.schema import Blob, Convolution2D, DataType, Op
from edgequant.models.mnn.weights import Weights
from edgequant.quantize.encode import HALF_MAX, to_half

_CHUNK = 1 << 22
"""Values that are in memory at a time."""
_FEW = 20

Extent = tuple[int, int]
"""(position of the first, number) of float32 values in a file."""


@dataclass
class Lost:
    """What a tensor of halves cannot hold of the floats it was.

    Attributes:
        name: of the operator.
        clamped: values whose size is above 65504, infinite ones included; largest: the size of the largest of these.
        vanished: whether it had values other than 0 and has none any more; most: the size of the largest of these.
    """

    name: str
    clamped: int = 0
    largest: float = 0.0
    vanished: bool = False
    most: float = 0.0


def constants(net: Table) -> list[Extent]:
    """Where the float constants of a model are, subgraphs included."""
    return [extent for _, extent in _constants(net)]


def _constants(net: Table) -> Iterator[tuple[str, Extent]]:
    for op in operators(net):
        value = constant(op)
        if value is not None and value.number(Blob.data_type) == DataType.DT_FLOAT and value.count(Blob.float32s):
            yield op.string(Op.name) or "", value.extent(Blob.float32s)


def half_constants(path: Path) -> bool:
    """Whether a .mnn keeps constants in half precision."""
    with open_net(path) as net:
        values = map(constant, operators(net))
        return any(value is not None and value.number(Blob.data_type) == DataType.DT_HALF for value in values)


def round_to_halves(path: Path, layers: Iterable[Weights]) -> list[Lost]:
    """Round the constants of a .mnn, and the weights of these layers of it, in place.

    Returns:
        The tensors for which half precision is not only less precise, but too small or too large.

    Raises:
        OSError: such as for a full disk.
    """
    lost: list[Lost] = []
    # Written through the file and not the map: where there is no room, that is an error and not a SIGBUS.
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        tensors = list(_constants(net))
        for layer in layers:
            parameter = convolution(net.at(layer.place))
            if parameter is not None and parameter.count(Convolution2D.weight):
                tensors.append((layer.name, parameter.extent(Convolution2D.weight)))
        for name, (position, count) in tensors:
            found = Lost(name)
            alive = False
            for start in range(position, position + 4 * count, 4 * _CHUNK):
                values = np.frombuffer(data[start : min(start + 4 * _CHUNK, position + 4 * count)], "<f4")
                halves = to_half(values)
                _look(found, values)
                alive = alive or bool(halves.any())
                _write(file.fileno(), halves.astype("<f4").tobytes(), start)
            found.vanished = found.most > 0 and not alive
            if found.clamped or found.vanished:
                lost.append(found)
    return lost


def of_halves(lost: list[Lost]) -> tuple[Finding, ...]:
    """What the user should know of it."""
    found = []
    clamped = sorted((each for each in lost if each.clamped), key=lambda each: -each.largest)
    if clamped:
        first = clamped[0]
        found.append(
            Finding(
                code="HALF_OVERFLOW",
                severity="warn",
                where=first.name,
                message=f"{sum(each.clamped for each in clamped)} values in {_tensors(clamped)} are beyond what half "
                f"precision holds and became {HALF_MAX:.0f} or -{HALF_MAX:.0f}; the largest was {first.largest:g}",
                evidence={"tensors": {each.name: {"values": each.clamped, "largest": str(each.largest)}
                                      for each in clamped[:_FEW]}},
                remedy="Harmless where it only has to be very large, as in a mask; else use dynamic:8 or float.",
            )
        )  # fmt: skip
    vanished = sorted((each for each in lost if each.vanished), key=lambda each: -each.most)
    if vanished:
        first = vanished[0]
        found.append(
            Finding(
                code="HALF_UNDERFLOW",
                severity="warn",
                where=first.name,
                message=f"all of {_tensors(vanished)} became 0: half precision has nothing below 6e-08, and the "
                f"largest value there was {first.most:g}",
                evidence={"tensors": {each.name: each.most for each in vanished[:_FEW]}},
                remedy="A small number that keeps a division from 0 is lost so; use dynamic:8 or float where outputs "
                "become NaN or Inf.",
            )
        )
    return tuple(found)


def _tensors(lost: list[Lost]) -> str:
    return f"'{lost[0].name}'" if len(lost) == 1 else f"{len(lost)} tensors, first '{lost[0].name}',"


def _look(found: Lost, values: np.ndarray) -> None:
    sizes = np.abs(values)
    beyond = sizes[sizes > np.float32(HALF_MAX)]  # NaN is neither
    if beyond.size:
        found.clamped += int(beyond.size)
        found.largest = max(found.largest, float(beyond.max()))
    found.most = max(found.most, float(np.fmax.reduce(sizes, initial=0.0)))


def _write(file: int, content: bytes, position: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(file, memoryview(content)[done:], position + done)
