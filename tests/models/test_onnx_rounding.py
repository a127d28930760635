"""Copies that round what layers read: against the same in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgequant.models.onnx_cut import OnnxFile
from edgequant.models.onnx_rounding import round_activations
from tests import generated

RNG = np.random.default_rng(3)


def _save(path: Path, node: onnx.NodeProto, x: tuple[int, ...], weights: np.ndarray, opset: int) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", 1, x)], [value("y", 1, None)], [numpy_helper.from_array(weights, "w")]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    (y,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    return np.asarray(y)


def _copy(path: Path, steps: int = 255, *, whole: bool = False) -> tuple[int, Path]:
    out = path.with_name("rounded.onnx")
    with OnnxFile(path) as file:
        return round_activations(file, out, steps, whole=whole), out


def _rounded(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    step = (high - low) / 255
    return low + step * np.round((x - low) / step)


@pytest.mark.parametrize("opset", [11, 17, 18, 21])
def test_each_row_of_a_product_has_its_own_scale(tmp_path: Path, opset: int) -> None:
    x, w = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 16), (16, 4)))
    path = _save(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), x.shape, w, opset)
    count, copy = _copy(path)
    rows = _rounded(x, x.min(-1, keepdims=True), x.max(-1, keepdims=True))
    assert count == 1
    np.testing.assert_allclose(_run(copy, x), rows @ w, atol=1e-4)
    assert np.abs(_run(copy, x) - _run(path, x)).max() > 1e-3


def test_a_kernel_has_the_range_of_all_it_lies_over(tmp_path: Path) -> None:
    x, w = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 7), (3, 2, 3)))
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3], pads=[1, 1])
    path = _save(tmp_path / "m.onnx", node, x.shape, w, 17)
    _, copy = _copy(path)
    low, high = x.min(1)[0], x.max(1)[0]
    near = [slice(max(place - 1, 0), place + 2) for place in range(7)]
    rounded = _rounded(x, np.array([low[n].min() for n in near]), np.array([high[n].max() for n in near]))
    expected = _run(path, rounded.astype(np.float32))
    np.testing.assert_allclose(_run(copy, x), expected, atol=1e-4)


def test_one_scale_for_a_whole_tensor_keeps_zero(tmp_path: Path) -> None:
    x, w = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 16), (16, 4)))
    x[0, 0] = 0.0
    path = _save(tmp_path / "m.onnx", helper.make_node("Gemm", ["x", "w"], ["y"]), x.shape, w, 17)
    _, copy = _copy(path, whole=True)
    step = np.abs(x).max() / 127
    np.testing.assert_allclose(_run(copy, x), np.round(x / step) * step @ w, atol=1e-4)


def test_depthwise_convolutions_read_floats_but_for_static(tmp_path: Path) -> None:
    w = RNG.standard_normal((4, 1, 3)).astype(np.float32)
    path = _save(tmp_path / "m.onnx", helper.make_node("Conv", ["x", "w"], ["y"], group=4), (1, 4, 9), w, 17)
    assert _copy(path)[0] == 0
    assert not path.with_name("rounded.onnx").exists()
    assert _copy(path, whole=True)[0] == 1


def test_silence_stays_silence(tmp_path: Path) -> None:
    w = RNG.standard_normal((8, 4)).astype(np.float32)
    path = _save(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), (2, 8), w, 17)
    assert not _run(_copy(path)[1], np.zeros((2, 8), np.float32)).any()


def test_layers_in_branches_and_products_of_two_inputs_are_left_alone(tmp_path: Path) -> None:
    assert _copy(generated.branches(tmp_path / "branches.onnx"))[0] == 0
    value = helper.make_tensor_value_info
    node = helper.make_node("MatMul", ["x", "z"], ["y"])
    graph = helper.make_graph([node], "g", [value("x", 1, [2, 3]), value("z", 1, [3, 2])], [value("y", 1, [2, 2])])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "two.onnx"
    )
    assert _copy(tmp_path / "two.onnx")[0] == 0


def test_a_recurrent_layer_reads_rounded_steps(tmp_path: Path) -> None:
    count, copy = _copy(generated.gru(tmp_path / "gru.onnx"))
    onnx.checker.check_model(onnx.load(copy))
    assert count >= 1


def test_what_follows_from_values_and_what_from_sizes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Cast", ["size"], ["wide"], to=1),
        helper.make_node("ReduceSum", ["x"], ["sum"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N"])], [value("wide", 1, [1]), value("sum", 1, None)])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with OnnxFile(tmp_path / "m.onnx") as file:
        assert file.of_values() == {"x", "sum"}
