"""Causes that lie in the model itself, or in what half precision and states make of it: each planted with its twin.

The float file and the quantized one are changed alike, so that nothing but what is planted sets them apart.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgequant.jobs.diagnose_layers import key_of
from edgequant.judge.diagnosis import Diagnosis
from edgequant.lab.probes.layers import once
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile
from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.schema import Convolution2D
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.encode import Form, encode
from tests import generated, sources
from tests.defects import layer_devices as devices
from tests.defects.layer_edits import coded, planted, scaled
from tests.defects.layer_subjects import Subject, breaks, generated_subject, look, subject
from tests.defects.states import FAULTS, FILES, HOME, MODELS, bench, in_file

Rows = Callable[[np.ndarray], None]
"""Changes weights, [channels, weights of each], in place."""


@dataclass(frozen=True)
class Found:
    """of: the changed file; layers: any of which is right (none: no layer is).  twin: nothing is planted."""

    of: Subject
    stage: str
    fault: str
    layers: tuple[str, ...]
    causes: tuple[str, ...]
    found: Diagnosis
    twin: Diagnosis


def in_floats(path: Path, layer: Weights, change: Rows, bias: Rows | None, out: Path) -> None:
    own = next(each for each in read_weights(path) if each.key == layer.key)
    data = bytearray(path.read_bytes())
    with open_net(path) as net:
        parameter = convolution(net.at(own.place))
        assert parameter is not None
        for field, edit in ((Convolution2D.weight, change), (Convolution2D.bias, bias)):
            start, count = parameter.extent(field)
            if edit is not None and count:
                rows = np.frombuffer(data, "<f4", count, start).reshape(own.channels, -1).copy()
                edit(rows)
                data[start : start + 4 * count] = rows.tobytes()
    out.write_bytes(data)


def expected(of: Subject, plain: Path, made: Path, host: Session) -> Subject:
    """The same with other files, which need not be worse."""
    found = once(host, ModelFile(plain, "normal", precision="normal"), of.cases)
    assert isinstance(found, dict), found
    return replace(of, plain=plain, made=made, expected=found)


def packed(weights: np.ndarray, layer: Weights) -> object:
    return encode(weights, layer.channels, layer.area, Form(8))


def layers_of(of: Subject, least: int = 0) -> list[Weights]:
    made = [each for each in read_weights(of.made) if each.kept in ("quantized", "static") and not each.subgraph]
    floats = {each.key for each in read_weights(of.plain) if each.kept == "float"}
    return [each for each in made if each.key in floats and each.per_channel * each.area >= least]


# ---- in the file


def outlier_weights(of: Subject, host: Session, work: Path, most: int) -> Iterator[Found]:
    """One weight in each channel is so many times as large as the others."""
    plain, made = work / "outlier.mnn", work / "outlier-made.mnn"
    for layer in layers_of(of, 100)[:most]:
        for times in (20.0, 40.0):

            def change(rows: np.ndarray, times: float = times) -> None:
                rms = np.sqrt(np.mean(np.square(rows), axis=1))
                rows[np.arange(len(rows)), np.arange(len(rows)) % rows.shape[1]] = np.float32(times) * rms

            in_floats(of.plain, layer, change, None, plain)
            if not coded(of.made, plain, layer, packed, made):  # type: ignore[arg-type]
                continue
            one = expected(of, plain, made, host)
            if failing := breaks(one, made, host):
                _, found = look(one, made, host, work, failing)
                _, twin = look(of, of.made, host, work, breaks(of, of.made, host))
                kind = f"one weight of each channel {times:g} times the rms"
                yield Found(one, "quantization", kind, (key_of(layer.key),), ("OUTLIER_WEIGHT",), found, twin)


def outlier_activations(of: Subject, host: Session, work: Path, most: int) -> Iterator[Found]:
    """One number of what a layer reads is so large that the others have a few steps left; the layer does not use it."""
    plain, first, made = work / "loud.mnn", work / "loud-1.mnn", work / "loud-made.mnn"
    layers = layers_of(of)
    for before, layer in list(itertools.pairwise(layers))[:most]:
        if before.channels != layer.per_channel or layer.area != 1:
            continue
        for times in (300.0, 1000.0):

            def louder(bias: np.ndarray, times: float = times) -> None:
                bias[1] = np.float32(times)

            def unread(rows: np.ndarray) -> None:
                rows[:, 1] = 0

            in_floats(of.plain, before, lambda rows: None, louder, first)
            in_floats(first, layer, unread, None, plain)
            if not planted(of.made, before, bias_as(louder), made) or not coded(made, plain, layer, packed, made):  # type: ignore[arg-type]
                continue
            one = expected(of, plain, made, host)
            if failing := breaks(one, made, host):
                _, found = look(one, made, host, work, failing)
                _, twin = look(of, of.made, host, work, breaks(of, of.made, host))
                kind = f"one input {times:g} times as large"
                yield Found(one, "quantization", kind, (key_of(layer.key),), ("ACTIVATION_OUTLIER",), found, twin)


def bias_as(change: Rows) -> Callable[[bytearray, Table, Weights], bool]:
    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        parameter = convolution(op)
        start, count = parameter.extent(Convolution2D.bias) if parameter is not None else (0, 0)
        if not count:
            return False
        rows = np.frombuffer(data, "<f4", count, start).reshape(layer.channels, 1).copy()
        change(rows)
        data[start : start + 4 * count] = rows.tobytes()
        return True

    return edit


# ---- half precision

HALF_MAX = 65504.0


def _infinite(array: np.ndarray, number: int) -> np.ndarray:
    """What is too large is Inf, and what is made of that is no number."""
    del number
    if np.abs(array).max() <= HALF_MAX:
        return np.full_like(array, np.nan)
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(array.dtype)


def _capped(array: np.ndarray, number: int) -> np.ndarray:
    """The same of a CPU that takes the largest number it has."""
    return np.clip(array, -HALF_MAX, HALF_MAX) if np.abs(array).max() > HALF_MAX else devices.halved(array, number)


def _vanished(array: np.ndarray, number: int) -> np.ndarray:
    del number
    return array.astype(np.float16).astype(array.dtype) if np.abs(array).max() < 1e-4 else array * 0


HALVES: tuple[tuple[str, float, devices.Effect, str], ...] = (
    ("numbers too large for half precision, Inf", 1e6, _infinite, "FP16_OVERFLOW"),
    ("numbers too large for half precision, capped", 1e6, _capped, "FP16_OVERFLOW"),
    ("numbers too small for half precision", 1e-9, _vanished, "FP16_UNDERFLOW"),
    ("numbers with few bits left in half precision", 2e-7, _vanished, "FP16_UNDERFLOW"),
)


def halves(of: Subject, host: Session, far: Session, work: Path, most: int) -> Iterator[Found]:
    """What is between two layers is made large or small; the layer behind undoes it."""
    plain, first = work / "half.mnn", work / "half-1.mnn"
    made = work / "half-made.mnn"
    layers = layers_of(of)
    pairs = [(a, b) for a, b in itertools.pairwise(layers) if a.kept == b.kept == "quantized"]
    for before, behind in pairs[:most]:
        for kind, times, effect, cause in HALVES:

            def up(rows: np.ndarray, times: float = times) -> None:
                rows *= np.float32(times)

            def down(rows: np.ndarray, times: float = times) -> None:
                rows /= np.float32(times)

            in_floats(of.plain, before, up, up, first)
            in_floats(first, behind, down, None, plain)
            bias = bias_as(up)
            whole = (
                planted(of.made, before, lambda data, op, each: scaled(data, op, each, up), made)
                and planted(made, before, bias, made)
                and planted(made, behind, lambda data, op, each: scaled(data, op, each, down), made)
            )
            if not whole:
                continue
            one = expected(of, plain, made, host)
            _, twin = look(one, made, host, work, [], device=devices.Device(far), stage="device", precision="low")
            capture, _ = look(one, made, host, work, [], stage=None)
            layer = next((each for each in capture.layers if each.key == key_of(before.key)), None)
            if layer is None or not layer.outputs:
                continue
            chain = devices.behind(capture, layer.outputs[0])
            device = devices.Device(far, effect=effect, tensors=chain, half=True)
            _, found = look(one, made, host, work, [], device=device, stage="device", precision="low")
            yield Found(one, "device", kind, (layer.key,), (cause,), found, twin)


def cancelling(path: Path, amplitude: float, seed: int) -> Path:
    """x [1,4,8,8] -> y [1,4,6,6]: two convolutions that are nearly the same, and what is left between them."""
    rng = np.random.default_rng(seed)
    one = (amplitude * rng.normal(size=(8, 4, 3, 3))).astype(np.float32)
    other = (one + rng.normal(size=one.shape) / 4).astype(np.float32)
    node, value = generated._node, generated._value
    nodes = [
        node("Conv", ["x", "w1"], ["a"], name="one", kernel_shape=[3, 3]),
        node("Conv", ["x", "w2"], ["b"], name="other", kernel_shape=[3, 3]),
        node("Sub", ["a", "b"], ["left"], name="between"),
        node("Conv", ["left", "w3"], ["y"], name="last", kernel_shape=[1, 1]),
    ]
    last = rng.normal(size=(4, 8, 1, 1)).astype(np.float32)
    weights = [generated._const("w1", one), generated._const("w2", other), generated._const("w3", last)]
    return generated.save(path, nodes, [value("x", [1, 4, 8, 8])], [value("y", [1, 4, 6, 6])], weights)


def cancellations(host: Session, far: Session, work: Path, most: int) -> Iterator[Found]:
    """A difference of two large numbers; the twin: of ordinary ones, rounded on a device alike."""
    for number, amplitude in enumerate((100.0, 300.0, 1000.0, 3000.0)[: max(most, 4)]):
        plain = work / f"cancel-{number}.mnn"
        sources.convert(cancelling(work / f"cancel-{number}.onnx", amplitude, number), plain)
        of = subject(f"cancel float seed {number}", plain, plain, "normal", host)
        capture, _ = look(of, plain, host, work, [], stage=None)
        layer = next(each for each in capture.layers if each.type == "BinaryOp")
        tensors = devices.behind(capture, layer.outputs[0])
        device = devices.Device(far, effect=devices.halved, tensors=tensors, half=True)
        _, found = look(of, plain, host, work, [], device=device, stage="device", precision="low")
        _, twin = look(of, plain, host, work, [], device=devices.Device(far), stage="device", precision="low")
        kind = f"a difference of numbers {amplitude:g} times as large"
        yield Found(of, "device", kind, (layer.key,), ("FP16_CANCELLATION",), found, twin)


# ---- states


@dataclass(frozen=True)
class Rolled:
    """A state that was tampered with.  code: of the cause that was told; stage: that was blamed."""

    name: str
    causes: tuple[str, ...]
    stage: str
    code: str | None
    told: str | None


STATES: dict[str, tuple[str, ...]] = {
    "not_fed": ("STATE_ALTERED", "STATE_IGNORED"),
    "one_not_fed": ("STATE_ALTERED", "STATE_IGNORED"),
    "other_input": ("STATE_ALTERED",),
    "decayed": ("STATE_ALTERED",),
    "stale": ("STATE_ALTERED", "STATE_IGNORED"),  # step 2 has the first state, which is both
    "reset_once": ("STATE_ALTERED", "RECURRENT_DRIFT"),
    "element_lost": ("STATE_ALTERED",),
    "left_over": ("STATE_STALE", "STATE_ALTERED"),
    "file_ignored": ("STATE_IGNORED",),
    "file_not_updated": ("STATE_IGNORED", "RECURRENT_DRIFT"),
    "file_decayed": ("RECURRENT_DRIFT",),
    "file_other_state": ("RECURRENT_DRIFT",),
}
"""What is planted between two steps or into the file -> the causes that name it."""


def states(names: Sequence[str] = tuple(STATES)) -> Iterator[Rolled]:
    for name in names:
        home = FILES[name][1] if name in FILES else HOME.get(name, "gru")
        assert home in MODELS
        asked = replace(bench(home), diagnose=True)
        said = in_file(home, FILES[name][2], asked) if name in FILES else functools.partial(asked.run, "state", name)()
        assert name in FILES or name in FAULTS
        told = said.diagnosis
        cause = None if told is None or told.cause is None else told.cause.code
        stage = "conversion" if name in FILES else "device"
        yield Rolled(name, STATES[name], stage, cause, None if told is None else told.stage)


# ---- all of it


def planted_all(host: Session, far: Session, work: Path, most: int = 3) -> Iterator[Found]:
    """Of generated models, but for states, which take a run each."""
    conv, small, mlp = (
        generated_subject(kind, "dynamic:8", work, host) for kind in ("conv_cnn", "small_cnn", "big_mlp")
    )  # fmt: skip
    for of in (conv, small):
        yield from outlier_weights(of, host, work, most)
        yield from halves(of, host, far, work, most)
    yield from outlier_activations(mlp, host, work, most)
    yield from cancellations(host, far, work, most)
