"""Static int8 models: what MNN computes with our scales, on layers, real models, and where MNN would go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgequant import zoo
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.quantize.calibrate.methods import CALIBRATORS, Quantizer
from edgequant.quantize.calibrate.outputs import run_outputs
from edgequant.quantize.calibrate.static import StaticOptions, make_static
from edgequant.quantize.convert import convert
from edgequant.spec import Variant
from tests import generated
from tests.quantize.calibrate.support import (
    Sample,
    build,
    float_mnn,
    images,
    left_in,
    node,
    one_layer,
    runs_over,
    speech_like,
    static,
    three_layers,
    worst,
)
from tests.waiting import ended


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated.conv_cnn(tmp_path_factory.mktemp("cnn") / "cnn.onnx")


def pictures(count: int, seed: int = 0) -> list[Sample]:
    """Smooth pictures with a bright spot each: not all alike, as noise would be behind a pool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    found = []
    for _ in range(count):
        spot = np.exp(-((x - rng.uniform(0, 32)) ** 2 + (y - rng.uniform(0, 32)) ** 2) / rng.uniform(10, 200))
        colour = rng.uniform(-2, 2, (3, 1, 1))
        found.append({"x": (spot * colour + rng.standard_normal((3, 32, 32)) / 5)[None].astype(np.float32)})
    return found


@pytest.mark.parametrize("calib", CALIBRATORS)
@pytest.mark.parametrize("sym", [True, False])
def test_every_calibrator_makes_a_working_model(cnn: Path, tmp_path: Path, calib: str, sym: bool) -> None:
    made = static(cnn, pictures(6), tmp_path, calib=calib, sym=sym)
    assert worst(made) > 18
    assert [each.how for each in made.layers][:3] == ["static"] * 3
    assert made.file.path.stat().st_size < 0.4 * float_mnn(cnn, tmp_path).stat().st_size
    for each in made.layers:
        if each.how == "static":
            assert each.input_scale is not None
            assert each.output_scale is not None
            assert 0 < each.input_scale < 1
            assert sym == (each.input_zero == 0 and each.output_zero == 0)
    # Samples it has not seen, against another runtime.
    session, unseen = onnxruntime.InferenceSession(cnn), pictures(5, seed=9)
    outputs = run_outputs(made.file.path, runs_over(cnn, unseen, tmp_path), "it", 5)
    for sample, output in zip(unseen, outputs, strict=True):
        wanted = session.run(None, sample)[0]
        assert 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - output["y"]) ** 2)) > 12


