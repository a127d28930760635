"""LiteRT and ONNX's own evaluator as references, and which one a source is held against."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto as T
from onnx import helper

from edgequant.cases.case import Case
from edgequant.errors import InputError
from edgequant.reference.reference import CaseRefused
from edgequant.reference.runtime import Independent, RuntimeReference, available, independent
from tests import generated_tflite

Open = Callable[[str, Path], Independent]


@pytest.fixture
def chosen(tmp_path: Path) -> Iterator[Open]:
    """chosen(format, model): what it is held against, closed in the end."""
    opened: list[Independent] = []

    def get(kind: str, model: Path) -> Independent:
        opened.append(independent(kind, model, tmp_path / "log", 60))
        return opened[-1]

    yield get
    for each in opened:
        if each.reference is not None:
            each.reference.close()


def of(found: Independent) -> RuntimeReference:
    assert found.reference is not None, found.why
    return found.reference


def case(**inputs: np.ndarray) -> Case:
    return Case("case", inputs, "test")


IMAGE = np.random.default_rng(1).standard_normal(generated_tflite.X).astype(np.float32)


def direct(model: Path, x: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_path=str(model))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def test_tflite_is_run_by_litert(chosen: Open, tmp_path: Path) -> None:
    model = generated_tflite.transpose_conv(tmp_path / "m.tflite")
    reference = of(chosen("tflite", model))
    assert (reference.name, reference.version) == ("litert", importlib.metadata.version("ai-edge-litert"))
    outputs = reference.run(case(x=IMAGE))
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], direct(model, IMAGE), atol=1e-6)
    with pytest.raises(CaseRefused, match=r"."):
        reference.run(case(x=IMAGE[:, :, :, :2]))
    with pytest.raises(CaseRefused, match="x"):
        reference.run(case(z=IMAGE))
    assert np.array_equal(reference.run(case(x=IMAGE))["y"], outputs["y"])


def test_litert_refuses_rows_that_are_not_there(chosen: Open, tmp_path: Path) -> None:
    reference = of(chosen("tflite", generated_tflite.embedding(tmp_path / "m.tflite", rows=6)))
    assert reference.run(case(x=np.array([[0, 5, 1, 2, 3]], np.int32)))["y"].shape == (1, 5, 4)
    with pytest.raises(CaseRefused, match="index out of bounds"):
        reference.run(case(x=np.array([[0, 6, 1, 2, 3]], np.int32)))


def onnx_of(path: Path, node: onnx.NodeProto, opset: int = 22) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", T.FLOAT, [1, 1, 6, 6]), value("rois", T.FLOAT, [1, 4]), value("of", T.INT64, [1])],
        [value("y", T.FLOAT, None)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


ROIS = {
    "x": np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6),
    "rois": np.array([[0, 0, 4, 4]], np.float32),
    "of": np.array([0]),
}


def test_where_onnx_runtime_has_no_kernel(chosen: Open, tmp_path: Path) -> None:
    node = helper.make_node("RoiAlign", ["x", "rois", "of"], ["y"], output_height=2, output_width=2, sampling_ratio=2)
    found = chosen("onnx", onnx_of(tmp_path / "m.onnx", node))
    reference = of(found)
    assert (reference.name, reference.version) == ("onnx", onnx.__version__)
    assert "ONNX Runtime cannot load it" in found.why
    assert "RoiAlign" in found.why
    older = of(chosen("onnx", onnx_of(tmp_path / "old.onnx", node, opset=16)))
    assert older.name == "onnxruntime"
    np.testing.assert_allclose(reference.run(case(**ROIS))["y"], older.run(case(**ROIS))["y"], rtol=1e-5)
    with pytest.raises(CaseRefused):
        reference.run(case(x=ROIS["x"]))
    assert reference.run(case(**ROIS))["y"].shape == (1, 1, 2, 2)


@pytest.mark.parametrize(("domain", "kind", "invalid"), [("", "Relu", True), ("own.domain", "Own", False)])
def test_what_neither_can_run(chosen: Open, tmp_path: Path, domain: str, kind: str, invalid: bool) -> None:
    """An operator that ONNX knows, given what it does not take, is the model's fault; one of a stranger's is not."""
    more = {"axis": 3} if invalid else {}
    node = helper.make_node(kind, ["x"], ["y"], domain=domain, **more)
    model = onnx.load(onnx_of(tmp_path / "m.onnx", node))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(model, tmp_path / "m.onnx")
    if invalid:
        with pytest.raises(InputError, match="ONNX Runtime cannot load it") as caught:
            chosen("onnx", tmp_path / "m.onnx")
        assert caught.value.code == "MODEL_INVALID"
    else:
        found = chosen("onnx", tmp_path / "m.onnx")
        assert found.reference is None
        assert "ONNX's reference evaluator cannot load it" in found.why


def test_an_operator_of_its_own_in_tflite(chosen: Open, tmp_path: Path) -> None:
    path = generated_tflite.mirror_pad(tmp_path / "m.tflite")
    schema = generated_tflite.schema
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = b"Own"
    builder = generated_tflite.flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    found = chosen("tflite", path)
    assert found.reference is None
    assert "LiteRT cannot load it" in found.why


def test_a_window_behind_an_open_size_in_tflite(chosen: Open, tmp_path: Path) -> None:
    """The file has a 1 in place of the open size, with which LiteRT cannot prepare a kernel that is 40 wide."""
    schema, path = generated_tflite.schema, tmp_path / "m.tflite"
    weights = np.ones((2, 1, 40, 3), np.float32)
    given = generated_tflite.options(
        "Conv2DOptions", padding=1, strideW=10, strideH=1, dilationWFactor=1, dilationHFactor=1
    )
    constants = [weights, np.zeros(2, np.float32)]
    generated_tflite.one_operator(path, "CONV_2D", given, constants, x=(1, 1, 1, 3), y=(1, 1, 1, 2))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    for number in (model.subgraphs[0].inputs[0], model.subgraphs[0].outputs[0]):
        tensor = model.subgraphs[0].tensors[number]
        tensor.shapeSignature = [1, 1, -1, tensor.shape[3]]
    builder = generated_tflite.flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    found = chosen("tflite", path)
    assert found.reference is not None, found.why
    (output,) = found.reference.run(Case("a", {"x": np.ones((1, 1, 60, 3), np.float32)}, "")).values()
    assert np.array_equal(output, np.full((1, 1, 3, 2), 120, np.float32))


@pytest.mark.parametrize(
    ("kind", "module", "why"),
    [
        ("onnx", "onnxruntime", "ONNX Runtime is not installed (extra 'onnx')"),
        ("tflite", "ai_edge_litert", "LiteRT is not installed (extra 'tflite')"),
        ("tf", "", "no independent runtime for tf sources here"),
        ("mnn", "", "no independent runtime for mnn sources here"),
    ],
)
def test_where_there_is_none(
    chosen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, why: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == module else real(name, *more))
    assert chosen(kind, tmp_path / "m") == Independent(None, why)


def test_they_are_found_without_being_imported() -> None:
    assert available("litert")
    assert available("onnx")
