"""Files that are not what they should be: on the device alone, or made so and wrong on both sides."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import numpy_helper

from edgequant.archive.types import Artifact
from edgequant.files import sha256_of
from edgequant.quantize.maker import Maker
from edgequant.spec import Variant
from tests import sources
from tests.defects.bench import Procedure
from tests.defects.defect import Defect
from tests.defects.outcome import Fits, Said
from tests.defects.recordings import A53, RECORDINGS

EIGHT = ("--weightQuantBits", "8", "--weightQuantAsymmetric=1")
Weights = dict[str, np.ndarray]
Edit = Callable[[Weights], None]
LAST, ITS_BIAS = "onnx::Conv_297", "onnx::Conv_298"
"""The last convolution of the encoder, 64 channels, and its bias."""
ON_DEVICE = Fits(unwanted=re.compile("CONVERSION|CALIBRAT|QUANTIZATION|REFERENCE|CASE|RANDOM|LIMIT_|INTERNAL"))
AS_MADE = Fits(unwanted=re.compile("CONVERSION|CALIBRAT|DEVICE|REFERENCE|CASE|RANDOM|INTERNAL"))


def _edited(edit: Edit, *flags: str, quantized: bool = True) -> Callable[[Path], Path]:
    """The encoder with other weights, quantized as the right one is."""

    def make(folder: Path) -> Path:
        model = onnx.load(str(sources.real("enc")))
        weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
        edit(weights)
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        source = folder / "edited.onnx"
        onnx.save(model, str(source))
        return sources.convert(source, folder / "edited.mnn", *(flags or EIGHT if quantized else ()))

    return make


def _row(name: str, row: int, factor: float) -> Edit:
    def edit(weights: Weights) -> None:
        weights[name][row] *= factor

    return edit


def _whole(name: str, factor: float) -> Edit:
    def edit(weights: Weights) -> None:
        weights[name] *= factor

    return edit


def _rows_exchanged(weights: Weights) -> None:
    weights[LAST][[10, 11]] = weights[LAST][[11, 10]]


def _every_weight(share: float) -> Edit:
    """Another checkpoint: every weight is off by a share of the size of its tensor."""

    def edit(weights: Weights) -> None:
        rng = np.random.default_rng(4)
        for name, array in weights.items():
            if array.dtype == np.float32 and array.size > 300:
                array += (share * array.std() * rng.standard_normal(array.shape)).astype(np.float32)
                weights[name] = array

    return edit


def _nothing(weights: Weights) -> None:
    """As it is."""


def _bits_flipped(folder: Path) -> Path:
    """Forty bits of quantized weights: in the stretch of the file that looks most like noise."""
    path = _edited(_nothing)(folder)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    blocks = data[: data.size // 1024 * 1024].reshape(-1, 1024)
    kinds = [len(np.unique(block)) for block in blocks]
    noisy = np.argsort(kinds)[-40:]
    data[noisy * 1024 + 500] ^= 0x40
    path.write_bytes(data.tobytes())
    return path


MADE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "six_bits": ("a 6-bit file in place of the 8-bit one", _edited(_nothing, "--weightQuantBits", "6", EIGHT[2])),
    "two_bits": ("a 2-bit file in place of the 8-bit one", _edited(_nothing, "--weightQuantBits", "2", EIGHT[2])),
    "symmetric": ("scales without a zero point", _edited(_nothing, *EIGHT[:2], "--weightQuantAsymmetric=0")),
    "not_quantized": ("the float file", _edited(_nothing, quantized=False)),
    "scale_of_a_row": ("one scale of 64 is 10 % too large", _edited(_row(LAST, 17, 1.1))),
    "scale_of_a_layer": ("all scales of a layer are 3 % too large", _edited(_whole(LAST, 1.03))),
    "row_zeroed": ("the weights of one channel of 64 are zero", _edited(_row(LAST, 40, 0.0))),
    "bias_lost": ("a layer has lost its bias", _edited(_whole(ITS_BIAS, 0.0))),
    "rows_exchanged": ("the weights of two channels in each other's stead", _edited(_rows_exchanged)),
    "other_checkpoint": ("an earlier checkpoint of the same model", _edited(_every_weight(0.03))),
    "other_weights": ("another model with the same inputs and outputs", _edited(_every_weight(3.0))),
    "bits_flipped": ("forty bits of its weights are flipped", _bits_flipped),
}
ON_ARM = ("six_bits", "scale_of_a_row", "other_checkpoint")
"""Tried where rounding lies between device and host as well."""
WRONG_AS_MADE = ("six_bits", "two_bits", "symmetric", "not_quantized", "scale_of_a_row", "scale_of_a_layer",
                 "row_zeroed", "bias_lost", "rows_exchanged", "other_checkpoint")  # fmt: skip


def _cases() -> dict[str, dict[str, np.ndarray]]:
    cases = RECORDINGS["enc"].cases()
    return {name: cases[name] for name in ("a", "b", "c")}


BENCH = Procedure(RECORDINGS["enc"].model, cases=_cases, more={"latency": False})
ARM = replace(BENCH, uri=A53)
HOST = replace(BENCH, device=False)


def _loaded(procedure: Procedure, make: Callable[[Path], Path]) -> Said:
    with tempfile.TemporaryDirectory() as scratch:
        return procedure.run("other_file", str(make(Path(scratch))))


@contextmanager
def _making(make: Callable[[Path], Path]) -> Iterator[None]:
    """Whatever is quantized becomes this file."""
    real = Maker.make

    def other(self: Maker, variant: Variant) -> Artifact:
        made = real(self, variant)
        if variant.method == "float":
            return made
        with tempfile.TemporaryDirectory() as scratch:
            data = make(Path(scratch)).read_bytes()
        path = made.path.with_name(f"{variant.method}-other.mnn")
        path.write_bytes(data)
        digest = sha256_of(path)
        path = path.rename(path.with_name(f"{variant.method}-{digest[:16]}.mnn"))
        return made.model_copy(update={"path": path, "sha256": digest, "size": len(data)})

    with mock.patch.object(Maker, "make", other):
        yield


def _wrong_as_made(make: Callable[[Path], Path]) -> Said:
    return HOST.run(around=_making(make))


def defects() -> list[Defect]:
    def one(name: str, kind: str, what: str, run: Callable[[], Said], twin: Procedure, fits: Fits) -> Defect:
        healthy: Any = functools.partial(getattr, twin, "healthy")
        return Defect(name, kind, what, "live", "enc", True, run, healthy, fits)

    found = []
    for name, (what, make) in MADE.items():
        procedure = ARM if name in ON_ARM else BENCH
        run = functools.partial(_loaded, procedure, make)
        found.append(one(f"loads_{name}", "file on device", what, run, procedure, ON_DEVICE))
        if name in WRONG_AS_MADE:
            run = functools.partial(_wrong_as_made, make)
            found.append(one(f"made_{name}", "file as made", what, run, HOST, AS_MADE))
    return found