def slow_layer(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray, group: int, relu: bool, ends: tuple[Quantizer, Quantizer]
) -> np.ndarray:
    """A convolution in int8 by its definition: int8 in, int8 weights per channel, exact sums, int8 out."""
    source, result = ends
    scales = np.abs(weights).reshape(len(weights), -1).max(axis=1) / 127
    scales = np.where(scales > 0, scales, 1.0)[:, None, None, None]
    restored = source.restored(x)
    w = np.rint(weights / scales) * scales
    pad = w.shape[2] // 2
    padded = np.pad(restored, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = x.shape[2:]
    y = np.zeros((1, len(w), height, width))
    each, per = w.shape[1], len(w) // group
    for channel in range(len(w)):
        first = channel // per * each
        for dy in range(w.shape[2]):
            for dx in range(w.shape[3]):
                part = padded[0, first : first + each, dy : dy + height, dx : dx + width]
                y[0, channel] += np.tensordot(w[channel, :, dy, dx], part, 1)
        y[0, channel] += bias[channel]
    return result.restored(np.maximum(y, 0) if relu else y)


@pytest.mark.parametrize("kind", ["conv3x3", "conv1x1", "depthwise"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("sym", [True, False])
def test_mnn_computes_a_layer_as_int8_is_defined(kind: str, relu: bool, sym: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shape = {"conv3x3": (8, 6, 3, 3), "conv1x1": (8, 6, 1, 1), "depthwise": (6, 1, 3, 3)}[kind]
    # Channels of very different size, one without weights but with a bias.
    weights = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 0, (shape[0], 1, 1, 1))).astype(np.float32)
    weights[2] = 0
    bias = rng.standard_normal(shape[0]).astype(np.float32)
    group = 6 if kind == "depthwise" else 1
    source = one_layer(tmp_path / "m.onnx", weights, bias, group, relu)
    samples = [{"x": each["x"] + np.float32(0.7)} for each in images(2, channels=6)]
    made = static(source, samples, tmp_path, calib="minmax", sym=sym)
    (layer,) = made.layers
    assert layer.how == "static"
    assert layer.input_scale is not None
    assert layer.output_scale is not None
    limits = (-127, 127) if sym else (-128, 127)
    ends = (
        Quantizer(layer.input_scale, layer.input_zero or 0, *limits),
        Quantizer(layer.output_scale, layer.output_zero or 0, *limits),
    )
    outputs = run_outputs(made.file.path, runs_over(source, samples, tmp_path), "it", 2)
    for sample, output in zip(samples, outputs, strict=True):
        steps = (output["y"] - slow_layer(sample["x"], weights, bias, group, relu, ends)) / layer.output_scale
        # MNN's own rounding may go the other way at a half; in depthwise layers it truncates the bias as well.
        assert np.abs(steps).max() < (2.1 if kind == "depthwise" else 1.1)
        assert np.mean(np.abs(steps) > 0.5) < (0.3 if kind == "depthwise" else 0.02)


def test_a_depthwise_channel_of_tiny_weights_does_not_overflow(tmp_path: Path) -> None:
    """With largest magnitude / 127 as its scale, MNN adds the bias as an integer beyond int32."""
    weights = np.full((4, 1, 3, 3), 0.3, np.float32)
    weights[1] = 1e-12
    bias = np.array([0.1, 5.0, -0.2, 0.3], np.float32)
    source = one_layer(tmp_path / "m.onnx", weights, bias, group=4)
    samples = [{"x": each["x"] * np.float32(1e-4)} for each in images(2, channels=4)]
    made = static(source, samples, tmp_path, calib="minmax", sym=False)
    assert worst(made) > 30


def test_a_pool_in_front_of_a_layer_is_not_clipped_to_the_range_behind_it(tmp_path: Path) -> None:
    """Squeeze and excite: MNN would give the pool's input the scale of its output.  That was 1 dB."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Mul", ["x", "x"], ["h"]),
        node("GlobalAveragePool", ["h"], ["p"]),
        node("Conv", ["p", "w", "b"], ["c"]),
        node("Sigmoid", ["c"], ["y"]),
    ]
    weights = {"w": rng.standard_normal((8, 8, 1, 1)), "b": rng.standard_normal(8)}
    source = build(tmp_path / "m.onnx", nodes, {"x": [1, 8, 16, 16]}, {"y": [1, 8, 1, 1]}, **weights)
    samples = [{"x": rng.standard_t(3, (1, 8, 16, 16)).astype(np.float32)} for _ in range(4)]
    with pytest.raises(InputError) as caught:
        static(source, samples, tmp_path, calib="minmax")
    assert caught.value.code == "NOTHING_STATIC"
    assert "in front of a pool" in json.dumps(caught.value.evidence)
    # Where the pool hardly changes the range, its layer is int8, with the wider scale.
    level = [{"x": np.full((1, 8, 16, 16), v, np.float32) + each["x"] * 1e-3} for v, each in enumerate(samples, 1)]
    made = static(source, level, tmp_path, calib="minmax")
    assert made.layers[0].how == "static"
    assert worst(made) > 30


def test_a_result_used_behind_a_loop_stays_float(tmp_path: Path) -> None:
    """MNN loses the scale of an int8 tensor between the segments of a model: erb_dec came out at 2.8 dB."""
    rng = np.random.default_rng(1)
    shapes = {"emb": (512,), "e3": (64, 8), "e2": (64, 8), "e1": (64, 16), "e0": (64, 32)}
    samples = []
    for length in (6, 9):
        sample = {
            name: np.maximum(rng.standard_normal((1, shape[0], length, shape[1])), 0).astype(np.float32)
            for name, shape in shapes.items()
            if name != "emb"
        }
        samples.append({**sample, "emb": rng.uniform(0, 1, (1, length, 512)).astype(np.float32)})
    made = static(zoo.fetch("erb_dec"), samples, tmp_path, calib="mse", sym=False)
    assert worst(made) > 15
    reasons = {each.name: each.why or "" for each in made.layers}
    assert "behind a loop" in reasons["/conv3p/0/Conv_output_0"]
    assert sum(each.how == "static" for each in made.layers) >= 5


def test_two_inputs_and_a_gru_with_the_loop_in_float_or_in_8_bit_weights(tmp_path: Path) -> None:
    source, samples = zoo.fetch("enc"), speech_like(3)
    sizes = {}
    for rnn in ("weight", "float"):
        made = static(source, samples, tmp_path, calib="mse", sym=False, rnn=rnn)
        assert set(made.fidelity) == {"e0", "e1", "e2", "e3", "emb", "c0", "lsnr"}
        assert worst(made) > 3  # noise is harder than speech: it has no quiet parts to be clipped for
        assert made.samples == 3
        assert sum(each.how == "static" for each in made.layers) == 13
        loop = [each for each in made.layers if each.why and "loop or branch, whose" in each.why]
        assert [each.how for each in loop] == [rnn]
        sizes[rnn] = made.file.path.stat().st_size
    assert sizes["weight"] < sizes["float"]
    assert left_in(tmp_path) == {"static.mnn"}


def test_what_is_0_in_all_samples_is_not_int8(tmp_path: Path) -> None:
    """Its scale would be a guess: here the first value beyond 1 would be clipped."""
    weights, bias = np.ones((4, 4, 1, 1), np.float32), np.zeros(4, np.float32)
    source = one_layer(tmp_path / "m.onnx", weights, bias, relu=True)
    samples = [{"x": -np.abs(each["x"])} for each in images(2, channels=4)]
    with pytest.raises(InputError) as caught:
        static(source, samples, tmp_path)
    assert caught.value.code == "NOTHING_STATIC"
    assert "0 in all samples" in json.dumps(caught.value.evidence)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("calib", CALIBRATORS)
def test_recognition_with_every_calibrator_keeps_most_of_its_answers(calib: str, tmp_path: Path) -> None:
    """Random stripes are no text, so nothing is said about accuracy: it runs, and resembles the float model."""
    rng = np.random.default_rng(0)
    samples = []
    for width in (64, 96, 160):
        stripes = np.repeat(rng.uniform(-1, 1, (1, 3, 1, width // 4)), 4, axis=3) + rng.normal(
            0, 0.1, (1, 3, 48, width)
        )
        samples.append({"x": np.clip(stripes, -1, 1).astype(np.float32)})
    made = static(zoo.fetch("ppocr_rec"), samples, tmp_path, calib=calib)
    assert worst(made) > 0
    assert sum(each.how == "static" for each in made.layers) > 50


def test_layers_by_name_stay_float_and_a_wrong_name_is_told(cnn: Path, tmp_path: Path) -> None:
    every = static(cnn, pictures(2), tmp_path, calib="minmax")
    names = [each.name for each in every.layers]
    made = static(cnn, pictures(2), tmp_path, calib="minmax", skip=(names[1],))
    assert [each.how for each in made.layers][:3] == ["static", "float", "static"]
    assert made.layers[1].why == "asked to stay float"
    with pytest.raises(InputError) as caught:
        static(cnn, pictures(2), tmp_path, skip=(names[1] + "x",))
    assert caught.value.code == "LAYER_UNKNOWN"
    assert names[1] in (caught.value.hint or "")


def test_a_float_mnn_is_a_source_too_and_gives_the_same_model(cnn: Path, tmp_path: Path) -> None:
    one = static(cnn, pictures(3), tmp_path)
    first = one.file.path.read_bytes()
    other = static(float_mnn(cnn, tmp_path), pictures(3), tmp_path)
    assert other.file.path.read_bytes() == first


def test_what_dies_is_named_and_leaves_nothing(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        make_static(cnn, pictures(2), StaticOptions(), tmp_path / "o.mnn", log_dir=tmp_path / "logs", timeout=0.001)
    assert caught.value.code in ("CONVERTER_TIMEOUT", "CALIBRATION_TIMEOUT")  # whichever is too slow first
    assert left_in(tmp_path) == set()


def test_a_source_that_is_quantized_already_is_refused(cnn: Path, tmp_path: Path) -> None:
    made = static(cnn, pictures(2), tmp_path)
    with pytest.raises(InputError) as caught:
        make_static(made.file.path, pictures(2), StaticOptions(), tmp_path / "again.mnn", log_dir=tmp_path / "logs")
    assert caught.value.code == "ALREADY_QUANTIZED"


def test_an_error_in_the_samples_leaves_an_old_output_as_it_was(cnn: Path, tmp_path: Path) -> None:
    (tmp_path / "static.mnn").write_bytes(b"old")

    def samples() -> Iterator[Sample]:
        yield from pictures(2)
        raise EdgequantError("MINE", "mine")

    with pytest.raises(EdgequantError, match="mine"):
        make_static(cnn, samples(), StaticOptions(), tmp_path / "static.mnn", log_dir=tmp_path / "logs")
    assert (tmp_path / "static.mnn").read_bytes() == b"old"
    assert left_in(tmp_path) == {"static.mnn"}


_KILLED = """
import sys, threading, time
from pathlib import Path
import psutil
import edgequant.quantize.calibrate.child as child
from edgequant.quantize.calibrate.static import StaticOptions, make_static
from tests.quantize.calibrate.test_static import pictures

real = child.run_child
def hold():
    # The one that computes is stopped, or on a fast machine it would be done before anybody can kill anything.
    # Not before it is itself: whoever starts it waits for that, and would not see anybody's end.
    while len(family := psutil.Process().children(recursive=True)) < 2 or family[0].cmdline() == family[-1].cmdline():
        time.sleep(0.001)
    family[-1].suspend()
    print(*(each.pid for each in family), flush=True)
def told(*args, **options):
    threading.Thread(target=hold, daemon=True).start()
    return real(*args, **options)
child.run_child = told
folder = Path(sys.argv[2])
make_static(Path(sys.argv[1]), pictures(400), StaticOptions(), folder / "o.mnn", log_dir=folder / "logs")
"""


def test_killed_while_it_gathers_no_process_stays_and_the_next_run_clears_up(cnn: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(cnn), str(tmp_path)], stdout=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        assert len(children) == 2
        process.send_signal(signal.SIGKILL)
    assert all(ended(pid) for pid in children)
    assert any(name.startswith(".edgequant-convert-") for name in left_in(tmp_path))
    static(cnn, pictures(2), tmp_path)
    assert left_in(tmp_path) == {"static.mnn"}


def test_half_precision_is_no_float_model(tmp_path: Path) -> None:
    """Not "no layer can be static", with the advice to take dynamic:8, which refuses the file as well."""
    source = three_layers(tmp_path / "m.onnx", None)
    halves = tmp_path / "h.mnn"
    convert(source, Variant.parse("fp16"), halves, log_dir=tmp_path / "logs")
    with pytest.raises(InputError) as caught:
        static(halves, images(2, 16), tmp_path, calib="minmax", equalize=True)
    assert caught.value.code == "ALREADY_QUANTIZED"
    assert "fp16" in str(caught.value)
