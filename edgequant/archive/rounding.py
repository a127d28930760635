"""What rounding does, as data: to the weights of a file, to its scales, and to what comes out of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgequant.archive.record import Name, Record
from edgequant.spec import MemoryMode


class LayerRounding(Record):
    """What became of one layer's weights: see `models.mnn.rounding.Rounded`.

    equalized: of a file whose channels may have been equalized: whether they were, and those of the float model that it
    is held against in the same way; None where that is not known.
    """

    layer: Name
    subgraph: Name = ""
    kept: Literal["float", "fp16", "quantized", "static"]
    bits: int = Field(ge=1, le=32)
    block: int | None = None
    sym: bool = False
    scale: float
    error: float = Field(ge=0)
    row: int = Field(ge=0)
    bias: float = Field(ge=0)
    equalized: bool | None = None


class TensorScale(Record):
    """How a tensor of a static int8 file was to be stored: value = scale * (code - zero); and how the file has it: None
    where it has no scale there, or nobody looked."""

    tensor: Name
    scale: float
    zero: float
    found: tuple[float, float] | None = None


class Strayed(Record):
    """How far an output went: as in `compare.metrics.TensorComparison`; None where it is not defined.

    rounding_db: of a file that runs in int8, the SQNR of what came out against what the case, not moved, gives where
    nothing is int8: the same file with memory normal, or float MNN.
    """

    sqnr_db: float | None = None
    max_abs: float | None = None
    mismatch: float | None = None
    rounding_db: float | None = None


class Moved(Record):
    """This host against itself: a case once more, with its inputs moved by next to nothing, or its activations
    rounded.

    by: "noise": each number of each float input by up to 2^-12 of it, or 2^-16 where nothing is int8; where all inputs
    are whole numbers or flags, each of the tables they are looked up in, and of biases.  "step": one
    number of each by 1/255 of its range, as an activation moves that rounds the other way.  "rows", "tensors": of the
    reference, what each of its layers with weights reads rounded to 8 bits, with a scale for each row of it, or for all
    (`models.onnx_rounding`).  memory: what it ran with.  outputs: against those of the same case, not moved.
    """

    case: Name
    by: Literal["noise", "step", "rows", "tensors"]
    memory: MemoryMode
    outputs: dict[Name, Strayed] = Field(default_factory=dict)
