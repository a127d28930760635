"""What MNN cannot do with a model is told by its own words, and is never an error that a rerun might mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgequant.errors import InputError
from edgequant.models import read_model
from edgequant.quantize.log import last_words, limits_in, unsupported_ops
from tests.jobs.support import do


def saved(path: Path, node: onnx.NodeProto, domain: str = "", opset: int = 22) -> Path:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_what_mnn_refuses_to_run_is_a_fail_with_mnns_words(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.onnx", helper.make_node("Dropout", ["x"], ["y"]))
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4), np.float32))
    report = do(model, tmp_path / "run", "float", inputs=tmp_path / "a.npz")
    (run,) = report.runs
    assert report.verdict == run.verdict == "FAIL"
    assert [each.code for each in run.findings if each.severity == "fail"] == ["RUN_FAILED"]
    assert "Don't support type [Dropout]" in run.findings[0].message
    told = [*report.findings, *run.findings]
    assert "CONVERSION_ERROR" not in {each.code for each in told}
    assert not any("--shape" in (each.remedy or "") or "variants" in (each.remedy or "") for each in told)


def test_a_whole_model_of_another_domain_is_not_cut_short(tmp_path: Path) -> None:
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")
    with pytest.raises(InputError) as found:
        read_model(saved(tmp_path / "m.onnx", node, "ai.onnx.ml", 4))
    assert found.value.code == "OP_UNSUPPORTED"
    assert "ai.onnx.ml" in str(found.value)


def test_the_converters_words() -> None:
    tflite = "Start to Convert Other\n[10:49:46] :337: Check failed: creator ==> NOT_SUPPORTED_OP: [ LSTM ]\n"
    assert unsupported_ops(tflite) == ["LSTM"]
    assert unsupported_ops("These Op Not Support: ONNX::A | ONNX::B \n") == ["ONNX::A", "ONNX::B"]
    assert limits_in(tflite) == []
    limit = "[1:2] :3: only support constant and reflect Pad"
    assert limits_in(limit) == ["only support constant and reflect Pad"]
    assert last_words(f"{limit}\nConverted Failed!\n[edgequant] mnnconvert returned\n", 1) == limits_in(limit)[0]
    assert last_words("The device supports: x\n") == ""
