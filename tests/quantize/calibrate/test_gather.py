"""Ranges of inner tensors: what comes out of MNN, and everything that can go wrong on the way."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgequant import zoo
from edgequant.errors import InputError, ToolError
from edgequant.models import read_model
from edgequant.quantize.calibrate.gather import gather
from edgequant.quantize.calibrate.layers import read_layers
from edgequant.quantize.calibrate.samples import spool
from edgequant.tensors import TensorSpec
from tests.quantize.calibrate.support import build, float_mnn, images, node, runs_over


def three_convolutions(path: Path) -> Path:
    """x [1,3,h,w] -> y, with inner tensors r0, r1 behind ReLUs."""
    rng = np.random.default_rng(5)
    nodes, weights, source = [], {}, "x"
    for number, channels in enumerate((3, 8, 8)):
        weights[f"w{number}"] = rng.standard_normal((8, channels, 3, 3)) / 5
        weights[f"b{number}"] = rng.standard_normal(8) / 10
        last = number == 2
        nodes.append(node("Conv", [source, f"w{number}", f"b{number}"], ["y" if last else f"c{number}"], pads=[1] * 4))
        if not last:
            nodes.append(node("Relu", [f"c{number}"], [f"r{number}"]))
            source = f"r{number}"
    return build(path, nodes, {"x": [1, 3, "h", "w"]}, {"y": [1, 8, "h", "w"]}, **weights)


def test_ranges_are_those_onnx_runtime_sees_whatever_the_chunk(tmp_path: Path) -> None:
    source = three_convolutions(tmp_path / "m.onnx")
    samples = images(5)
    runs = runs_over(source, iter(samples), tmp_path)
    model = float_mnn(source, tmp_path)
    names = ["x", "r0", "r1", "y"]
    found = gather(model, names, runs)
    with_inner = onnx.load(source)
    for name in ("r0", "r1"):
        with_inner.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(with_inner.SerializeToString())
    seen: dict[str, list[np.ndarray]] = {"x": [each["x"] for each in samples]}
    for sample in samples:
        for output, value in zip(session.get_outputs(), session.run(None, sample), strict=True):
            seen.setdefault(output.name, []).append(value)
    assert found.unreadable == {}
    for name in names:
        values = np.concatenate([each.reshape(-1) for each in seen[name]])
        histogram = found.histograms[name]
        assert (histogram.count, histogram.samples) == (values.size, 5)
        assert [histogram.low, histogram.high] == pytest.approx([values.min(), values.max()], rel=1e-4, abs=1e-6)
    for chunk in (1, 3):
        again = gather(model, names, runs, chunk=chunk)
        for name in names:
            assert (again.histograms[name].counts == found.histograms[name].counts).all()
    assert list((tmp_path / "logs").glob("calibrate-*")) == []


def test_a_nan_in_the_middle_names_layer_and_sample_though_no_output_shows_it(tmp_path: Path) -> None:
    nodes = [
        node("Log", ["x"], ["l"]),
        node("Conv", ["l", "w", "b"], ["c"]),
        node("Sigmoid", ["c"], ["y"]),
    ]
    shape = [1, 4, 8, 8]
    source = build(tmp_path / "m.onnx", nodes, {"x": shape}, {"y": shape}, w=np.eye(4)[:, :, None, None], b=np.zeros(4))
    samples = [{"x": np.full(shape, value, np.float32)} for value in (1, 2, -3, 4)]
    model = float_mnn(source, tmp_path)
    layer = read_layers(model)[0]
    with pytest.raises(InputError) as caught:
        gather(model, [layer.input, layer.output], runs_over(source, samples, tmp_path))
    assert caught.value.code == "CALIBRATION_NOT_FINITE"
    assert caught.value.evidence == {"tensor": layer.input, "sample": 2}
    assert layer.input in str(caught.value)


def test_a_tensor_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    source = three_convolutions(tmp_path / "m.onnx")
    found = gather(float_mnn(source, tmp_path), ["r0", "bogus", "r1", "y"], runs_over(source, images(2), tmp_path))
    assert set(found.histograms) == {"r0", "r1", "y"}
    assert set(found.unreadable) == {"bogus"}


def test_memory_for_some_tensors_but_not_for_all_at_once(tmp_path: Path) -> None:
    # Each result is 16 MB; with all 24 of them alive it is 384 MB.
    names = [f"t{number}" for number in range(24)]
    nodes = [node("Relu", ["x"], ["t0"])]
    nodes += [node("LeakyRelu", [a], [b]) for a, b in pairwise(names)]
    nodes.append(node("GlobalAveragePool", [names[-1]], ["y"]))
    source = build(tmp_path / "m.onnx", nodes, {"x": [1, 4, 1024, 1024]}, {"y": [1, 4, 1, 1]})
    sample = {"x": np.ones((1, 4, 1024, 1024), np.float32)}
    runs = runs_over(source, [sample], tmp_path, memory_limit=400 << 20)
    found = gather(float_mnn(source, tmp_path), names, runs)
    assert found.unreadable == {}
    assert set(found.histograms) == set(names)
    assert list((tmp_path / "logs").glob("calibrate-*"))  # what failed is on record


def test_no_time_is_an_error_that_says_so(tmp_path: Path) -> None:
    source = three_convolutions(tmp_path / "m.onnx")
    runs = runs_over(source, images(2), tmp_path, timeout=0.001)
    with pytest.raises(ToolError) as caught:
        gather(float_mnn(source, tmp_path), ["r0"], runs)
    assert caught.value.code == "CALIBRATION_TIMEOUT"


def test_a_model_that_cannot_run_the_sample_is_not_blamed_on_a_tensor(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "z"], ["s"]), node("Relu", ["s"], ["y"])]
    source = build(tmp_path / "m.onnx", nodes, {"x": [1, "n"], "z": [1, "m"]}, {"y": [1, "k"]})
    sample = {"x": np.ones((1, 5), np.float32), "z": np.ones((1, 7), np.float32)}
    with pytest.raises((InputError, ToolError)) as caught:
        gather(float_mnn(source, tmp_path), ["s"], runs_over(source, [sample], tmp_path))
    assert caught.value.code in ("CALIBRATION_REFUSED", "CALIBRATION_CRASHED", "CALIBRATION_MISCOMPUTED")


def test_two_inputs_a_gru_and_lengths_that_differ(tmp_path: Path) -> None:
    source = zoo.fetch("enc")
    rng = np.random.default_rng(0)
    samples = [
        {
            "feat_erb": rng.standard_normal((1, 1, length, 32)).astype(np.float32),
            "feat_spec": rng.standard_normal((1, 2, length, 96)).astype(np.float32),
        }
        for length in (3, 11, 7)
    ]
    model = float_mnn(source, tmp_path)
    layers = [each for each in read_layers(model) if each.why_not is None]
    tensors = list(dict.fromkeys(name for each in layers for name in (each.input, each.output)))
    inner = next(each.input for each in read_layers(model) if each.subgraph)
    found = gather(model, [*tensors, inner], runs_over(source, samples, tmp_path), chunk=8)
    assert set(found.histograms) == set(tensors)
    assert set(found.unreadable) == {inner}  # inside the GRU's loop
    assert {each.samples for each in found.histograms.values()} == {3}
    assert read_model(model).has_subgraphs


SPECS = (TensorSpec("x", "float32", (1, None)), TensorSpec("n", "int64", (2,)))
GOOD = {"x": np.ones((1, 3), np.float32), "n": np.ones(2, np.int64)}


@pytest.mark.parametrize(
    ("code", "change", "said"),
    [
        ("CALIBRATION_NAMES", {"n": None}, "no array for input n"),
        ("CALIBRATION_NAMES", {"z": np.ones(1)}, "unknown input z"),
        ("CALIBRATION_SHAPE", {"x": np.ones((2, 3), np.float32)}, "[2, 3]"),
        ("CALIBRATION_SHAPE", {"x": np.ones((1, 0), np.float32)}, "[1, 0]"),
        ("CALIBRATION_DTYPE", {"x": np.ones((1, 3), np.int32)}, "int32"),
        ("CALIBRATION_DTYPE", {"n": np.ones(2, np.float32)}, "float32"),
        ("CALIBRATION_DTYPE", {"x": np.array([["a"]], object)}, "object"),
        ("CALIBRATION_NOT_FINITE", {"x": np.array([[np.nan]], np.float32)}, "NaN"),
    ],
)
def test_samples_are_checked_and_named(
    code: str, change: dict[str, np.ndarray | None], said: str, tmp_path: Path
) -> None:
    bad = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(InputError) as caught:
        spool(iter([GOOD, bad]), SPECS, tmp_path / "s")
    assert caught.value.code == code
    assert "sample 1" in str(caught.value)
    assert said in str(caught.value)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        spool([], SPECS, tmp_path / "s")
    assert caught.value.code == "CALIBRATION_EMPTY"
