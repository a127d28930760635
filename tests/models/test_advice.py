"""Which variants are advised for which kind of model, and that every one of them can be asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.models import find_risks, read_model
from edgequant.models.advice import Facts, advise
from edgequant.models.weight_risks import find_weight_risks
from edgequant.models.weights import survey_weights
from edgequant.spec import METHODS, Variant
from tests import generated


def advised(path, *, varying=None, known=None):
    """{variant: reason}, in order."""
    graph = read_model(path)
    survey = survey_weights(graph)
    risks = [*find_risks(graph), *find_weight_risks(graph, survey)]
    more = {} if known is None else {"known": known}
    found = advise(graph, risks, Facts(survey, varying), **more)
    assert [each.order for each in found] == list(range(1, len(found) + 1))
    for each in found:
        assert each.reason
        assert "\n" not in each.reason
        if known is None:
            assert str(Variant.parse(each.variant)) == each.variant
    assert len({each.variant for each in found}) == len(found)
    return {each.variant: each.reason for each in found}


def everything(variant):
    return bool(variant)


def attention(path, width=256):
    """x [1,256,256] -> y: softmax(q k) v."""
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name], name=f"{name}_proj") for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["share"]),
        helper.make_node("MatMul", ["share", "v"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, T.FLOAT, [1, width, width]) for name in "xy"]
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.standard_normal((width, width)).astype(np.float32) / 16, f"w{name}")
        for name in "qkv"
    ]
    return generated.save(path, nodes, values[:1], values[1:], weights)


def product(path, weight):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    dtype = helper.np_dtype_to_tensor_dtype(weight.dtype)
    sizes = {"x": weight.shape[0], "y": weight.shape[1]}
    ends = [helper.make_tensor_value_info(name, dtype, [1, size]) for name, size in sizes.items()]
    return generated.save(path, [node], ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("enc", "dynamic:8"),
        ("erb_dec", "dynamic:8"),
        ("df_dec", "dynamic:8"),
        ("ppocr_cls", "dynamic:8,hqq"),
        ("ppocr_rec", "fp16"),
        ("silero_vad", "fp16"),  # most of its weights stay float: 1.23 MB as fp16, 1.49 MB with 8 bits
        ("face_detection", "fp16"),  # its weights are fp16
        ("hand_recrop", "dynamic:8,hqq"),
    ],
)
def test_real_models(real_model, name, first):
    """What was measured to be good; see advice.py."""
    found = advised(real_model(name))
    assert next(iter(found)) == first
    assert "fp16" in found  # there is always something that loses hardly anything


def test_blocks_are_something_to_compare_on_recurrent_models(real_model):
    """On realistic inputs they are worse on one of three models and better on two: the page has the numbers."""
    page = (Path(__file__).parents[2] / "docs" / "quantization.md").read_text()
    db = {
        (model, variant): float(found)
        for model, part in re.findall(r"^\*\*(\w+)\*\*\n(.*?)(?=^\*\*|^### )", page, re.MULTILINE | re.DOTALL)
        for variant, found in re.findall(r"^\| `(dynamic:8(?:,block=32)?)` .*? (-?[\d.]+) dB", part, re.MULTILINE)
    }
    gains = sorted(
        round(db[name, "dynamic:8,block=32"] - db[name, "dynamic:8"], 1) for name in ("enc", "erb_dec", "df_dec")
    )
    assert gains == [-4.5, 0.7, 3.2]
    for name in ("enc", "erb_dec", "df_dec"):
        found = advised(real_model(name))
        assert list(found)[:3] == ["dynamic:8", "dynamic:8,block=32", "weight:8"]
        assert "4.5 dB worse on one, 0.7 and 3 dB better" in found["dynamic:8,block=32"]
        assert "smaller" in found["dynamic:8"]


def test_the_same_from_a_float_mnn(real_model, as_mnn):
    for name in ("enc", "ppocr_cls", "ppocr_rec"):
        assert list(advised(as_mnn(real_model(name)))) == list(advised(real_model(name)))


def test_attention(tmp_path):
    assert list(advised(attention(tmp_path / "m.onnx")))[:2] == ["fp16", "dynamic:8,block=32,hqq"]


def test_outliers(tmp_path):
    weight = np.random.default_rng(1).standard_normal((256, 256)).astype(np.float32)
    assert next(iter(advised(product(tmp_path / "m.onnx", weight)))) == "dynamic:8,hqq"
    weight[7, 3] = 500.0
    found = advised(product(tmp_path / "m.onnx", weight))
    assert next(iter(found)) == "dynamic:8,block=32,hqq"
    assert "outlier" in found["dynamic:8,block=32,hqq"]
    # 250 input channels are no multiple of 32: MNN would leave block=32 out.
    assert next(iter(advised(product(tmp_path / "m.onnx", weight[:250])))) == "dynamic:8,hqq"


def test_too_small_to_gain(generated_model, tmp_path):
    found = advised(generated_model("lstm"))
    assert next(iter(found)) == "fp16"
    assert "dynamic:8" in found
    assert list(advised(generated_model("many_inputs"))) == ["float"]
    assert list(advised(generated_model("many_dtypes"))) == ["fp16"]  # a table, which nothing quantizes


def test_half_precision_source(tmp_path):
    weight = np.random.default_rng(1).standard_normal((256, 256)).astype(np.float16)
    found = advised(product(tmp_path / "m.onnx", weight))
    assert list(found)[:2] == ["fp16", "dynamic:8,hqq"]
    assert "already" in found["fp16"]


def test_nothing_for_what_is_quantized(generated_model, as_mnn):
    assert advised(generated_model("quantized")) == {}
    assert advised(as_mnn(generated_model("conv_cnn"), "--weightQuantBits", "8")) == {}
    assert advised(as_mnn(generated_model("conv_cnn"), "--fp16")) == {}  # which MNN leaves as it is


def test_float_first_where_the_conversion_is_in_doubt(generated_model):
    found = advised(generated_model("gru_reset_first"))
    assert next(iter(found)) == "float"
    assert "GRU_RESET_FIRST" in found["float"]
    assert "float" not in advised(generated_model("gru"))


def test_static_int8_where_it_fits(real_model, generated_model):
    """With every variant there will be: before fp16 for a plain CNN, behind it where it is a gamble."""
    plain = advised(real_model("ppocr_cls"), known=everything)
    assert list(plain).index("ema") < list(plain).index("fp16")
    varying = advised(real_model("ppocr_cls"), varying=True, known=everything)
    assert "ema" not in varying
    assert list(varying)[-1] == "static:8"
    loops = advised(real_model("enc"), known=everything)
    assert {"ema", "kl", "admm"}.isdisjoint(loops)
    assert list(loops)[-1] == "static:8"
    assert "both inputs" in loops["static:8"]


def test_four_bits_are_never_advised(real_model):
    for name in ("enc", "erb_dec", "df_dec", "ppocr_cls", "ppocr_rec"):
        assert not [variant for variant in advised(real_model(name), known=everything) if ":4" in variant]


def test_every_method_there_is_is_advised_somewhere(real_model, generated_model):
    """Were a new method's written form not the one in advice.py, its advice would vanish without a word."""
    models = [real_model(name) for name in ("enc", "ppocr_cls", "ppocr_rec")] + [generated_model("many_inputs")]
    methods = {variant.partition(":")[0].partition(",")[0] for model in models for variant in advised(model)}
    # Worse than ema on every model tried; a search for what this list proposes; and what the user has to write.
    assert set(METHODS) - {"kl", "admm", "auto", "recipe"} <= methods


def test_without_a_look_at_the_weights(real_model):
    graph = replace(read_model(real_model("ppocr_cls")), weights=None)
    assert advise(graph, [])[0].variant == "dynamic:8,hqq"
