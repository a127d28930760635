"""The cases of a user who gives none: what is drawn again, what is beside them, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgequant.archive.open import open_run
from edgequant.spec import RunOptions
from tests.jobs.support import codes, do


def model(path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], *constants: object) -> Path:
    """One with float output y of unknown shape."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [y], initializer=list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def x(*shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)


def kinds(run_dir: Path) -> dict[str, str]:
    return {case.name: case.kind for case in open_run(run_dir).source.cases}


def inputs_of(run_dir: Path) -> dict[str, np.ndarray]:
    run = open_run(run_dir)
    return {case.name: run.inputs(case.name)["x"] for case in run.source.cases}


def test_a_case_that_gives_infinity_is_drawn_again(tmp_path: Path) -> None:
    """A divisor that is drawn from 0 to 3 is 0 now and then; that says nothing of the model."""
    nodes = [
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["x", "f"], ["y"]),
    ]
    n = helper.make_tensor_value_info("n", TensorProto.INT64, (1,))
    divided = model(tmp_path / "m.onnx", nodes, [x(1, 8), n])
    for seed in range(4):
        run_dir = tmp_path / f"run{seed}"
        options = {"options": RunOptions(seed=seed)}
        report = do(divided, run_dir, "float", **options)
        assert report.verdict == "PASS"
        assert list(kinds(run_dir))[:2] == ["first", "second"]
        run = open_run(run_dir)
        for case in run.source.cases:
            assert run.inputs(case.name)["n"].all()


def test_one_that_is_never_finite_is_the_models_own(tmp_path: Path) -> None:
    zero = helper.make_tensor("zero", TensorProto.FLOAT, (1,), [0.0])
    divided = model(tmp_path / "m.onnx", [helper.make_node("Div", ["x", "zero"], ["y"])], [x(1, 8)], zero)
    report = do(divided, tmp_path / "run", "float")
    assert report.verdict == "INCONCLUSIVE"
    assert "REFERENCE_NOT_FINITE" in codes(report.runs[0])


def test_other_sizes_and_values_are_run_as_well(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    constant = helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)
    product = model(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [x("N", "T", 8)], constant)
    report = do(product, tmp_path / "run", "float")
    assert report.verdict == "PASS"
    strained = {"longer", "silence", "loud-3", "loud-10", "negative", "whole"}
    found = kinds(tmp_path / "run")
    assert {name for name, kind in found.items() if kind == "strain"} == strained
    assert {name for name, kind in found.items() if kind == "size"} == {"odd", "batch"}
    shapes = {case.name: case.shapes["x"] for case in report.cases}
    assert (shapes["batch"][0], shapes["odd"][1] % 4) == (3, 1)


def test_what_the_source_refuses_is_left_out_and_said(tmp_path: Path) -> None:
    """Only multiples of four, only one at a time: the usual cases are enough for a PASS."""
    shape = helper.make_tensor("shape", TensorProto.INT64, (3,), [1, -1, 4])
    folded = model(tmp_path / "m.onnx", [helper.make_node("Reshape", ["x", "shape"], ["y"])], [x("N", "T")], shape)
    report = do(folded, tmp_path / "run", "float")
    assert report.verdict == "PASS"
    (said,) = [each for each in report.findings if each.code == "CASES_NOT_REACHED"]
    assert set(said.evidence["shapes"]) == {"odd", "batch", "longer"}
    assert "odd, batch, longer" in said.message


def framed(path: Path, window: int) -> Path:
    """A sound in frames: of one that is shorter than the window there are none."""
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["rest"]),
        helper.make_node("Relu", ["rest"], ["y"]),
    ]
    numbers = {"start": [window], "end": [1 << 30], "axis": [1]}
    constants = [helper.make_tensor(name, TensorProto.INT64, (1,), value) for name, value in numbers.items()]
    return model(path, nodes, [x(1, "n")], *constants)


def test_a_size_at_which_the_source_gives_nothing_is_left_out(tmp_path: Path) -> None:
    """MNN refuses to compute an output without elements, which is no fault of a conversion."""
    report = do(framed(tmp_path / "m.onnx", 60), tmp_path / "run", "float")
    assert report.verdict == "PASS"
    sizes = {name: array.shape[1] for name, array in inputs_of(tmp_path / "run").items()}
    assert min(sizes.values()) > 60
    said = {each.where: each.message for each in report.findings if each.code == "CASE_DROPPED"}
    assert list(said) == ["small", "middle"]
    assert "none of the outputs has an element" in said["small"]


def test_samples_to_calibrate_on_have_sizes_the_source_takes(tmp_path: Path) -> None:
    """Not the middle one of all models: a network behind a window of 60 needs longer ones."""
    rng = np.random.default_rng(0)
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, rng.standard_normal(shape).ravel())
        for name, shape in (("frames", (8, 1, 1, 60)), ("mix", (4, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["wave"]),
        helper.make_node("Conv", ["wave", "frames"], ["h"], strides=[1, 20]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "mix"], ["y"]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, (2,), [1, 2])
    source = model(tmp_path / "m.onnx", nodes, [x(1, "n")], axes, *weights)
    report = do(source, tmp_path / "run", "static:8", "float")
    static, plain = report.runs
    assert plain.verdict == "PASS"
    assert static.error is None
    assert static.file is not None
    assert static.calibration is not None
    assert [each.inputs for each in static.calibration.shapes] == [{"x": [1, 256]}]
