"""What is pointed out about which model, and what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgequant.models import find_risks, read_model
from tests import generated_other


def codes(path):
    findings = find_risks(read_model(path))
    for finding in findings:
        assert finding.message
        assert finding.remedy
        assert finding.evidence["count"] >= 0
    return {finding.code: finding for finding in findings}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv_cnn", {"GEMM_BECOMES_CONV"}),
        ("gru", {"RECURRENT_LAYER", "NONLINEARITY_AFTER_RECURRENT", "DYNAMIC_SHAPE"}),
        ("lstm", {"RECURRENT_LAYER", "DYNAMIC_SHAPE"}),
        ("many_dtypes", {"INT64_INPUT"}),
        ("branches", {"CONTROL_FLOW"}),
        ("quantized", {"SOURCE_ALREADY_QUANTIZED"}),
        ("rank1_dynamic", {"DYNAMIC_SHAPE", "LEADING_DIMENSION_FIXED"}),
        ("many_inputs", set()),
        ("gru_reset_first", {"RECURRENT_LAYER", "GRU_RESET_FIRST"}),
        ("lstm_two_outputs", {"RECURRENT_LAYER"}),
        ("leading_length", {"RECURRENT_LAYER", "DYNAMIC_SHAPE", "LEADING_DIMENSION_FIXED"}),
    ],
)
def test_generated(generated_model, name, expected):
    assert codes(generated_model(name)).keys() == expected


_RUN = """
import sys, numpy as np, onnxruntime as ort, MNN.nn as nn, MNN.expr as F
source, target, length = sys.argv[1], sys.argv[2], int(sys.argv[3])
session, module = ort.InferenceSession(source), nn.load_module_from_file(target, [], [])
feed = {i.name: np.ones([s if isinstance(s, int) else length for s in i.shape], "f4") for i in session.get_inputs()}
want = session.run(["y"], feed)[0]
info = module.get_info()
got = module.onForward([F.const(feed[n], list(feed[n].shape), F.NCHW, F.float) for n in info["inputNames"]])
got = np.array(F.convert(got[info["outputNames"].index("y")], F.NCHW).read())
print("worst", np.abs(got.ravel() - want.ravel()).max())
"""


def worst(source, target, length=6):
    command = [sys.executable, "-c", _RUN, str(source), str(target), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split("worst")[1])


def test_what_is_said_about_gru_formulas_is_true(generated_model, as_mnn):
    source = generated_model("gru_reset_first")
    assert worst(source, as_mnn(source)) > 0.01
    assert worst(source, as_mnn(source, "--useOriginRNNImpl")) < 1e-5


def test_what_is_said_about_leading_dimensions_is_true(generated_model, as_mnn):
    source = generated_model("leading_length")
    assert worst(source, as_mnn(source), length=1) < 1e-5
    assert worst(source, as_mnn(source), length=6) > 0.01


def test_real(real_model):
    assert codes(real_model("ppocr_cls")).keys() == {"GEMM_BECOMES_CONV", "DYNAMIC_SHAPE"}
    found = codes(real_model("silero_vad"))
    assert found.keys() == {"RECURRENT_LAYER", "CONTROL_FLOW", "DYNAMIC_SHAPE", "INT64_INPUT"}
    assert found["INT64_INPUT"].where == "sr"
    found = codes(real_model("enc"))
    assert found["RECURRENT_LAYER"].evidence["names"] == ["/emb_gru/GRU"]
    assert found["NONLINEARITY_AFTER_RECURRENT"].evidence["pairs"][0][1] == "/emb_gru/GRU"
    assert codes(real_model("hand_recrop")).keys() == set()
    assert "SOURCE_ALREADY_QUANTIZED" not in codes(real_model("face_detection"))  # float16 weights are no reason


def test_activation_behind_gru_is_found_through_a_transpose(generated_model):
    assert codes(generated_model("gru"))["NONLINEARITY_AFTER_RECURRENT"].evidence["pairs"] == [["gate", "gru"]]


def test_quantized_mnn_and_tflite(generated_model, as_mnn, tmp_path):
    assert "SOURCE_ALREADY_QUANTIZED" in codes(as_mnn(generated_model("conv_cnn"), "--weightQuantBits", "8"))
    assert "SOURCE_ALREADY_QUANTIZED" not in codes(as_mnn(generated_model("conv_cnn")))
    path = generated_other.tflite(tmp_path / "q.tflite", quantized=True, dtype=9)
    assert "SOURCE_ALREADY_QUANTIZED" in codes(path)


def test_mnn_from_which_the_converter_left_operators_out(generated_model, as_mnn):
    finding = codes(as_mnn(generated_model("quantized")))["OUTPUT_NOT_COMPUTED"]
    assert (finding.severity, finding.where) == ("error", "y")


def test_sizes_to_pin(real_model, generated_model):
    """Options to type: batches are 1, equal symbols are equal letters."""
    options = codes(real_model("erb_dec"))["DYNAMIC_SHAPE"].evidence["options"]
    assert options[:2] == ["--shape emb=1,A,512", "--shape e3=1,64,A,8"]
    assert codes(real_model("ppocr_cls"))["DYNAMIC_SHAPE"].evidence["options"] == ["--shape x=1,3,A,B"]
    assert codes(generated_model("rank1_dynamic"))["DYNAMIC_SHAPE"].evidence["options"] == ["--shape x=A"]
    assert codes(generated_model("leading_length"))["DYNAMIC_SHAPE"].evidence["options"] == ["--shape x=A,1,24"]
