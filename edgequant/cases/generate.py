"""Cases for a user who gives none: seeded random values, and three sizes for every dynamic dimension.

What they can show is that MNN computes what the source model computes.  What they cannot show is how good the model is
on real data, because noise excites a model in ways its data does not; the report says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgequant.cases.case import MAX_CASE_BYTES, Case, CaseKind, shape_text
from edgequant.cases.meaning import meant
from edgequant.errors import InputError
from edgequant.tensors import TensorSpec

SIZES = ("small", "middle", "large")
SPARE = ("spare-1", "spare-2", "spare-3")
"""Tried in place of sizes the model refuses: windowed models take nothing short, others only powers of two."""
MORE = ("odd", "batch")
"""Other sizes a model should take as well; no matter where the source refuses them.  MNN packs channels and positions
in fours: what is wrong at the end of a row shows at odd sizes only."""
LONGER = "longer"
"""Ten times the middle one, for what drifts.  How far a quantized model drifts is no promise of anybody: a strain."""
_ORDER = (*SIZES, *SPARE, *MORE, LONGER)
# Sequence lengths: a few steps, the length of a short utterance's chunk, one long enough for recurrent drift, and ten
# times the middle one.
_SEQUENCE = (4, 20, 100, 256, 512, 1024, 37, 22, 203)
# Height and width differ, so that swapped axes cannot stay unseen; but for the odd ones all are multiples of 32, the
# usual stride product.
_HEIGHT = (32, 64, 96, 128, 224, 256, 45, 64, 160)
_WIDTH = (64, 160, 320, 128, 224, 512, 83, 96, 416)
# Of the usual cases only when nothing else can vary: many models declare a batch they were never exported to take.
_BATCH_ALONE = (1, 2, 4, 1, 1, 1, 3, 5, 7)
_BATCH = (1, 1, 1, 1, 1, 1, 1, 3, 1)
INTEGER_RANGE = 4
"""Integers are drawn from 0 to 3: small enough to index any embedding table or to be a mode."""


def pin(inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    """The inputs with the user's --shape in place of what the model leaves open.

    A size given for a symbolic dimension holds for every input with that symbol.

    Raises InputError: INPUT_UNKNOWN, INPUT_SHAPE where a pinned shape contradicts the model or another pinned one.
    """
    known = {spec.name: spec for spec in inputs}
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        spec = known.get(name)
        if spec is None:
            raise InputError(
                "INPUT_UNKNOWN", f"--shape: the model has no input '{name}'", hint=f"Its inputs are {', '.join(known)}."
            )
        if spec.shape is None:
            continue
        if len(spec.shape) != len(shape) or any(
            want is not None and have != want for have, want in zip(shape, spec.shape, strict=True)
        ):
            raise InputError("INPUT_SHAPE", f"--shape: '{name}' is {list(shape)}, the model takes {shape_text(spec)}")
        for size, symbol in zip(shape, spec.dims or (), strict=False):
            if symbol is not None and symbols.setdefault(symbol, size) != size:
                raise InputError("INPUT_SHAPE", f"--shape: '{symbol}' is given as {symbols[symbol]} and as {size}")
    pinned = []
    for spec in inputs:
        shape_now: tuple[int | None, ...] | None = shapes.get(spec.name)
        if shape_now is None and spec.shape is not None:
            names = spec.dims or (None,) * len(spec.shape)
            shape_now = tuple(
                symbols.get(name) if size is None and name is not None else size
                for size, name in zip(spec.shape, names, strict=True)
            )
        pinned.append(TensorSpec(spec.name, spec.dtype, shape_now, spec.dims, spec.layout))
    return tuple(pinned)


def generate(inputs: Sequence[TensorSpec], seed: int) -> list[Case]:
    """Random cases for `inputs`: three where a dimension is dynamic (small, middle, large), else two.

    Floats are standard normal, or uniform in [-1, 1] for what looks like an image; integers are 0 to 3; booleans are
    fair coins.  The same seed gives the same cases on every machine.

    Raises InputError: INPUT_RANK_UNKNOWN (only --shape can help), INPUT_TOO_LARGE.
    """
    for spec in inputs:
        if spec.shape is None:
            raise InputError(
                "INPUT_RANK_UNKNOWN",
                f"the model does not say how many dimensions input '{spec.name}' has",
                hint=f"Give its shape: --shape {spec.name}=1,3,224,224",
            )
    dynamic = any(spec.dynamic for spec in inputs)
    return _generate(inputs, seed, SIZES if dynamic else ("first", "second"), 0)


def spare(inputs: Sequence[TensorSpec], seed: int) -> list[Case]:
    """Cases of other sizes, for a model with dynamic dimensions that refused some of those of `generate`."""
    return _generate(inputs, seed, SPARE, len(SIZES)) if any(spec.dynamic for spec in inputs) else []


def more_sizes(inputs: Sequence[TensorSpec], seed: int) -> list[Case]:
    """Cases of MORE and LONGER, for a model with dynamic dimensions; of batches only where a batch is open."""
    if not any(spec.dynamic for spec in inputs):
        return []
    usual = [_shapes(inputs, index) for index in range(len(SIZES))]
    found: list[Case] = []
    for index, name in enumerate(_ORDER[len(SIZES) + len(SPARE) :], len(SIZES) + len(SPARE)):
        shapes = _shapes(inputs, index)
        if name == "batch" and all(shapes[spec.name][:1] == usual[0][spec.name][:1] for spec in inputs):
            continue
        found.append(_random(inputs, shapes, seed, name, "strain" if name == LONGER else "size"))
    return found


def redrawn(case: Case, inputs: Sequence[TensorSpec], seed: int, attempt: int) -> Case:
    """The same case with other numbers, for one whose outputs would not be finite."""
    fresh = _random(inputs, case.shapes, seed, f"{case.name}/{attempt}", case.kind)
    return replace(fresh, name=case.name, source=f"{case.source}, drawn again")


def _generate(inputs: Sequence[TensorSpec], seed: int, names: Sequence[str], first: int) -> list[Case]:
    return [_random(inputs, _shapes(inputs, index), seed, name, "usual") for index, name in enumerate(names, first)]


def _random(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], seed: int, name: str, kind: CaseKind
) -> Case:
    total = sum(math.prod(shapes[spec.name]) * np.dtype(spec.dtype).itemsize for spec in inputs)
    if total > MAX_CASE_BYTES:
        raise InputError("INPUT_TOO_LARGE", f"random inputs would take {total >> 20} MiB", hint="Pin --shape.")
    arrays = {spec.name: _values(spec, shapes[spec.name], seed, name) for spec in inputs}
    known = {spec.name: told for spec in inputs if (told := meant(spec, inputs, shapes)) is not None}
    return Case(name, arrays | known, f"random, seed {seed}", generated=True, kind=kind)


def _shapes(inputs: Sequence[TensorSpec], index: int) -> dict[str, tuple[int, ...]]:
    batch_only = all(
        axis == 0 for spec in inputs for axis, size in enumerate(spec.shape or ()) if size is None
    ) and not any(spec.shape == (None,) for spec in inputs)
    symbols: dict[str, int] = {}
    shapes = {}
    for spec in inputs:
        assert spec.shape is not None
        shape = []
        for axis, size in enumerate(spec.shape):
            symbol = spec.dims[axis] if spec.dims else None
            if size is None and symbol is not None:
                size = symbols.get(symbol)
            if size is None:
                size = _size(spec, axis, index, batch_only)
                if symbol is not None:
                    symbols[symbol] = size
            shape.append(size)
        shapes[spec.name] = tuple(shape)
    return shapes


def _size(spec: TensorSpec, axis: int, index: int, batch_only: bool) -> int:
    assert spec.shape is not None
    rank = len(spec.shape)
    if axis == 0 and rank > 1:
        return _BATCH_ALONE[index] if batch_only else _BATCH[index]
    if _is_state(spec, axis):
        return _BATCH[index]
    if is_image(spec):
        height, width = (1, 2) if spec.layout == "NHWC" else (2, 3)
        if axis == height:
            return _HEIGHT[index]
        if axis == width:
            return _WIDTH[index]
        return 3  # the channels of a picture
    return _SEQUENCE[index]


def _is_state(spec: TensorSpec, axis: int) -> bool:
    """Whether the open size is the batch of a recurrent state, [layers x directions, batch, hidden] in ONNX.

    With a single layer it could as well be the length of [1, length, features], which is far more common; so could
    anything whose symbol does not say batch.
    """
    if spec.shape is None or len(spec.shape) != 3 or axis != 1:
        return False
    layers, _, hidden = spec.shape
    symbol = spec.dims[1] if spec.dims else None
    return (layers or 0) > 1 and hidden is not None and (symbol is None or symbol.lower().startswith("batch"))


def is_image(spec: TensorSpec) -> bool:
    """Four dimensions of which the channel is 1, 3, 4 or open, and height or width larger than that or open."""
    if spec.shape is None or len(spec.shape) != 4 or spec.dtype not in ("float32", "float16", "uint8"):
        return False
    if spec.layout == "NHWC":
        channels, sides = spec.shape[3], spec.shape[1:3]
    else:
        channels, sides = spec.shape[1], spec.shape[2:]
    # One dynamic side beside a fixed one of a single channel is a spectrogram as often as a picture: not an image.
    if channels not in (3, 4) and not (channels in (1, None) and all(side is None for side in sides)):
        return False
    return all(side is None or side >= 16 for side in sides)


def _values(spec: TensorSpec, shape: tuple[int, ...], seed: int, case: str) -> np.ndarray:
    # Each tensor has a stream of its own, so that adding an input or pinning a shape does not change the others.
    key = hashlib.sha256(f"{seed}/{case}/{spec.name}".encode()).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
    if spec.dtype == "bool":
        return np.asarray(random.integers(0, 2, shape) == 1)
    if np.dtype(spec.dtype).kind in "iu":
        high = 256 if spec.dtype == "uint8" and is_image(spec) else INTEGER_RANGE
        return np.asarray(random.integers(0, high, shape)).astype(spec.dtype)
    if is_image(spec):
        return np.asarray(random.uniform(-1.0, 1.0, shape)).astype(spec.dtype)
    return np.asarray(random.standard_normal(shape)).astype(spec.dtype)
