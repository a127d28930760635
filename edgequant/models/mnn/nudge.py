"""A copy of a .mnn whose tables that are looked up, and biases, are moved by next to nothing.

What moving inputs shows of a model, how far rounding carries it, this shows of one that looks its inputs up: ids are
whole numbers, which cannot be moved.  Weights stay as they are: of a quantized file they are codes and scales, and
moving those is another error than rounding makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgequant.models.flat import Table
from edgequant.models.mnn.net import constant, convolution, graphs, op_type, open_net
from edgequant.models.mnn.schema import Blob, Convolution2D, Op

_LOOKS_UP = frozenset({"Gather", "GatherV2", "GatherND", "GatherElements"})

Extent = tuple[int, int]
"""Position of the first float32 in the file, and how many there are."""


def nudged(data: bytes, places: list[Extent], size: float, rng: np.random.Generator) -> bytes:
    """The file with each number at these places moved by up to `size` of it, or of the root mean square of its vector
    where this is more.  Zeros in a vector of zeros stay."""
    found = bytearray(data)
    for start, count in places:
        values = np.frombuffer(data, "<f4", count, start).astype(np.float64)
        if not np.isfinite(values).all():
            continue
        scale = np.maximum(np.abs(values), np.sqrt(np.mean(np.square(values))))
        found[start : start + 4 * count] = (values + size * scale * rng.uniform(-1, 1, count)).astype("<f4").tobytes()
    return bytes(found)


def to_nudge(model: Path) -> list[Extent]:
    """Where a file has tables that are looked up, in float32, and biases; nothing where there are no such tables, for
    biases alone move a model too little, or where some of its numbers are in another file.

    Raises OSError; BrokenFileError: it is damaged; ValueError: it is empty.
    """
    with open_net(model) as net:
        operators = [[op for _, op in places] for _, places in graphs(net)]
        tables = [extent for each in operators for extent in _tables(each) if extent[1]]
        layers = [layer for each in operators for op in each if (layer := convolution(op)) is not None]
        if any(layer.count(Convolution2D.external) for layer in layers):
            return []
        biases = [extent for layer in layers if (extent := layer.extent(Convolution2D.bias))[1]]
    return [*tables, *biases] if tables else []


def _tables(operators: list[Table]) -> Iterator[Extent]:
    looked_up = {op.numbers(Op.input_indexes)[:1] for op in operators if op_type(op) in _LOOKS_UP}
    for op in operators:
        value = constant(op)
        if value is not None and op.numbers(Op.output_indexes) in looked_up:
            yield value.extent(Blob.float32s)
