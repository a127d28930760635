"""Which outputs decide something, found from the graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgequant.models import read_model
from edgequant.models.decisions import find_decisions


def decisions(path: Path, nodes: list[onnx.NodeProto], *outputs: str) -> dict[str, str]:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8))]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    ints = [helper.make_tensor(name, TensorProto.INT64, (1,), [2]) for name in ("k", "axes")]
    made = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outs, initializer=ints),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(made, path / "m.onnx")
    return dict(find_decisions(read_model(path / "m.onnx")))


@pytest.mark.parametrize(
    ("kind", "decision"),
    [
        ("Softmax", "probabilities"),
        ("LogSoftmax", "probabilities"),
        ("Sigmoid", "scores"),
        ("ArgMax", "classes"),
        ("NonZero", "set"),
        ("Relu", None),
    ],
)
def test_by_the_operator_in_front(tmp_path: Path, kind: str, decision: str | None) -> None:
    nodes = [
        helper.make_node(kind, ["x"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["y"]),
    ]
    assert decisions(tmp_path, nodes, "y") == ({} if decision is None else {"y": decision})


def test_what_is_computed_of_probabilities_is_none(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["p"]), helper.make_node("MatMul", ["p", "x"], ["y"])]
    assert decisions(tmp_path, nodes, "y") == {}


def test_all_that_follows_a_sorting_is_in_its_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["values", "places"]),
        helper.make_node("Gather", ["x", "places"], ["rows"]),
        helper.make_node("Relu", ["rows"], ["y"]),
        helper.make_node("Relu", ["x"], ["z"]),
    ]
    assert decisions(tmp_path, nodes, "y", "values", "z") == {"y": "ordered", "values": "ordered"}
