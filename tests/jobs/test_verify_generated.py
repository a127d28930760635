"""The main job on small models made on the spot, each with one thing that real models have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.errors import InputError, ToolError
from edgequant.spec import RunOptions
from tests import generated_other
from tests.beds.models import ModelByName
from tests.jobs.support import arrays, capture, check_file, check_numbers, codes, do, saved

AsMnn = Callable[..., Path]


def not_engaged(run: object) -> str:
    """The message of the finding that says that dynamic quantization did not take place."""
    (finding,) = [f for f in run.findings if f.code == "LOW_MEMORY_NOT_ENGAGED"]  # type: ignore[attr-defined]
    assert finding.severity == "error"
    assert finding.remedy
    return str(finding.message)


@pytest.mark.parametrize("name", ["many_dtypes", "many_inputs", "many_outputs", "branches", "rank1_dynamic"])
def test_inputs_and_outputs_of_every_kind(name: str, generated_model: ModelByName, tmp_path: Path) -> None:
    """Nothing of these models can be quantized: every number is exact, and yet none of it is a PASS for dynamic:8."""
    run_dir = tmp_path / "run"
    report = do(generated_model(name), run_dir, "float", "dynamic:8", "weight:8")
    plain, dynamic, weight = report.runs
    for run in report.runs:
        check_numbers(run_dir, run)
        assert all(output.verdict == "PASS" for output in run.outputs.values())
        assert all((error.sqnr_db or 0) > 120 for error in run.errors.conversion.values())
    way = "BRANCH_NOT_TAKEN" in codes(report)  # drawn booleans are true
    assert (plain.verdict, way) == (("MARGINAL", True) if name == "branches" else ("PASS", False))
    assert dynamic.verdict == "INCONCLUSIVE"
    assert dynamic.low_memory_engaged is False
    assert "holds no quantized weights" in not_engaged(dynamic)
    assert weight.verdict == "INCONCLUSIVE"
    assert "NOTHING_QUANTIZED" in codes(weight)
    assert report.verdict == "INCONCLUSIVE"


def test_the_order_of_scores_at_their_limit_is_nobodys_fault(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("detector"), tmp_path / "run", "float", "dynamic:8")
    strained = [each for run in report.runs for each in run.findings if each.code.startswith("STRAIN")]
    assert {(each.code, each.where) for each in strained} == {("STRAIN_ERROR", "rows")}
    plain, dynamic = report.runs
    assert (plain.verdict, dynamic.verdict != "FAIL") == ("PASS", True)


def test_shapes_and_types_that_were_fed(generated_model: ModelByName, tmp_path: Path) -> None:
    do(generated_model("many_dtypes"), tmp_path / "run", "float")
    with np.load(tmp_path / "run" / "cases" / "first.npz") as case:
        found = {name: (case[name].dtype.name, case[name].shape) for name in case.files}
    assert found == {
        "ids": ("int64", (1, 4)), "mask": ("bool", (1, 4)), "scale": ("float32", ()),
        "pixels": ("uint8", (1, 4)), "steps": ("int32", (1, 4)),
    }  # fmt: skip


def test_forty_outputs_are_not_mixed_up(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("many_outputs"), tmp_path / "run", "float")
    assert [output.name for output in report.model.outputs] == [f"y{i}" for i in range(40)]
    for outputs in capture(tmp_path / "run", report.runs[0]).values():
        for i in range(1, 40):
            np.testing.assert_allclose(outputs[f"y{i}"], outputs["y0"] * (i + 1), rtol=1e-6)


def test_rank_one_takes_every_length(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("rank1_dynamic"), tmp_path / "run", "float")
    lengths = [case.shapes["x"] for case in report.cases]
    assert len({tuple(shape) for shape in lengths}) == 6
    outputs = capture(tmp_path / "run", report.runs[0])
    assert [list(outputs[case.name]["y"].shape) for case in report.cases] == lengths


def test_indices_are_judged_as_indices(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("argmax_ints"), tmp_path / "run", "dynamic:8")
    (run,) = report.runs
    best, scores = run.outputs["best"], run.outputs["scores"]
    assert (best.kind, scores.kind) == ("int", "float")
    assert (best.mismatch, best.sqnr_db, best.cosine) == (0.0, None, None)
    assert [limit.metric for limit in best.limits] == ["mismatch"]
    assert run.verdict == best.verdict == "PASS"
    reference = arrays(tmp_path / "run", "reference")
    for case, outputs in capture(tmp_path / "run", run).items():
        assert outputs["best"].dtype.kind == "i"
        # In silence all scores are equal, and any index is as good as another.
        assert case == "silence" or (outputs["best"] == reference[case]["best"]).all()


@pytest.mark.parametrize("name", ["nan_output", "nan_swallowed"])
def test_a_reference_that_is_not_finite_proves_nothing(name: str, generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model(name), tmp_path / "run", "float")
    (run,) = report.runs
    assert report.verdict == run.verdict == run.outputs["y"].verdict == "INCONCLUSIVE"
    assert "REFERENCE_NOT_FINITE" in codes(run)
    assert run.outputs["y"].ref_nan > 0
    reference = arrays(tmp_path / "run", "reference")
    assert sum(int(np.isnan(outputs["y"]).sum()) for outputs in reference.values()) == run.outputs["y"].ref_nan


def test_nan_that_only_mnn_makes_is_a_failure(generated_model: ModelByName, tmp_path: Path) -> None:
    """The reference is finite, the model's answer is not."""
    model = generated_model("nan_output")
    inputs, reference = tmp_path / "case.npz", tmp_path / "reference.npz"
    np.savez(inputs, x=np.ones((1, 8), np.float32))
    np.savez(reference, y=np.ones((1, 8), np.float32))
    report = do(model, tmp_path / "run", "float", inputs=inputs, reference=reference)
    (run,) = report.runs
    assert report.verdict == run.outputs["y"].verdict == "FAIL"
    assert run.outputs["y"].nan == 8
    assert "OUTPUT_NAN" in codes(run)


