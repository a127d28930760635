"""Parts cut out of ONNX files, and inner tensors opened: what ONNX's own package makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import helper, numpy_helper

from edgequant.models import read_model
from edgequant.models.model import BrokenFileError
from edgequant.models.onnx_cut import SHAPE, Cut, Declared, OnnxFile, attribute, tensor
from tests import generated


def _run(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnx.checker.check_model(onnx.load(path))
    evaluator = onnx.reference.ReferenceEvaluator(str(path))
    return dict(zip(evaluator.output_names, evaluator.run(None, inputs), strict=True))


def _like(array: np.ndarray) -> Declared:
    return array.dtype.name, array.shape


def test_nodes_are_those_of_the_graph(tmp_path: Path) -> None:
    path = generated.gru(tmp_path / "gru.onnx")
    with OnnxFile(path) as file:
        assert [node.kind for node in file.nodes] == [op.type for op in read_model(path).ops]
        assert [node.name for node in file.nodes] == [op.name for op in read_model(path).ops]
        assert file.nodes[1].attributes == {"hidden_size": 64, "linear_before_reset": 1}
        assert file.nodes[1].reads == ("xt", "w", "r", "b", "state")
        assert file.inputs == ["x", "state"]
        assert file.outputs == ["y", "stateN"]
        assert file.constant == {"w", "r", "b", "axis"}


def test_a_part_computes_what_it_did_in_the_whole(tmp_path: Path) -> None:
    path, rng = generated.small_cnn(tmp_path / "cnn.onnx"), np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    with OnnxFile(path) as file:
        file.open_tensors(["r1", "pooled"], ["c2"], tmp_path / "opened.onnx")
        opened = onnx.load(tmp_path / "opened.onnx")
        assert [each.name for each in opened.graph.output] == ["y", "r1", "pooled", "c2" + SHAPE]
        for each in opened.graph.output:  # ONNX's evaluator wants types that runtimes find by themselves
            each.type.tensor_type.elem_type = each.type.tensor_type.elem_type or 1
            each.type.tensor_type.shape.SetInParent()
        onnx.save(opened, tmp_path / "typed.onnx")
        inner = _run(tmp_path / "typed.onnx", {"x": x})
        assert tuple(inner["c2" + SHAPE]) == (1, 16, 4, 4)
        part = Cut((2, 3, 4), {"r1": _like(inner["r1"])}, {}, {"pooled": ("float32", (None,) * 4)})
        file.cut(part, tmp_path / "part.onnx")
    found = onnx.load(tmp_path / "part.onnx")
    assert [node.op_type for node in found.graph.node] == ["Conv", "Relu", "GlobalAveragePool"]
    assert [each.name for each in found.graph.initializer] == ["w2", "b2"]
    np.testing.assert_allclose(_run(tmp_path / "part.onnx", {"r1": inner["r1"]})["pooled"], inner["pooled"], rtol=1e-5)


def test_attributes_of_a_part_are_changed_and_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = {"xt": rng.standard_normal((5, 1, 32)).astype("f"), "state": np.zeros((1, 1, 64), "f")}
    with OnnxFile(generated.gru(tmp_path / "gru.onnx")) as file:
        part = {name: _like(array) for name, array in inputs.items()}
        for name, changed in (("as_it_is", {}), ("other", {"linear_before_reset": 0}), ("out", {"hidden_size": None})):
            cut = Cut((1,), part, {}, {"h": ("float32", (None,) * 4)}, changed)
            file.cut(cut, tmp_path / f"{name}.onnx")
    nodes = {name: onnx.load(tmp_path / f"{name}.onnx").graph.node[0] for name in ("as_it_is", "other", "out")}
    given = {name: {each.name: helper.get_attribute_value(each) for each in nodes[name].attribute} for name in nodes}
    assert given["as_it_is"] == {"hidden_size": 64, "linear_before_reset": 1}
    assert given["other"] == {"hidden_size": 64, "linear_before_reset": 0}
    assert given["out"] == {"linear_before_reset": 1}
    before, after = (_run(tmp_path / f"{name}.onnx", inputs)["h"] for name in ("as_it_is", "other"))
    assert np.abs(before - after).max() > 1e-3


def test_branches_take_along_what_they_read(tmp_path: Path) -> None:
    with OnnxFile(generated.branches(tmp_path / "if.onnx")) as file:
        assert file.nodes[0].reads == ("deep", "x")
        part = Cut((0,), {"deep": ("bool", ()), "x": ("float32", (1, 4))}, {}, {"y": ("float32", (1, 4))})
        file.cut(part, tmp_path / "part.onnx")
    x = np.array([[-1.0, 2.0, -3.0, 4.0]], np.float32)
    np.testing.assert_array_equal(_run(tmp_path / "part.onnx", {"deep": np.array(True), "x": x})["y"], np.maximum(x, 0))


def test_weights_from_beside_the_model_are_put_into_the_part(tmp_path: Path) -> None:
    with OnnxFile(generated.external_data(tmp_path / "external.onnx")) as file:
        file.cut(Cut((0,), {"x": ("float32", (1, 8))}, {}, {"y": ("float32", (1, 8))}), tmp_path / "part.onnx")
    raw = (tmp_path / "weights.bin").read_bytes()[64:]
    (tmp_path / "weights.bin").unlink()
    weights = np.frombuffer(raw, np.float32).reshape(8, 8)
    x = np.ones((1, 8), np.float32)
    np.testing.assert_allclose(_run(tmp_path / "part.onnx", {"x": x})["y"], x @ weights, rtol=1e-5)


def test_tensors_become_constants(tmp_path: Path) -> None:
    with OnnxFile(generated.many_dtypes(tmp_path / "m.onnx")) as file:
        place = file.maker["column"]
        fixed = {"scaled": np.arange(4, dtype=np.float32).reshape(1, 4)}
        part = Cut((place, place + 1), {"rows": ("float32", (1, 4, 8))}, fixed, {"y": ("float32", (1, 4, 8))})
        file.cut(part, tmp_path / "part.onnx")
    rows = np.zeros((1, 4, 8), np.float32)
    assert _run(tmp_path / "part.onnx", {"rows": rows})["y"][0, :, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("value", [0.5, -3, "border", (1, 2, 3), (0.25, -1.5), ("Relu", "Tanh")], ids=str)
def test_attributes_are_written_as_onnx_reads_them(value: object) -> None:
    proto = onnx.AttributeProto.FromString(attribute("name", value))  # type: ignore[arg-type]
    found = helper.get_attribute_value(proto)
    plain = found if isinstance(found, (int, float)) else found.decode() if isinstance(found, bytes) else tuple(found)
    if isinstance(plain, tuple):
        plain = tuple(each.decode() if isinstance(each, bytes) else each for each in plain)
    assert proto.name == "name"
    assert plain == value


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8", "int8", "bool"])
def test_tensors_are_written_as_onnx_reads_them(dtype: str) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    proto = onnx.TensorProto.FromString(tensor("name", array))
    found = numpy_helper.to_array(proto)
    assert proto.name == "name"
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = generated.gru(tmp_path / "gru.onnx")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BrokenFileError):
        OnnxFile(path)
