"""What ONNX lets be left out is written out, and a conversion that depends on chance is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.archive.types import Artifact
from edgequant.errors import ToolError
from edgequant.models import read_model
from edgequant.models.mnn.compares import read_less
from edgequant.models.onnx_defaults import write_defaults
from edgequant.quantize import repeat
from edgequant.quantize.convert import convert
from edgequant.quantize.setup import MakeOptions, Setup
from edgequant.spec import Variant
from tests import generated

FLOAT = Variant(method="float")
value = helper.make_tensor_value_info


def saved(path: Path, nodes: list, opset: int = 17, **constants: np.ndarray) -> Path:
    """x [1,4,8,8] through some operators to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", T.FLOAT, [1, 4, 8, 8])],
        [value("y", T.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def copied(source: Path, out: Path) -> tuple[onnx.ModelProto, str] | None:
    graph = read_model(source)
    written = write_defaults(source.read_bytes(), out, graph.opset or 0)
    return None if written is None else (onnx.load(out), str(written))


@pytest.mark.parametrize(
    ("kind", "given", "opset", "written"),
    [
        ("ConstantOfShape", {}, 17, {"value": [0.0]}),
        ("LogSoftmax", {}, 17, {"axis": -1}),
        ("LogSoftmax", {}, 11, {"axis": 1}),
        ("Softmax", {}, 11, {"axis": 1}),
        ("Softmax", {}, 13, {}),
        ("Softmax", {"axis": 2}, 11, {}),
        ("MaxPool", {"kernel_shape": [2, 2]}, 17, {"strides": [1, 1]}),
        ("AveragePool", {"kernel_shape": [2, 2, 2]}, 17, {"strides": [1, 1, 1], "pads": [0] * 6}),
        ("AveragePool", {"kernel_shape": [2, 2, 2], "auto_pad": "VALID"}, 17, {"strides": [1, 1, 1]}),
        ("ReduceL2", {"axes": [1]}, 13, {"keepdims": 1}),
        ("InstanceNormalization", {}, 17, {"epsilon": 1e-5}),
        ("Resize", {}, 13, {"mode": "nearest"}),
        (
            "Resize",
            {},
            10,
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
        ("RoiAlign", {}, 15, {"coordinate_transformation_mode": "output_half_pixel"}),
        ("RoiAlign", {}, 16, {}),
        ("Relu", {}, 17, {}),
    ],
)
def test_what_is_written_out(tmp_path: Path, kind: str, given: dict, opset: int, written: dict) -> None:
    source = saved(tmp_path / "a.onnx", [helper.make_node(kind, ["x"], ["y"], **given)], opset)
    found = copied(source, tmp_path / "b.onnx")
    if not written:
        assert found is None
        assert not (tmp_path / "b.onnx").exists()
        return
    assert found is not None
    model, told = found
    got = {each.name: helper.get_attribute_value(each) for each in model.graph.node[0].attribute}
    for name, expected in written.items():
        now = got[name]
        now = numpy_helper.to_array(now).tolist() if isinstance(now, onnx.TensorProto) else now
        now = now.decode() if isinstance(now, bytes) else now
        assert now == (pytest.approx(expected) if isinstance(expected, float) else expected)
    assert {name: value for name, value in got.items() if name not in written}.keys() == given.keys()
    assert told == f"{kind} ({', '.join(sorted(written))})"
    # All else is as it was.
    original = onnx.load(source)
    del model.graph.node[0].attribute[:]
    del original.graph.node[0].attribute[:]
    assert model == original


def test_in_branches_and_by_the_sizes_of_weights(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"])], "then", [], [value("c", T.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((2, 4, 3, 2, 1), np.float32), "w")],
    )  # fmt: skip
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["i"])], "else", [], [value("i", T.FLOAT, None)])
    nodes = [
        helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=other),
        helper.make_node("GRU", ["x", "w3", "r3"], ["h"]),
        helper.make_node("LogSoftmax", ["x"], ["own"], domain="own.domain"),
    ]
    constants = {"flag": np.array(True), "w3": np.zeros((1, 6, 3)), "r3": np.zeros((1, 6, 2))}
    found = copied(saved(tmp_path / "a.onnx", nodes, **constants), tmp_path / "b.onnx")
    assert found is not None
    model, told = found
    (conv,) = next(each.g.node for each in model.graph.node[0].attribute if each.name == "then_branch")
    assert list(conv.attribute[0].ints) == [3, 2, 1]
    assert [each.i for each in model.graph.node[1].attribute] == [2]
    assert told == "Conv (kernel_shape), GRU (hidden_size)"


def test_the_outputs_an_lstm_does_not_list(tmp_path: Path) -> None:
    """MNN reads three names; with what lies behind the last one it crashed, on some days, and on others did not."""
    source = generated.lstm_two_outputs(tmp_path / "a.onnx")
    found = copied(source, tmp_path / "b.onnx")
    assert found is not None
    model, told = found
    assert [list(node.output) for node in model.graph.node if node.op_type == "LSTM"] == [["y", "hN", ""]]
    assert told == "LSTM (outputs)"
    onnx.checker.check_model(model)
    files = {
        convert(source, FLOAT, tmp_path / f"{heap}.mnn", log_dir=tmp_path, heap=heap).sha256 for heap in (0, 1, 85, 165)
    }
    assert len(files) == 1