def test_constant_and_zero_outputs(generated_model: ModelByName, tmp_path: Path) -> None:
    constant = do(generated_model("constant_output"), tmp_path / "constant", "float").runs[0]
    assert constant.verdict == "MARGINAL"
    assert {"REFERENCE_CONSTANT", "OUTPUT_NEVER_VARIES"} <= set(codes(constant))
    assert not [limit for limit in constant.outputs["y"].limits if limit.metric == "cosine"]
    zero = do(generated_model("zero_output"), tmp_path / "zero", "float").runs[0]
    assert zero.verdict == "MARGINAL"
    assert "REFERENCE_ZERO" in codes(zero)
    assert (zero.outputs["y"].sqnr_db, zero.outputs["y"].cosine, zero.outputs["y"].max_abs) == (None, None, 0.0)
    assert zero.outputs["y"].why_null["sqnr_db"] == "the reference is all zero"


def test_memory_normal_is_not_dynamic_quantization(generated_model: ModelByName, tmp_path: Path) -> None:
    options = RunOptions(threads=1, memory="normal")
    report = do(generated_model("conv_cnn"), tmp_path / "run", "dynamic:8", "weight:8", options=options)
    dynamic, weight = report.runs
    assert dynamic.low_memory_engaged is False
    assert dynamic.verdict == "INCONCLUSIVE"
    assert "memory is 'normal', dynamic quantization needs 'low'" in not_engaged(dynamic)
    assert weight.verdict == "PASS"
    assert report.verdict == "INCONCLUSIVE"


def test_a_block_that_a_layer_cannot_use_is_told(generated_model: ModelByName, tmp_path: Path) -> None:
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", "weight:8,block=32").runs
    (finding,) = [f for f in run.findings if f.code == "CONVERTER_WARNING"]
    assert "cannot use the block" in finding.message
    assert finding.severity == "warn"
    assert (tmp_path / "run" / "logs" / finding.evidence["log"]).is_file()


@pytest.mark.parametrize("option", [0, 1, 2])
def test_dynamic_quant_options_are_passed_on(option: int, generated_model: ModelByName, tmp_path: Path) -> None:
    options = RunOptions.model_validate({"threads": 1, "dynamic_quant_option": option})
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", options=options).runs
    assert run.options["dynamic_quant_option"] == option
    assert run.low_memory_engaged is True
    assert run.verdict in ("PASS", "MARGINAL")


def test_a_gru_that_mnn_converts_wrongly(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("gru_reset_first"), tmp_path / "run", "dynamic:8", "float")
    dynamic, plain = report.runs
    assert dynamic.verdict == plain.verdict == report.verdict == "FAIL"
    wrong = [finding for finding in report.findings if finding.code == "CONVERSION_ERROR"]
    assert {finding.where for finding in wrong} == {"y", "hN"}
    assert all(
        finding.severity == "fail" and "Quantization is not the cause" in str(finding.remedy) for finding in wrong
    )
    assert "GRU_RESET_FIRST" in codes(report)
    # The stages tell the same: lost in the conversion, hardly anything in the quantization.
    for run in report.runs:
        assert (run.errors.conversion["y"].sqnr_db or 99) < 30
    assert (dynamic.errors.quantization["y"].sqnr_db or 0) > 35


