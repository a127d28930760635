"""What a run is held against, and what becomes of the verdict where that proves nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.errors import InputError
from edgequant.jobs.remarks import unchecked
from edgequant.report.model import Report
from tests import generated_other, generated_tflite
from tests.jobs.support import codes, do

ModelByName = Callable[[str], Path]


def remedies(report: Report, code: str) -> str:
    return " ".join(str(each.remedy) for each in report.findings if each.code == code)


def test_a_wrong_conversion_of_tflite_is_a_fail(tmp_path: Path) -> None:
    report = do(generated_tflite.transpose_conv(tmp_path / "m.tflite"), tmp_path / "run", "float")
    assert report.reference is not None
    assert (report.reference.kind, report.verdict) == ("litert", "FAIL")
    assert (report.runs[0].errors.conversion["y"].sqnr_db or 0) < 5
    assert "OPERATOR_MISREAD at y" in remedies(report, "CONVERSION_ERROR")
    right = do(generated_tflite.transpose_conv(tmp_path / "m.tflite", out=3), tmp_path / "right", "float")
    assert right.verdict == "PASS"


def test_outputs_of_tensorflow_have_its_layout(tmp_path: Path) -> None:
    """NHWC, as MNN's own tools give them; without outputs of the user's own nothing is known of the conversion."""
    model = generated_other.tf_convolution(tmp_path / "conv.pb")
    x = np.random.default_rng(0).standard_normal((1, 6, 5, 3)).astype(np.float32)
    save_npz(tmp_path / "a.npz", {"x": x})
    save_npz(tmp_path / "ref.npz", {"y": x @ generated_other.TF_WEIGHTS})
    report = do(model, tmp_path / "run", "float", inputs=tmp_path / "a.npz", reference=tmp_path / "ref.npz")
    assert report.verdict == "PASS"
    alone = do(model, tmp_path / "alone", "float", inputs=tmp_path / "a.npz")
    assert (alone.verdict, alone.verdict.exit_code) == ("INCONCLUSIVE", 4)
    assert "--reference" in remedies(alone, "CONVERSION_UNCHECKED")


def test_a_runtime_that_is_there_is_not_named_as_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT lacks operators that MediaPipe's models have, and MNN knows: installing it again gives no reference."""
    remedy = unchecked("tflite", "LiteRT cannot load it").remedy
    assert "--reference" in remedy
    assert "Install" not in remedy
    monkeypatch.setattr("edgequant.jobs.remarks.available", lambda runtime: False)
    assert "edgequant[tflite]" in unchecked("tflite", "LiteRT is not installed").remedy


def outputs(run_dir: Path, kind: str, folder: Path) -> Path:
    """The outputs of a run, of the cases that were not made of others, as references of the user's own."""
    from edgequant.archive.open import open_run

    run = open_run(run_dir)
    capture = run.reference if kind == "reference" else run.float_host
    if kind not in ("reference", "float"):
        capture = next(run.on_device("local:", each) for each in run.plan.variants if str(each) == kind)
    assert capture is not None
    folder.mkdir()
    for case in (each for each in capture.cases if each.case in ("first", "second")):
        save_npz(folder / f"{case.case}.npz", {name: run.arrays.get(ref) for name, ref in (case.outputs or {}).items()})
    return folder


@pytest.mark.nightly
def test_references_that_prove_nothing(generated_model: ModelByName, tmp_path: Path) -> None:
    """The model's own outputs, float or quantized, and those of another case; right ones are taken."""
    source = generated_model("conv_cnn")
    do(source, tmp_path / "first", "dynamic:8")
    given = tmp_path / "given"
    given.mkdir()
    for name in ("first.npz", "second.npz"):
        shutil.copy(tmp_path / "first" / "cases" / name, given)

    def against(reference: Path) -> Report:
        return do(
            source, tmp_path / f"run-{reference.name}", "dynamic:8",
            inputs=given, reference=reference,
        )  # fmt: skip

    right = outputs(tmp_path / "first", "reference", tmp_path / "right")
    assert against(right).verdict == "PASS"
    quantized = against(outputs(tmp_path / "first", "dynamic:8", tmp_path / "quantized"))
    assert quantized.verdict == "INCONCLUSIVE"
    assert "REFERENCE_IS_MODELS_OWN" in [each.code for each in quantized.runs[0].findings]
    exchanged = tmp_path / "exchanged"
    exchanged.mkdir()
    one, two = sorted(right.iterdir())
    shutil.copy(one, exchanged / two.name)
    shutil.copy(two, exchanged / one.name)
    report = against(exchanged)
    assert report.verdict == "INCONCLUSIVE"
    (finding,) = (each for each in report.findings if each.code == "REFERENCE_OF_OTHER_CASE")
    assert finding.evidence["pairs"] == [["first", "y", "second"], ["second", "y", "first"]]


def test_numbers_that_mnn_cannot_take_are_refused_first(generated_model: ModelByName, tmp_path: Path) -> None:
    model = generated_tflite.embedding(tmp_path / "m.tflite", rows=6)
    save_npz(tmp_path / "a.npz", {"x": np.array([[0, 1, 2, 3, 6]], np.int32)})
    with pytest.raises(InputError, match="has 6 rows") as caught:
        do(model, tmp_path / "run", inputs=tmp_path / "a.npz")
    assert caught.value.code == "INPUT_RANGE"
    assert not (tmp_path / "run").exists()
    quantized = generated_tflite.one_operator(tmp_path / "q.tflite", "RELU", dtype="int8", scale=0.1)
    with pytest.raises(InputError, match="int8 already") as caught:
        do(quantized, tmp_path / "run")
    assert caught.value.code == "SOURCE_ALREADY_QUANTIZED"


def test_an_operator_that_mnn_lacks_is_named_for_tflite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no operator for SIGN") as caught:
        do(generated_tflite.one_operator(tmp_path / "m.tflite", "SIGN"), tmp_path / "run")
    assert (caught.value.code, caught.value.exit_code) == ("OP_UNSUPPORTED", 2)


def test_what_is_left_out_is_written_out(tmp_path: Path) -> None:
    from onnx import TensorProto as T
    from onnx import helper

    from tests import generated

    value = helper.make_tensor_value_info
    model = generated.save(
        tmp_path / "pool.onnx",
        [helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2]), helper.make_node("LogSoftmax", ["p"], ["y"])],
        [value("x", T.FLOAT, [1, 3, 9, 7])],
        [value("y", T.FLOAT, [1, 3, 8, 6])],
    )
    before = model.read_bytes()
    report = do(model, tmp_path / "run", "float")
    assert report.verdict == "PASS"
    assert "DEFAULTS_WRITTEN_OUT" in codes(report.runs[0])
    assert model.read_bytes() == before
