"""What a model file says about itself, in one shape for all formats."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from edgequant.errors import InputError
from edgequant.tensors import TensorSpec

Format = Literal["onnx", "tflite", "tf", "mnn"]
Weights = Literal["float", "fp16", "quantized"]
Attribute: TypeAlias = int | str | tuple[int, ...] | tuple[str, ...]
Data: TypeAlias = bytes | mmap.mmap
"""A model file as the readers see it: indexing gives an int, slicing gives a copy."""


@dataclass(frozen=True)
class OpInfo:
    """One operator.

    Attributes:
        name: its own name, or its first output's where the source leaves it unnamed.
        type: as the format calls it; ``domain::Type`` for ONNX operators outside the standard domains.
        subgraph: None in the main graph, else the name of the branch, loop body or function it is in.
        inputs: tensor names in order; an optional input that is left out is an empty string.
        outputs: tensor names in order.
        attributes: numbers and words it was given, as far as somebody asks for them.
    """

    name: str
    type: str
    subgraph: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelGraph:
    """A model as its file describes it; nothing was run.

    Attributes:
        sha256: of the file, followed by the external data files in the order of ``external_files``.
        size: bytes, external data files included.
        inputs: what has to be fed; None where the format cannot tell.
        outputs: names are certain.  Shapes are what the file says (dynamic where it says nothing); an element type
            the file leaves out is given as float32.
        has_subgraphs: there are branches, loops or functions: MNN's ``Interpreter`` cannot run it, ``Module`` can.
        recurrent: names of GRU, LSTM and RNN operators, or in a .mnn of the loops made from them.
        reset_first: names of ONNX GRUs that apply the reset gate before the recurrent product
            (linear_before_reset = 0, the default of ONNX).
        producer: what wrote the file, for example ``pytorch 2.1``; for a .mnn the MNN version.
        opset: of the standard ONNX domain; None for other formats.
        weights: how the weights are stored, "quantized" as soon as some are; None if unknown.
        biz_code: the tag the MNN converter was given.
        constants: sizes of constant tensors, by name.
        beyond_int32: names of constants with integers that int32 cannot hold.
        integers: values of constants of one integer, by name.
        computes_int8: the activations are quantized as well, not the weights alone.
    """

    path: Path
    format: Format
    sha256: str
    size: int
    inputs: tuple[TensorSpec, ...] | None
    outputs: tuple[TensorSpec, ...] | None
    ops: tuple[OpInfo, ...]
    has_subgraphs: bool
    recurrent: tuple[str, ...]
    reset_first: tuple[str, ...] = ()
    producer: str | None = None
    opset: int | None = None
    external_files: tuple[Path, ...] = ()
    weights: Weights | None = None
    biz_code: str | None = None
    constants: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    beyond_int32: tuple[str, ...] = ()
    integers: Mapping[str, int] = field(default_factory=dict)
    computes_int8: bool = False


@dataclass
class Parsed:
    """What one format's reader hands back: a ModelGraph without the facts about the file itself."""

    inputs: tuple[TensorSpec, ...] | None
    outputs: tuple[TensorSpec, ...] | None
    ops: list[OpInfo]
    has_subgraphs: bool = False
    recurrent: list[str] = field(default_factory=list)
    reset_first: list[str] = field(default_factory=list)
    producer: str | None = None
    opset: int | None = None
    external_files: tuple[Path, ...] = ()
    weights: Weights | None = None
    biz_code: str | None = None
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    beyond_int32: list[str] = field(default_factory=list)
    integers: dict[str, int] = field(default_factory=dict)
    computes_int8: bool = False


class BrokenFileError(ValueError):
    """The bytes are not what the format allows.  ``cut``: they refer to something behind the end of the file."""

    def __init__(self, message: str, *, cut: bool = False) -> None:
        super().__init__(message)
        self.cut = cut


class Work:
    """A bound on the steps a reader takes, so that a crafted file cannot keep it busy."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left < 0:
            raise BrokenFileError("its structure is far larger than its size allows")


def text(raw: bytes) -> str:
    """A name from the file.  Broken UTF-8 stays visible and distinct instead of stopping the reader."""
    return raw.decode("utf-8", "backslashreplace")


def unsupported_dtype(kind: str, name: str, dtype: str, path: Path) -> InputError:
    return InputError(
        "MODEL_DTYPE_UNSUPPORTED",
        f"{kind} {name!r} has element type {dtype}, which cannot be fed to or read from a device",
        hint="Re-export the model with a plain number type there, for example with a Cast inside the model.",
        where=str(path),
        evidence={"tensor": name, "dtype": dtype},
    )


def fixed_or_dynamic(sizes: Sequence[int]) -> tuple[int | None, ...]:
    """Sizes as TensorSpec wants them: 0 and negative numbers are how formats write "not fixed"."""
    return tuple(size if size > 0 else None for size in sizes)
