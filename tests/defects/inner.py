"""A layer in the midst of a model goes wrong: in int8 kernels alone, on the device, or in a static int8 file as made.

Behind some more layers nothing of it has a shape: there is more error, and that is all.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import helper

from edgequant.archive.types import Artifact
from edgequant.files import sha256_of
from edgequant.models.flat import Table
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.maker import Maker
from edgequant.spec import Variant
from tests.defects import tagger
from tests.defects.bench import Procedure
from tests.defects.defect import Defect
from tests.defects.departing import const, value
from tests.defects.files import AS_MADE
from tests.defects.layer_edits import EDITS, Edit, planted, scaled
from tests.defects.outcome import Fits, Said
from tests.defects.recordings import RECORDINGS
from tests.generated import save

_node = helper.make_node


def _weights(name: str, *shape: int, gain: float = 1.4) -> onnx.TensorProto:
    rng = np.random.default_rng([*name.encode()])
    return const(name, gain * rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))


def _bias(name: str, channels: int) -> onnx.TensorProto:
    return const(name, 0.3 * np.random.default_rng([*name.encode()]).standard_normal(channels))


def mobile(folder: Path) -> Path:
    """x [1,3,40,40] -> y [1,10,20,20]: three inverted residuals, each an expansion, a depthwise and a projection."""
    nodes = [
        _node("Conv", ["x", "w0", "b0"], ["c0"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        _node("Relu", ["c0"], ["a0"]),
    ]
    weights = [_weights("w0", 24, 3, 3, 3), _bias("b0", 24), const("low", 0.0), const("high", 6.0)]
    for block in range(3):
        e, d, p = (f"{part}{block}" for part in "edp")
        weights += [_weights(e, 48, 24, 1, 1), _weights(d, 48, 1, 3, 3), _weights(p, 24, 48, 1, 1, gain=1.0)]
        weights += [_bias(f"{name}b", channels) for name, channels in ((e, 48), (d, 48), (p, 24))]
        nodes += [
            _node("Conv", [f"a{block}", e, f"{e}b"], [f"{e}o"], kernel_shape=[1, 1]),
            _node("Clip", [f"{e}o", "low", "high"], [f"{e}r"]),
            _node("Conv", [f"{e}r", d, f"{d}b"], [f"{d}o"], kernel_shape=[3, 3], pads=[1] * 4, group=48),
            _node("Clip", [f"{d}o", "low", "high"], [f"{d}r"]),
            _node("Conv", [f"{d}r", p, f"{p}b"], [f"{p}o"], kernel_shape=[1, 1]),
            _node("Add", [f"a{block}", f"{p}o"], [f"a{block + 1}"]),
        ]
    nodes.append(_node("Conv", ["a3", "w", "b"], ["y"], kernel_shape=[1, 1]))
    weights += [_weights("w", 10, 24, 1, 1), _bias("b", 10)]
    inputs, outputs = [value("x", [1, 3, 40, 40])], [value("y", [1, 10, 20, 20])]
    return save(folder / "mobile.onnx", nodes, inputs, outputs, weights, opset=16)


@contextmanager
def _made(target: Path | None, place: int, edit: Edit) -> Iterator[None]:
    """Beside every quantized file there is one with a fault in a layer, as `target`; None: it takes its place."""
    real = Maker.make

    def other(self: Maker, variant: Variant) -> Artifact:
        made = real(self, variant)
        if variant.method == "float":
            return made
        out = target or made.path.with_name("other.mnn")
        layer = [each for each in read_weights(made.path) if each.kept in ("quantized", "static")][place]
        assert planted(made.path, layer, edit, out), f"{layer.name}: there is no such fault"
        if target is not None:
            return made
        digest = sha256_of(out)
        path = out.rename(out.with_name(f"{variant.method}-{digest[:16]}.mnn"))
        return made.model_copy(update={"path": path, "sha256": digest})

    with mock.patch.object(Maker, "make", other):
        yield


def _louder(factor: float, channels: slice) -> Edit:
    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        def change(scales: np.ndarray) -> None:
            scales[channels] *= np.float32(factor)

        return scaled(data, op, layer, change)

    return edit


LOUDER = {
    "3 %": _louder(1.03, slice(None)),
    "5 %": _louder(1.05, slice(None)),
    "a channel 15 %": _louder(1.15, slice(1)),
    "a channel 30 %": _louder(1.3, slice(1)),
}
KERNELS: Sequence[tuple[str, str, str, int, str]] = (
    ("inner_gain", "a layer is 3 % too loud", "dynamic:8", 5, "3 %"),
    ("inner_channel", "a channel of a layer is 15 % too loud", "dynamic:8", 6, "a channel 15 %"),
    ("inner_static_gain", "a layer is 3 % too loud", "static:8", 3, "3 %"),
    ("inner_static_channel", "a channel of a layer is 15 % too loud", "static:8", 6, "a channel 15 %"),
)
"""Name, what, variant, the how manieth layer, and what is done to it."""

FILES: Sequence[tuple[str, str, int, str]] = (
    ("made_static_clipped", "the range of a tensor is half as wide", 4, "output clipped a little"),
    ("made_static_wide", "the range of a tensor is 40 times as wide", 2, "output's scale too wide"),
    ("made_static_zero_point", "the zero point of a tensor is off", 7, "output's zero point off"),
    ("made_static_scale", "the scale of one channel is 30 % too large", 5, "scale of one channel times 1.3"),
    ("made_static_bias", "a layer has lost its bias", 3, "bias gone"),
)


WORDS: Sequence[tuple[str, str, str, int, str]] = (
    ("inner_ids_gain", "ids", "dynamic:8", 4, "3 %"),
    ("inner_ids_channel", "ids", "dynamic:8", 3, "a channel 30 %"),
    ("inner_ids_static_channel", "ids", "static:8", 3, "a channel 30 %"),
    ("inner_mask_gain", "mask", "dynamic:8", 4, "3 %"),
    ("inner_mask_channel", "mask", "dynamic:8", 3, "a channel 30 %"),
    ("inner_mask_values", "mask", "dynamic:8", 2, "5 %"),
)
"""Models of text: their ids are whole numbers, and their mask must not be moved to see how far rounding goes."""

REAL: Sequence[tuple[str, str, int, str]] = (
    ("inner_enc_gain_2", "enc", 2, "3 %"),
    ("inner_enc_channel_2", "enc", 2, "a channel 15 %"),
    ("inner_enc_gain_5", "enc", 5, "3 %"),
    ("inner_enc_channel_5", "enc", 5, "a channel 15 %"),
    ("inner_df_dec_gain_0", "df_dec", 0, "3 %"),
    ("inner_df_dec_gain_1", "df_dec", 1, "3 %"),
    ("inner_erb_dec_gain_1", "erb_dec", 1, "3 %"),
    ("inner_erb_dec_gain_7", "erb_dec", 7, "3 %"),
    ("inner_enc_loud_2", "enc", 2, "5 %"),
    ("inner_enc_loud_5", "enc", 5, "5 %"),
    ("inner_df_dec_loud_0", "df_dec", 0, "5 %"),
    ("inner_df_dec_loud_1", "df_dec", 1, "5 %"),
    ("inner_erb_dec_loud_1", "erb_dec", 1, "5 %"),
    ("inner_erb_dec_loud_7", "erb_dec", 7, "5 %"),
)
"""The same with `dynamic:8` of real models: name, model, the how manieth layer, and what is done to it.  Of 20 that
were tried those that cost an output 1 dB or more; the others cost 0.5 dB at most, and pass."""


def _tagger(folder: Path, *, masked: bool) -> Path:
    return tagger.make(folder / "tagger.onnx", masked=masked)


@functools.cache
def _procedure(variant: str, *, device: bool, home: str = "mobile") -> Procedure:
    if home == "mobile":
        return Procedure(mobile, variant, device=device, more={"latency": False})
    if home in ("ids", "mask"):
        masked = home == "mask"
        make, cases = functools.partial(_tagger, masked=masked), functools.partial(tagger.cases, masked=masked)
        return Procedure(make, variant, cases, device, more={"latency": False})
    return Procedure(RECORDINGS[home].model, variant, RECORDINGS[home].cases, device, more={"latency": False})


def _on_device(variant: str, place: int, fault: str, home: str = "mobile") -> Said:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "other.mnn"
        memory = "low" if variant.startswith("dynamic") else "normal"
        around = _made(path, place, LOUDER[fault])
        return _procedure(variant, device=True, home=home).run("other_kernels", f"{memory}:{path}", around=around)


def _as_made(place: int, fault: str) -> Said:
    return _procedure("static:8", device=False).run(around=_made(None, place, EDITS[fault][0]))


def defects() -> list[Defect]:
    def one(
        name: str, kind: str, what: str, run: Callable[[], Said], twin: Procedure, fits: Fits, home: str = "mobile"
    ) -> Defect:
        healthy: Any = functools.partial(getattr, twin, "healthy")
        return Defect(name, kind, what, "live", home, home not in ("mobile", "ids", "mask"), run, healthy, fits)

    found = [
        one(name, "int8 kernels", f"{what}, in int8 kernels alone",
            functools.partial(_on_device, variant, place, fault), _procedure(variant, device=True), Fits())
        for name, what, variant, place, fault in KERNELS
    ]  # fmt: skip
    real = [(name, home, "dynamic:8", place, fault) for name, home, place, fault in REAL]
    for name, home, variant, place, fault in [*real, *WORDS]:
        run = functools.partial(_on_device, variant, place, fault, home)
        what = f"{fault} too loud: layer {place}, in int8 kernels alone"
        found.append(one(name, "int8 kernels", what, run, _procedure(variant, device=True, home=home), Fits(), home))
    for name, what, place, fault in FILES:
        run = functools.partial(_as_made, place, fault)
        found.append(one(name, "file as made", what, run, _procedure("static:8", device=False), AS_MADE))
    return found
