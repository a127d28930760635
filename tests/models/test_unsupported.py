"""Operators that MNN's converter does not know are named beforehand, and where it dies of them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgequant import inspect
from edgequant.errors import InputError
from edgequant.models import read_model
from edgequant.models.unsupported import CODE, find_lacking
from edgequant.quantize.convert import convert
from edgequant.quantize.log import dumped_operators
from edgequant.quantize.operators import known_operators
from edgequant.spec import Variant
from tests import generated, generated_other, generated_tflite

FLOAT = Variant(method="float")


def _onnx(path: Path, *nodes: onnx.NodeProto) -> Path:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize(("source", "some"), [("onnx", "Gemm"), ("tflite", "CONV_2D"), ("tf", "Conv2D")])
def test_the_converter_tells_what_it_takes(source: str, some: str) -> None:
    known = known_operators(source)
    assert some in known
    assert len(known) > 50
    assert not known & {"Mish", "LSTM_2", "StatelessWhile"}


def test_a_list_that_is_not_whole_tells_nothing() -> None:
    whole = "The device supports: x\nDump ONNX support Ops\nAbs\nAcos\nTotal: 2\n"
    assert dumped_operators(whole) == {"Abs", "Acos"}
    assert dumped_operators(whole.replace("Acos\n", "")) == frozenset()
    assert dumped_operators(whole.partition("Total")[0]) == frozenset()
    assert known_operators("mnn") == frozenset()


def test_inspect_names_them_beforehand(tmp_path: Path) -> None:
    mish = helper.make_node("Mish", ["x"], ["z"], "a")
    model = _onnx(tmp_path / "m.onnx", mish, helper.make_node("Abs", ["z"], ["y"]))
    found = inspect(model)
    first = found.risks[0]
    assert (first.code, first.severity, first.where) == (CODE, "error", "a")
    assert "no operator for Mish" in first.message
    assert found.advice == ()
    tflite = generated_tflite.one_operator(tmp_path / "m.tflite", "ELU")
    assert [each.evidence["operators"] for each in inspect(tflite).risks if each.code == CODE] == [["ELU"]]
    # What nobody takes, the converter leaves out.
    unused = _onnx(tmp_path / "u.onnx", helper.make_node("Mish", ["x"], ["z"]), helper.make_node("Abs", ["x"], ["y"]))
    assert CODE not in {each.code for each in inspect(unused).risks}
    convert(unused, FLOAT, tmp_path / "u.mnn", log_dir=tmp_path)


def test_what_it_knows_is_not_said_to_be_lacking(tmp_path: Path) -> None:
    for path in (
        generated.conv_cnn(tmp_path / "c.onnx"), generated.gru(tmp_path / "g.onnx"),
        generated.branches(tmp_path / "b.onnx"), generated_other.tf_convolution(tmp_path / "t.pb"),
        generated_other.tflite(tmp_path / "t.tflite"),
    ):  # fmt: skip
        graph = read_model(path)
        assert find_lacking(graph, known_operators(graph.format)) == {}


def test_where_the_converter_dies_of_it(tmp_path: Path) -> None:
    """LogSoftmax with an axis that is not there crashes it before it has looked for operators."""
    crash = helper.make_node("BatchNormalization", ["z", "x", "x", "x", "x"], ["y"])
    model = _onnx(tmp_path / "m.onnx", helper.make_node("Mish", ["x"], ["z"]), crash)
    with pytest.raises(InputError) as found:
        convert(model, FLOAT, tmp_path / "m.mnn", log_dir=tmp_path)
    assert found.value.code == "OP_UNSUPPORTED"
    assert "Mish" in found.value.message