def test_a_constant_without_value_is_one_file(tmp_path: Path) -> None:
    shape = helper.make_node("Shape", ["x"], ["s"])
    nodes = [shape, helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    source = saved(tmp_path / "a.onnx", nodes)
    content = source.read_bytes()
    made = [
        convert(source, FLOAT, tmp_path / f"{heap}.mnn", log_dir=tmp_path, timeout=60, heap=heap) for heap in (0, 165)
    ]
    assert made[0].sha256 == made[1].sha256
    (finding,) = made[0].findings
    assert (finding.code, finding.evidence) == ("DEFAULTS_WRITTEN_OUT", {"ConstantOfShape": ["value"]})
    assert source.read_bytes() == content


@pytest.fixture
def repeated(tmp_path: Path) -> Callable[[Artifact], tuple]:
    """repeated(made): what is found of a first conversion, and whether it was the same."""
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    (tmp_path / "models").mkdir()
    setup = Setup(read_model(source), tmp_path, MakeOptions(timeout=60))

    def get(made: Artifact) -> tuple:
        same: list[bool] = []
        findings = repeat.Repeat(setup, made, lambda: same.append(True)).findings()
        assert not list((tmp_path / "models").iterdir())
        return findings, bool(same)

    return get


def test_another_file_the_second_time(
    tmp_path: Path, repeated: Callable[[Artifact], tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = convert(tmp_path / "cnn.onnx", FLOAT, tmp_path / "a.mnn", log_dir=tmp_path, timeout=60)
    assert repeated(made) == ((), True)
    (finding,), same = repeated(made.model_copy(update={"sha256": "0" * 64}))
    assert not same
    assert (finding.code, finding.severity) == ("CONVERSION_NOT_REPRODUCIBLE", "error")
    assert finding.evidence == {"sha256": "0" * 64, "again": made.sha256}
    for code, told in (("CONVERTER_CRASHED", True), ("CONVERTER_TIMEOUT", False), ("DISK_FULL", False)):

        def fail(*_args: object, code: str = code, **_options: object) -> None:
            raise ToolError(code, "the converter did not")

        monkeypatch.setattr(repeat, "convert", fail)
        findings, same = repeated(made)
        assert (bool(findings), same) == (told, False)


@pytest.mark.parametrize("how", ["initializer", "constant"])
def test_axes_given_as_an_input_are_written_out(tmp_path: Path, how: str) -> None:
    """As exporters write them since opset 18: MNN's converter reduced all axes."""
    nodes = [helper.make_node("ReduceL2", ["x", "axes"], ["y"], keepdims=1)]
    axes = np.array([1, -1], np.int64)
    if how == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(axes)))
        source = saved(tmp_path / "m.onnx", nodes, 18)
    else:
        source = saved(tmp_path / "m.onnx", nodes, 18, axes=axes)
    found = copied(source, tmp_path / "copy.onnx")
    assert found is not None
    given = {each.name: helper.get_attribute_value(each) for each in found[0].graph.node[-1].attribute}
    assert given == {"keepdims": 1, "axes": [1, -1]}
    made = convert(source, FLOAT, tmp_path / "m.mnn", log_dir=tmp_path)
    assert [each.code for each in made.findings] == ["DEFAULTS_WRITTEN_OUT"]


NUMBERS = np.array([-2.0, -1.0, 0.0, -0.0, 1.0, np.nan, -1.0, -3.5], np.float32)


def comparing(path: Path, opset: int = 17, kind: str = "Less") -> Path:
    """a < b of a [8] and b [8], in a branch as well: z is (a < b or not), as y."""
    inner = helper.make_graph([helper.make_node(kind, ["a", "b"], ["i"])], "inner", [], [value("i", T.BOOL, [8])])
    nodes = [
        helper.make_node(kind, ["a", "b"], ["c"], name="below"),
        helper.make_node("Cast", ["c"], ["y"], to=T.FLOAT),
        helper.make_node("If", ["t"], ["d"], then_branch=inner, else_branch=inner),
        helper.make_node("Cast", ["d"], ["z"], to=T.FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("a", T.FLOAT, [8]), value("b", T.FLOAT, [8])],
        [value("y", T.FLOAT, [8]), value("z", T.FLOAT, [8])], [numpy_helper.from_array(np.array(True), "t")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def test_less_is_written_as_greater(tmp_path: Path) -> None:
    """On x86 MNN's Less takes -1 for smaller than -2; its Greater is right."""
    source = comparing(tmp_path / "a.onnx")
    found = copied(source, tmp_path / "b.onnx")
    assert found is not None
    model, told = found
    assert told == "Less (as Greater)"
    branches = [each.g.node[0] for node in model.graph.node for each in node.attribute if each.name.endswith("branch")]
    for node in (model.graph.node[0], *branches):
        assert (node.op_type, list(node.input)) == ("Greater", ["b", "a"])
    assert (model.graph.node[0].name, list(model.graph.node[0].output)) == ("below", ["c"])
    onnx.checker.check_model(model)
    turned = onnxruntime.InferenceSession(str(tmp_path / "b.onnx")).run(
        ["y", "z"], {"a": NUMBERS, "b": NUMBERS[::-1].copy()}
    )
    expected = (NUMBERS[::-1] > NUMBERS).astype(np.float32)
    for each in turned:
        np.testing.assert_array_equal(each, expected)
    # Below that, only one side is broadcast.
    assert copied(comparing(tmp_path / "old.onnx", 6), tmp_path / "c.onnx") is None
    assert copied(comparing(tmp_path / "other.onnx", kind="Greater"), tmp_path / "d.onnx") is None
    made = convert(source, FLOAT, tmp_path / "a.mnn", log_dir=tmp_path)
    assert read_less(made.path) == ()


def test_less_in_a_file_of_mnn_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgequant.quantize.readable.write_defaults", lambda *_: None)
    made = convert(comparing(tmp_path / "a.onnx"), FLOAT, tmp_path / "a.mnn", log_dir=tmp_path)
    assert read_less(made.path) == ("c", "i", "i"), "by their outputs, in branches too"
