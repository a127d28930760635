"""What the readers say, against the onnx package and against MNN itself."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgequant.models import ModelGraph, read_model
from tests import generated, generated_other, sources

REAL_ONNX = [name for name in sources.REAL if sources.zoo.MODELS[name].file.endswith(".onnx")]
REAL_TFLITE = [name for name in sources.REAL if name not in REAL_ONNX]
CONVERTIBLE = [name for name in generated.ONNX_MODELS if name not in generated.NOT_CONVERTIBLE]
MNN_DTYPES = {"dtype.float": "float32", "dtype.int": "int32", "dtype.uint8": "uint8", "dtype.int8": "int8"}


def onnx_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
                nodes += onnx_nodes(inner)
    return nodes


def check_against_onnx(path: Path) -> None:
    graph = read_model(path)
    model = onnx.load(str(path), load_external_data=False)
    initializers = {tensor.name for tensor in model.graph.initializer}
    wanted = [value for value in model.graph.input if value.name not in initializers]
    for specs, values in ((graph.inputs, wanted), (graph.outputs, model.graph.output)):
        assert specs is not None
        assert [spec.name for spec in specs] == [value.name for value in values]
        for spec, value in zip(specs, values, strict=True):
            tensor = value.type.tensor_type
            assert spec.dtype == onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            sizes = tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)
            assert spec.shape == sizes
            symbols = [size.dim_param for size in tensor.shape.dim]
            assert [symbol or "" for symbol in spec.dims or [""] * len(sizes)] == [
                "" if symbol in ("?", "-1") else symbol for symbol in symbols
            ]
    main = [op for op in graph.ops if op.subgraph is None]
    assert [(op.type, op.inputs, op.outputs) for op in main] == [
        (node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node
    ]
    nodes = onnx_nodes(model.graph)
    assert Counter(op.type for op in graph.ops) == Counter(node.op_type for node in nodes)
    assert graph.has_subgraphs == (len(nodes) > len(model.graph.node))
    assert len(graph.recurrent) == sum(node.op_type in ("GRU", "LSTM", "RNN") for node in nodes)
    assert graph.opset == next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    assert graph.producer == (f"{model.producer_name} {model.producer_version}".strip() or None)


def check_against_mnn(path: Path) -> ModelGraph:
    graph = read_model(path)
    said = sources.mnn_info(path)
    assert graph.format == "mnn"
    assert graph.producer == f"MNN {said['version']}"
    assert graph.biz_code == said["bizCode"]
    assert graph.outputs is not None
    assert graph.inputs is not None
    assert [spec.name for spec in graph.outputs] == said["outputs"]
    found = {
        spec.name: (spec.dtype, [-1 if size is None else size for size in spec.shape or ()], spec.layout)
        for spec in graph.inputs
    }
    assert found == {
        name: (MNN_DTYPES[dtype], shape, layout.removeprefix("data_format."))
        for name, dtype, shape, layout in said["inputs"]
    }
    return graph


@pytest.mark.parametrize("name", generated.ONNX_MODELS)
def test_generated_onnx_reads_as_the_onnx_package_reads_it(generated_model, name):
    check_against_onnx(generated_model(name))


@pytest.mark.parametrize("name", REAL_ONNX)
def test_real_onnx_reads_as_the_onnx_package_reads_it(real_model, name):
    check_against_onnx(real_model(name))


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_generated_mnn_reads_as_mnn_reads_it(generated_model, as_mnn, name):
    check_against_mnn(as_mnn(generated_model(name)))


@pytest.mark.parametrize("name", sources.REAL)
def test_real_mnn_reads_as_mnn_reads_it(real_model, as_mnn, name):
    source = read_model(real_model(name))
    graph = check_against_mnn(as_mnn(source.path))
    assert graph.weights == "float"
    assert source.inputs is not None
    assert graph.inputs is not None
    assert sorted(spec.name for spec in graph.inputs) == sorted(spec.name for spec in source.inputs)


@pytest.mark.parametrize("name", REAL_TFLITE)
def test_real_tflite(real_model, name):
    graph = read_model(real_model(name))
    said = {
        "face_detection": ("fp16", "input", 128, [("regressors", (1, 896, 16)), ("classificators", (1, 896, 1))]),
        "hand_recrop": ("float", "input_1", 256, [("output_crop", (1, 1, 1, 4))]),
    }[name]
    weights, feed, size, outputs = said
    assert graph.format == "tflite"
    assert graph.weights == weights
    assert graph.inputs is not None
    assert [(spec.name, spec.dtype, spec.shape, spec.layout) for spec in graph.inputs] == [
        (feed, "float32", (1, size, size, 3), "NHWC")
    ]
    assert [(spec.name, spec.shape) for spec in graph.outputs or ()] == outputs
    assert {"CONV_2D", "DEPTHWISE_CONV_2D"} <= {op.type for op in graph.ops}
    assert not graph.has_subgraphs


def test_real_tensors_of_the_speech_encoder(real_model):
    graph = read_model(real_model("enc"))
    assert [(spec.name, spec.shape, spec.dims) for spec in graph.inputs or ()] == [
        ("feat_erb", (1, 1, None, 32), (None, None, "S", None)),
        ("feat_spec", (1, 2, None, 96), (None, None, "S", None)),
    ]
    assert [spec.name for spec in graph.outputs or ()] == ["e0", "e1", "e2", "e3", "emb", "c0", "lsnr"]
    assert graph.recurrent == ("/emb_gru/GRU",)
    assert (graph.producer, graph.opset) == ("pytorch 1.13.1", 12)


def test_scalar_int64_input_and_nested_branches(real_model):
    graph = read_model(real_model("silero_vad"))
    assert graph.inputs is not None
    assert [(spec.name, spec.dtype, spec.shape) for spec in graph.inputs][2] == ("sr", "int64", ())
    assert graph.has_subgraphs
    assert len(graph.recurrent) == 4
    assert {op.subgraph for op in graph.ops if op.type == "LSTM"} - {None}


@pytest.mark.parametrize(
    ("flags", "weights"),
    [((), "float"), (("--fp16",), "fp16"), (("--weightQuantBits", "8"), "quantized")],
)
def test_mnn_tells_how_its_weights_are_stored(generated_model, as_mnn, flags, weights):
    assert read_model(as_mnn(generated_model("conv_cnn"), *flags)).weights == weights
    assert read_model(as_mnn(generated_model("gru"), *flags)).weights == weights


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_mnn_keeps_the_recurrent_layer_as_a_loop(generated_model, as_mnn, name):
    graph = read_model(as_mnn(generated_model(name)))
    assert graph.has_subgraphs
    assert len(graph.recurrent) == 1
    assert graph.recurrent[0] in {op.subgraph for op in graph.ops}


def test_mnn_keeps_the_gru_operator_if_asked(generated_model, as_mnn):
    graph = read_model(as_mnn(generated_model("gru"), "--useOriginRNNImpl"))
    assert not graph.has_subgraphs
    assert [op.type for op in graph.ops if op.name in graph.recurrent] == ["RNNSequenceGRU"]


def test_mnn_weights_in_a_file_of_their_own(generated_model, tmp_path):
    target = sources.convert(generated_model("big_mlp"), tmp_path / "big.mnn", "--saveExternalData")
    weights = tmp_path / "big.mnn.weight"
    graph = read_model(target)
    assert graph.external_files == (weights,)
    assert graph.size == target.stat().st_size + weights.stat().st_size
    assert graph.weights == "float"


def test_frozen_tensorflow_graph(as_mnn, tmp_path):
    graph = read_model(generated_other.tf_frozen(tmp_path / "m.pb", batch=-1))
    assert graph.format == "tf"
    assert [(spec.name, spec.dtype, spec.shape) for spec in graph.inputs or ()] == [("x", "float32", (None, 16))]
    assert [spec.name for spec in graph.outputs or ()] == ["y"]
    assert [(op.name, op.type, op.inputs) for op in graph.ops if op.type == "MatMul"] == [("mm", "MatMul", ("x", "w"))]
    assert graph.producer == "tensorflow graph version 1087"
    check_against_mnn(as_mnn(generated_other.tf_frozen(tmp_path / "fixed.pb")))


def test_tflite_dynamic_sizes_and_quantized_tensors(tmp_path):
    graph = read_model(generated_other.tflite(tmp_path / "a.tflite", sizes=(-1, 8)))
    assert [(spec.name, spec.shape) for spec in graph.inputs or ()] == [("x", (None, 8))]
    assert [op.type for op in graph.ops] == ["RELU"]
    graph = read_model(generated_other.tflite(tmp_path / "q.tflite", quantized=True, dtype=9))
    assert graph.weights == "quantized"
    assert [spec.dtype for spec in graph.outputs or ()] == ["int8"]


def test_hash_and_size(generated_model, tmp_path):
    path = generated_model("conv_cnn")
    graph = read_model(path)
    assert graph.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert graph.size == path.stat().st_size
    graph = read_model(generated.external_data(tmp_path / "e.onnx"))
    files = [tmp_path / "e.onnx", tmp_path / "weights.bin"]
    assert graph.external_files == (files[1].resolve(),)
    assert graph.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert graph.size == sum(file.stat().st_size for file in files)


def test_every_onnx_element_type(tmp_path):
    numbers = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13}
    for number in numbers:
        graph = read_model(generated.element_type(tmp_path / "t.onnx", number))
        assert graph.inputs is not None
        assert graph.inputs[0].dtype == np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).name


def test_output_without_a_type_takes_what_shape_inference_left(tmp_path):
    path = generated.conv_cnn(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("y", 10, [1, 10]))
    model.graph.output[0].ClearField("type")
    path.write_bytes(model.SerializeToString())
    outputs = read_model(path).outputs
    assert outputs is not None
    assert [(spec.name, spec.dtype, spec.shape) for spec in outputs] == [("y", "float16", (1, 10))]


def test_onnx_package_is_not_needed(generated_model):
    code = (
        "import sys; sys.modules.update({'onnx': None, 'onnxruntime': None, 'MNN': None, 'numpy': None});"
        "from pathlib import Path; from edgequant.models import read_model; print(read_model(Path(sys.argv[1])).opset)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(generated_model("gru"))], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "14"), done.stderr
