"""What the source's own runtime tells beside its outputs: what rounding has to cost, and which way it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgequant.archive.open import open_run
from edgequant.cases.load import save_npz
from edgequant.jobs import predicted as predicting
from edgequant.judge.activations import MARGIN_DB, STATIC_MARGIN_DB
from tests import generated
from tests.jobs.support import codes, do


def test_what_rounding_has_to_cost_is_near_what_it_costs(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    report = do(source, tmp_path / "run", "dynamic:8", "static:8,calib=minmax")
    assert report.verdict == "PASS"
    run = open_run(tmp_path / "run")
    predicted = {(each.by, each.memory): each.outputs["y"].sqnr_db for each in run.reference.moved}
    assert set(predicted) == {("rows", "low"), ("tensors", "normal")}
    assert {each.case for each in run.reference.moved} == run.source.held
    dynamic, static = report.runs
    found = dynamic.errors.activations["y"].sqnr_db
    assert abs(found - predicted["rows", "low"]) < MARGIN_DB
    assert abs(static.errors.quantization["y"].sqnr_db - predicted["tensors", "normal"]) < STATIC_MARGIN_DB


def test_the_ways_that_cases_take_are_kept(tmp_path: Path) -> None:
    source = generated.branches(tmp_path / "branches.onnx")
    for number, ways in enumerate(([True, False], [True, True])):
        (tmp_path / f"in{number}").mkdir()
        for case, deep in enumerate(ways):
            x = np.random.default_rng(case).standard_normal((1, 4)).astype(np.float32)
            save_npz(tmp_path / f"in{number}" / f"{case}.npz", {"x": x, "deep": np.array(deep)})
        report = do(source, tmp_path / f"run{number}", "float", inputs=tmp_path / f"in{number}")
        run = open_run(tmp_path / f"run{number}")
        kept = [bool(run.arrays.get(each.taps["deep"])) for each in run.reference.cases]
        assert kept == ways
        assert run.reference.moved == ()  # nothing is rounded in a float file
        assert ("BRANCH_NOT_TAKEN" in [each.code for each in report.findings]) == all(ways)
        assert report.verdict == ("MARGINAL" if all(ways) else "PASS")
        assert "BRANCH_NOT_TAKEN" not in codes(report.runs[0])


def _model(path: Path, shape: list[int], nodes: list[onnx.NodeProto], **constants: np.ndarray) -> Path:
    value = helper.make_tensor_value_info
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, shape)], [value("y", 1, None)], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _weights(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return np.asarray(1.4 * rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))


def attention(path: Path) -> Path:
    node = helper.make_node
    nodes = [
        *(node("MatMul", ["x", name], [f"x{name}"]) for name in "qkv"),
        node("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["xq", "kt"], ["qk"]),
        node("Mul", ["qk", "scale"], ["scaled"]),
        node("Softmax", ["scaled"], ["a"], axis=-1),
        node("MatMul", ["a", "xv"], ["av"]),
        node("MatMul", ["av", "o"], ["y"]),
    ]
    return _model(path, [1, 24, 64], nodes, scale=np.array(0.125), **{name: _weights(64, 64) for name in "qkvo"})


def outlier(path: Path) -> Path:
    """One channel is a hundred times as loud as the others, and takes their steps."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("Mul", ["a", "loud"], ["b"]),
        node("MatMul", ["b", "w1"], ["y"]),
    ]
    loud = np.where(np.arange(64) == 3, 100.0, 1.0)
    return _model(path, [8, 64], nodes, loud=loud, w0=_weights(64, 64), w1=_weights(64, 64))


def grouped(path: Path) -> Path:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, group=4),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w1"], ["y"], kernel_shape=[3, 3], pads=[1] * 4, group=4),
    ]
    return _model(path, [1, 16, 12, 12], nodes, w0=_weights(32, 4, 3, 3), w1=_weights(32, 8, 3, 3))


def averaged(path: Path) -> Path:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        node("HardSwish", ["a"], ["b"]),
        node("Conv", ["b", "depthwise"], ["c"], kernel_shape=[3, 3], pads=[1] * 4, group=32),
        node("GlobalAveragePool", ["c"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        node("Gemm", ["e", "w1"], ["y"]),
    ]
    weights = {"w0": _weights(32, 3, 3, 3), "depthwise": _weights(32, 1, 3, 3), "w1": _weights(32, 64)}
    return _model(path, [1, 3, 32, 32], nodes, **weights)


def test_what_is_not_predicted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = outlier(tmp_path / "m.onnx")
    assert "ROUNDING_NOT_PREDICTED" not in [each.code for each in do(source, tmp_path / "whole").findings]
    monkeypatch.setattr(predicting, "SECONDS", 0.0)
    report = do(source, tmp_path / "late")
    (finding,) = [each for each in report.findings if each.code == "ROUNDING_NOT_PREDICTED"]
    assert "longer than 0 s" in finding.message
    assert not open_run(tmp_path / "late").reference.moved


def test_a_copy_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predicting, "round_activations", full)
    report = do(outlier(tmp_path / "m.onnx"), tmp_path / "run")
    (finding,) = [each for each in report.findings if each.code == "ROUNDING_NOT_PREDICTED"]
    assert "No space left" in finding.message


@pytest.mark.nightly
@pytest.mark.parametrize("network", [attention, outlier, grouped, averaged])
def test_networks_of_all_kinds_cost_what_rounding_costs(tmp_path: Path, network: Callable[[Path], Path]) -> None:
    report = do(network(tmp_path / "m.onnx"), tmp_path / "run", "dynamic:8")
    assert "QUANTIZATION_BEYOND_ROUNDING" not in codes(report.runs[0])
    run = open_run(tmp_path / "run")
    predicted = [each.outputs["y"].sqnr_db for each in run.reference.moved]
    found = report.runs[0].errors.activations["y"].sqnr_db
    assert (
        min(predicted) - MARGIN_DB + 4 < found < max(predicted) + MARGIN_DB
    )  # what is known of healthy ones, and less