def test_a_length_that_mnn_takes_for_a_batch(generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(generated_model("leading_length"), tmp_path / "run", "float")
    assert report.verdict == "FAIL"
    assert "CONVERSION_ERROR" in codes(report)
    assert "OUTPUT_SHAPE" in codes(report.runs[0])
    assert "LEADING_DIMENSION_FIXED" in codes(report)


@pytest.mark.parametrize(
    ("name", "code"), [("quantized", "CONVERTER_BAD_OUTPUT"), ("scale_as_input", "CONVERTER_CRASHED")]
)
def test_what_the_converter_cannot_do_is_no_verdict(
    name: str, code: str, generated_model: ModelByName, tmp_path: Path
) -> None:
    with pytest.raises(ToolError) as caught:
        do(generated_model(name), tmp_path / "run")
    assert caught.value.code == code
    assert caught.value.hint
    assert caught.value.exit_code == 2  # the model's own: no use in trying again
    assert Path(str(caught.value.evidence["log"])).is_file()
    assert not list((tmp_path / "run" / "models").iterdir())


def test_a_tensorflow_graph(tmp_path: Path) -> None:
    report = do(generated_other.tf_frozen(tmp_path / "graph.pb"), tmp_path / "run", "dynamic:8", "float")
    assert report.model.format == "tf"
    assert report.reference is not None
    assert report.reference.kind == "mnn-float"
    assert "unchecked" in str(report.reference.why)
    assert "CONVERSION_UNCHECKED" in codes(report)
    for run in report.runs:
        check_numbers(tmp_path / "run", run)
        assert run.verdict == "INCONCLUSIVE"


def test_a_float_mnn_as_the_source(generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path) -> None:
    source = as_mnn(generated_model("conv_cnn"))
    before = source.read_bytes()
    report = do(source, tmp_path / "run", "float", "dynamic:8")
    plain, dynamic = report.runs
    assert report.model.format == "mnn"
    assert report.reference is not None
    assert report.reference.kind == "mnn-float"
    assert all(output.exact for output in plain.outputs.values())
    assert plain.sha256 == report.model.sha256
    assert (plain.verdict, dynamic.verdict, dynamic.low_memory_engaged) == ("PASS", "PASS", True)
    assert source.read_bytes() == before


def test_a_quantized_mnn_is_no_source(generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path) -> None:
    source = as_mnn(generated_model("conv_cnn"), "--weightQuantBits", "8")
    with pytest.raises(InputError) as caught:
        do(source, tmp_path / "run")
    assert caught.value.code == "SOURCE_ALREADY_QUANTIZED"
    assert "--reference" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_quantized_mnn_against_a_reference_of_the_users_own(
    generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path
) -> None:
    made = do(generated_model("conv_cnn"), tmp_path / "first", "weight:8")
    source = as_mnn(generated_model("conv_cnn"), "--weightQuantBits", "8")
    report = do(
        source, tmp_path / "run", "float",
        inputs=tmp_path / "first" / "cases", reference=saved(tmp_path / "first", "reference"),
        options=RunOptions(threads=1, memory="low"),
    )  # fmt: skip
    assert "SOURCE_ALREADY_QUANTIZED" in codes(report)
    assert report.runs[0].outputs["y"].sqnr_db == pytest.approx(made.runs[0].outputs["y"].sqnr_db, rel=0.2)


def test_a_variant_that_fails_does_not_stop_the_others(
    generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path
) -> None:
    source = as_mnn(generated_model("conv_cnn"), "--fp16")
    report = do(source, tmp_path / "run", "dynamic:8", "float")
    broken, plain = report.runs
    assert broken.verdict == "ERROR"
    assert broken.error is not None
    assert broken.error.code == "ALREADY_QUANTIZED"
    assert plain.verdict == "PASS"
    assert report.verdict == "ERROR"


def test_without_onnx_runtime(generated_model: ModelByName, tmp_path: Path) -> None:
    """A Python where it really cannot be found: its finder is asked first, in the runner's children too."""
    blocked = tmp_path / "site"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import importlib.machinery, sys\n"
        "real = importlib.machinery.PathFinder.find_spec\n"
        "importlib.machinery.PathFinder.find_spec = classmethod(\n"
        "    lambda cls, name, path=None, target=None:\n"
        "        None if name.split('.')[0] == 'onnxruntime' else real(name, path, target))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    gone = subprocess.run([sys.executable, "-c", "import onnxruntime"], env=environment, capture_output=True, text=True)
    assert "ModuleNotFoundError" in gone.stderr  # or there would be nothing to test here
    command = [
        str(Path(sys.executable).with_name("edgequant")), "verify", str(generated_model("conv_cnn")),
        "--device", "local:", "--threads", "1", "--no-latency", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 4, done.stderr
    document = check_file(tmp_path / "run" / "report.json")
    assert document["reference"]["kind"] == "mnn-float"
    assert "ONNX Runtime is not installed" in document["reference"]["why"]
    assert "the conversion itself stays unchecked" in document["reference"]["why"]
    assert document["runs"][0]["errors"]["conversion"] == {}
    assert "unchecked" in document["runs"][0]["errors"]["why_null"]["conversion"]
    assert document["runs"][0]["verdict"] == "INCONCLUSIVE"
    assert "edgequant[onnx]" in done.stdout
