"""Where a model's weights are, and what they are for; one shape for all formats.  Nothing is read here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Layout = Literal["rows", "columns", "deconv"]
Method = Literal["weight", "offline"]

CONVOLUTION: frozenset[Method] = frozenset({"weight", "offline"})
WEIGHT_ONLY: frozenset[Method] = frozenset({"weight"})
NOTHING: frozenset[Method] = frozenset()
"""What MNN 3.6 quantizes, read in its sources.  Weight quantization (WeightQuantAndCoding.cpp): Convolution,
ConvolutionDepthwise, Deconvolution and DeconvolutionDepthwise.  Offline int8 (calibration.cpp): the first three, of
the main graph.  Matrix products with one constant 2-D operand become convolutions before that
(ConvertMatMulToConv2D.cpp), and so do the gates of GRU and LSTM, in a loop that offline int8 does not enter.  All
else stays float: tables (Gather), products of two computed tensors, 3-D convolutions, normalizations."""


@dataclass(frozen=True)
class Stored:
    """Values of one constant.

    Attributes:
        path: the file they are in; None where they are in a form that is not read here.
        offset: bytes from its start.
        dtype: little-endian NumPy type, ``<f4``, ``<f2`` or ``<f8``.
    """

    shape: tuple[int, ...]
    dtype: str
    path: Path | None
    offset: int = 0

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weight:
    """A constant operand of one operator.

    Attributes:
        layer: the operator's name; type: its type, as the format calls it.
        methods: what quantizes it.
        layout: how `values` is a matrix [output channels, rest]: its first axis is the output channels ("rows"), its
            last is ("columns"), or its second is ("deconv").
        inner: input channels one output channel sees: what a block is a part of.
        channels: output channels, where they are not an axis of their own (a GRU's gates of both directions).
    """

    layer: str
    type: str
    values: Stored
    methods: frozenset[Method]
    layout: Layout = "rows"
    inner: int = 1
    channels: int | None = None


@dataclass
class Found:
    """All constants of a model that are operands.

    Attributes:
        weights: float ones with two axes or more.
        unknown: weights that operators change before they are used (an LSTM's gates put in another order, say), and
            which are not followed.
        products: multiply-accumulates of one inference by operator type, as (those in operators with something to
            quantize, those in others); None where a shape that is needed is not known.
    """

    weights: list[Weight] = field(default_factory=list)
    unknown: int = 0
    products: dict[str, tuple[int, int]] | None = None
