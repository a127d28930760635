"""What quantizing costs weights: against a slow version, against what MNN's converter makes, and on damaged files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.errors import InputError
from edgequant.models import read_model
from edgequant.models.weight_risks import find_weight_risks
from edgequant.models.weights import PEAK, rounding_noise, survey_weights
from tests import generated


def survey(path, **bounds):
    found = survey_weights(read_model(path), **bounds)
    assert found is not None
    return found


def risks(path, **bounds):
    graph = read_model(path)
    return {finding.code: finding for finding in find_weight_risks(graph, survey_weights(graph, **bounds))}


def product(path, weight, *, kind="MatMul", **attributes):
    """x -> y through one operator with `weight` as its second operand."""
    rank = 4 if kind == "Conv" else 2
    node = helper.make_node(kind, ["x", "w"], ["y"], name="layer", **attributes)
    value = [helper.make_tensor_value_info(name, T.FLOAT, [None] * rank) for name in "xy"]
    return generated.save(path, [node], value[:1], value[1:], [numpy_helper.from_array(weight, "w")])


def slow_sqnr(matrix, bits):
    """Channel by channel, weight by weight, in float64."""
    noise = 0.0
    for row in np.asarray(matrix, np.float64):
        low, high = min(row), max(row)
        scale = (high - low) / (2**bits - 1)
        for value in row:
            noise += (low + scale * round((value - low) / scale) - value) ** 2
    return 10 * np.log10(np.square(np.asarray(matrix, np.float64)).sum() / noise)


@pytest.mark.parametrize("layout", ["columns", "turned", "conv"])
def test_against_a_slow_version(tmp_path, layout):
    matrix = np.random.default_rng(3).standard_normal((6, 64)).astype(np.float32)  # [output channels, rest]
    matrix[2, 5] = 40.0
    if layout == "columns":
        path = product(tmp_path / "m.onnx", np.ascontiguousarray(matrix.T))
    elif layout == "turned":
        path = product(tmp_path / "m.onnx", matrix, kind="Gemm", transB=1)
    else:
        path = product(tmp_path / "m.onnx", matrix.reshape(6, 64, 1, 1), kind="Conv")
    (layer,) = survey(path).layers
    assert (layer.layer, layer.channels, layer.count) == ("layer", 6, 384)
    blocks = matrix.reshape(12, 32)
    for found, expected in (
        (layer.sqnr8, slow_sqnr(matrix, 8)),
        (layer.sqnr4, slow_sqnr(matrix, 4)),
        (layer.block8, slow_sqnr(blocks, 8)),
        (layer.block4, slow_sqnr(blocks, 4)),
    ):
        assert found == pytest.approx(expected, abs=0.05)
    rows = matrix.astype(np.float64)
    assert layer.peak == pytest.approx((np.abs(rows).max(1) / np.sqrt(np.square(rows).mean(1))).max(), rel=1e-5)
    width = np.ptp(rows, axis=1)
    assert layer.spread == pytest.approx(width.max() / np.median(width), rel=1e-5)


def test_in_parts_as_at_once(monkeypatch, tmp_path):
    path = product(tmp_path / "m.onnx", np.random.default_rng(0).standard_normal((128, 50)).astype(np.float32))
    whole = survey(path).layers
    monkeypatch.setattr("edgequant.models.weights._PART", 300)
    (layer,) = survey(path).layers
    assert layer.sqnr8 == pytest.approx(whole[0].sqnr8)
    assert layer.spread == pytest.approx(whole[0].spread)


def test_a_dead_channel_becomes_its_smallest_value():
    rows = np.array([[0.0, 1e-5, 2e-5]], np.float32)  # scale 8e-8 at 8 bits: below what MNN takes for a scale
    assert rounding_noise(rows, 8) == pytest.approx(1e-10 + 4e-10, rel=1e-4)
    assert rounding_noise(np.full((2, 4), 3.0, np.float32), 4) == 0.0


@pytest.mark.parametrize("name", ["enc", "erb_dec", "df_dec", "ppocr_cls", "ppocr_rec", "silero_vad"])
def test_what_is_said_to_be_quantized_is_what_the_converter_quantizes(real_model, as_mnn, name):
    """The same numbers from the source and from the float .mnn, and none left in one quantized."""
    source = survey(real_model(name))
    float_mnn = survey(as_mnn(real_model(name)))
    assert source.quantizable == float_mnn.quantizable > 0
    assert not source.left_out
    quantized = survey(as_mnn(real_model(name), "--weightQuantBits", "8", "--weightQuantAsymmetric=1"))
    assert quantized.quantizable == 0
    assert min(layer.sqnr8 for layer in source.layers) == pytest.approx(
        min(layer.sqnr8 for layer in float_mnn.layers), abs=1.0
    )


def test_operators_that_nothing_quantizes(real_model, generated_model, as_mnn):
    """enc: grouped linear layers (Einsum) are products with a 3-D constant, which stay as they are."""
    for path in (real_model("enc"), as_mnn(real_model("enc"))):
        finding = risks(path)["OPS_NOT_QUANTIZED"]
        assert sum(finding.evidence["weights"].values()) == 65536
        assert finding.evidence["share"] == pytest.approx(65536 / 481664, abs=1e-3)
    table = risks(generated_model("many_dtypes"))["OPS_NOT_QUANTIZED"]
    assert (table.severity, table.evidence["share"], table.where) == ("warn", 1.0, "Gather")
    assert "OPS_NOT_QUANTIZED" not in risks(generated_model("conv_cnn"))


def test_a_constant_that_many_products_share_stays_float(tmp_path, as_mnn):
    """MNN turns a product into a convolution only where its constant has at most four users."""
    for users in (4, 5):
        nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"t{i}", "w"], [f"t{i + 1}"]) for i in range(users)]
        ends = [helper.make_tensor_value_info(name, T.FLOAT, [2, 64]) for name in ("x", f"t{users}")]
        weight = numpy_helper.from_array(np.eye(64, dtype=np.float32) * 0.5, "w")
        path = generated.save(tmp_path / f"{users}.onnx", nodes, ends[:1], ends[1:], [weight])
        expected = 4096 if users == 4 else 0
        assert survey(path).quantizable == expected
        converted = survey(as_mnn(path)).quantizable
        assert converted == expected * users  # a copy for each of them


def test_work_where_shapes_are_known(tmp_path):
    path = generated.conv_cnn(tmp_path / "m.onnx")
    assert survey(path).products is None  # shapes in between are not written down
    path.write_bytes(onnx.shape_inference.infer_shapes(onnx.load(str(path))).SerializeToString())
    products = survey(path).products
    assert products == {
        "Conv": (32 * 32 * 32 * 27 + 64 * 16 * 16 * 288 + 176 * 8 * 8 * 576, 0),
        "Gemm": (1760, 0),
    }


def test_work_of_products_of_two_computed_tensors(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "x"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, T.FLOAT, [32, 32]) for name in "xya"]
    weight = numpy_helper.from_array(np.ones((32, 32), np.float32), "w")
    path = generated.save(tmp_path / "m.onnx", nodes, values[:1], values[1:2], [weight])
    model = onnx.load(str(path))
    model.graph.value_info.append(values[2])
    path.write_bytes(model.SerializeToString())
    finding = risks(path)["OPS_NOT_QUANTIZED"]
    assert finding.evidence["products"] == {"MatMul": 32**3}
    assert finding.evidence["products_share"] == 0.5


def test_outliers(tmp_path):
    weight = np.random.default_rng(1).standard_normal((256, 8)).astype(np.float32)
    assert "WEIGHT_OUTLIERS" not in risks(product(tmp_path / "m.onnx", weight))
    weight[7, 3] = 500.0
    finding = risks(product(tmp_path / "m.onnx", weight))["WEIGHT_OUTLIERS"]
    (layer,) = finding.evidence["layers"]
    assert (layer["layer"], layer["outlier_channels"]) == ("layer", 1)
    assert layer["peak_to_rms"] > PEAK
    assert "block=32" in str(finding.remedy)
    assert layer["sqnr_db_8bit_block32"] > layer["sqnr_db_8bit"] + 3
    uneven = risks(product(tmp_path / "m.onnx", weight))["WEIGHT_CHANNELS_UNEVEN"]
    assert uneven.evidence["layers"][0]["channel_range_ratio"] > 30


def test_activation_behind_a_layer_with_outliers(tmp_path):
    weight = np.random.default_rng(1).standard_normal((256, 8)).astype(np.float32)
    for outlier in (1.0, 500.0):
        weight[7, 3] = outlier
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="layer"),
            helper.make_node("Sigmoid", ["h"], ["y"], name="gate"),
        ]
        values = [helper.make_tensor_value_info(*value) for value in (("x", T.FLOAT, [1, 256]), ("y", T.FLOAT, [1, 8]))]
        path = tmp_path / "m.onnx"
        generated.save(path, nodes, values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
        finding = risks(path).get("NONLINEARITY_AFTER_SENSITIVE")
        assert (finding and finding.evidence["pairs"]) == (None if outlier == 1.0 else [["gate", "layer"]])


def test_bounds(tmp_path, generated_model):
    path = generated_model("big_mlp")
    one = survey(path, most_of_one=1_000_000)
    assert (one.layers, list(one.left_out), one.quantizable) == ((), ["fc0", "fc1", "fc2"], 3 * 1280**2)
    assert [layer.layer for layer in survey(path, most_of_all=2 * 1280**2).layers] == ["fc0", "fc1"]
    finding = risks(path, most_of_all=2 * 1280**2)["WEIGHTS_NOT_LOOKED_AT"]
    assert list(finding.evidence["layers"]) == ["fc2"]


def test_values_in_every_place(tmp_path):
    """Raw, typed and external; half and double precision; a Constant behind an Identity; NaN."""
    values = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    (expected,) = survey(product(tmp_path / "raw.onnx", values)).layers
    half = survey(product(tmp_path / "half.onnx", values.astype(np.float16)))
    assert half.half == 1.0
    assert half.layers[0].sqnr8 == pytest.approx(expected.sqnr8, abs=0.5)
    assert survey(product(tmp_path / "double.onnx", values.astype(np.float64))).layers == (expected,)
    model = onnx.load(str(tmp_path / "raw.onnx"))
    typed = helper.make_tensor("w", T.FLOAT, values.shape, values.ravel().tolist())
    model.graph.initializer[0].CopyFrom(typed)
    (tmp_path / "typed.onnx").write_bytes(model.SerializeToString())
    assert survey(tmp_path / "typed.onnx").layers == (expected,)
    constant = helper.make_node("Constant", [], ["c"], value=typed)
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Identity", ["c"], ["w"]))
    model.graph.node.insert(0, constant)
    (tmp_path / "constant.onnx").write_bytes(model.SerializeToString())
    assert survey(tmp_path / "constant.onnx").layers == (expected,)
    (outside,) = survey(generated.external_data(tmp_path / "external.onnx")).layers
    assert (outside.layer, outside.count) == ("y", 64)
    values[3, 3] = np.nan
    broken = survey(product(tmp_path / "nan.onnx", values))
    assert (broken.layers, list(broken.left_out)) == ((), ["layer"])


def test_half_precision_and_external_weights_of_an_mnn(generated_model, as_mnn, tmp_path):
    path = generated_model("conv_cnn")
    whole, half = survey(as_mnn(path)), survey(as_mnn(path, "--fp16"))
    assert (half.half, half.quantizable) == (1.0, whole.quantizable)
    assert half.layers[0].sqnr8 == pytest.approx(whole.layers[0].sqnr8, abs=0.5)
    beside = survey(as_mnn(generated_model("big_mlp"), "--saveExternalData"))
    assert beside.layers == survey(as_mnn(generated_model("big_mlp"))).layers


def test_file_cut_behind_the_look_at_its_structure(generated_model, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(generated_model("big_mlp").read_bytes())
    graph = read_model(path)
    path.write_bytes(path.read_bytes()[:5_000_000])
    with pytest.raises(InputError) as caught:
        survey_weights(graph)
    assert caught.value.code == "MODEL_INVALID"


def test_formats_whose_weights_are_not_read(real_model):
    graph = read_model(real_model("hand_recrop"))
    assert survey_weights(graph) is None
    assert find_weight_risks(graph, None) == []
