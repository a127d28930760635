"""The main job on real models, on this host and over a real sshd, with the numbers computed a second time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.folder import device_capture
from edgequant.archive.open import open_run
from edgequant.lab.probes import latency
from edgequant.lab.session import DeviceOptions
from edgequant.report.model import Run
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.jobs.support import capture, check_numbers, codes, do, held, recompute, saved, ssh_home
from tests.nightly import all_but

FIVE = ("enc", "erb_dec", "df_dec", "ppocr_cls", "ppocr_rec")
ONNX = (*FIVE, "silero_vad")
TFLITE = ("face_detection", "hand_recrop")

# Lowest SQNR of the conversion, and the verdicts of dynamic:8 where they are clear on any CPU: measured, then rounded
# away from the limits.
CONVERSION_DB = {
    "conv_cnn": 90,
    "enc": 100,
    "erb_dec": 100,
    "df_dec": 100,
    "ppocr_cls": 90,
    "ppocr_rec": 30,
    "silero_vad": 70,
}
CLEAR = {
    "conv_cnn": "PASS",
    "enc": "PASS",
    "df_dec": "PASS",
    "ppocr_cls": "PASS",
    "ppocr_rec": "FAIL",
    "hand_recrop": "PASS",
}


def check_dynamic(run: Run) -> None:
    """Dynamic quantization took place, and the report says how it knows."""
    assert run.low_memory_engaged is True
    assert run.low_memory_why
    evidence = run.options["low_memory_evidence"]
    assert evidence["outputs_differ"] is True
    assert evidence["deterministic"] is True
    assert run.options["memory"] == "low"
    if evidence["session_mb_low"] is not None:
        assert 0 < evidence["session_mb_low"] < evidence["session_mb_normal"]


@pytest.mark.parametrize("name", all_but("enc", of=ONNX))
def test_onnx_on_this_host(name: str, real_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "TIMING_MAX_SECONDS", 240.0)  # more than it takes on the busiest machine
    run_dir = tmp_path / "run"
    report = do(real_model(name), run_dir, "dynamic:8", "fp16", latency=True)
    dynamic, fp16 = report.runs
    assert report.reference is not None
    assert report.reference.kind == "onnxruntime"
    assert (report.model.format, report.model.path) == ("onnx", str(real_model(name)))
    assert report.runs[0].device.arch
    for run in report.runs:
        check_numbers(run_dir, run)
        conversion = recompute(held(run_dir, "reference"), held(run_dir, "float-host"))
        quantization = recompute(held(run_dir, "float-host"), held(run_dir, device_capture("local:", run.variant)))
        for output in run.outputs:
            assert run.errors.conversion[output].sqnr_db == pytest.approx(conversion[output]["sqnr_db"], rel=1e-6)
            assert run.errors.quantization[output].sqnr_db == pytest.approx(quantization[output]["sqnr_db"], rel=1e-6)
            assert (run.errors.conversion[output].sqnr_db or 0) > CONVERSION_DB[name]
        assert not run.errors.device
        assert run.errors.why_null["device"] == "the device is this host"
        assert run.latency_ms is not None
        assert run.latency_ms.n >= 20
        # Where something else begins to run beside it, the machine is not at rest, and that is said.
        assert not [why for why in run.latency_ms.why_invalid if not why.startswith("the second half took")]
        assert run.latency_ms.p50 is not None
        assert run.latency_ms.min is not None
        assert run.latency_ms.p50 >= run.latency_ms.min > 0
        assert run.memory_mb is not None
        assert run.memory_mb.model_file == pytest.approx((run_dir / "models" / str(run.file)).stat().st_size / 1e6)
        assert (run.memory_mb.rss_peak or 0) > 1
        assert run.error is None
    check_dynamic(dynamic)
    assert fp16.low_memory_engaged is None
    # Of silero_vad half is never run: it has a branch for each rate, and random cases take one.
    assert ("BRANCH_NOT_TAKEN" in codes(report)) is (name == "silero_vad")
    assert fp16.verdict == ("MARGINAL" if name == "silero_vad" else "PASS")
    if name in CLEAR:
        assert dynamic.verdict == CLEAR[name]
    assert report.verdict == max(report.runs, key=lambda run: run.verdict == "FAIL").verdict
    assert dynamic.memory_mb is not None
    assert fp16.memory_mb is not None
    assert (dynamic.memory_mb.model_file or 0) < (report.model.bytes or 0) / 1e6
    assert "RANDOM_INPUTS" in codes(report)
    assert {case.source.split(";")[0] for case in report.cases if case.source} == {"random, seed 0"}
    usual = [case for case in open_run(run_dir).source.cases if case.kind != "strain"]
    sizes = {str({name: ref.shape for name, ref in case.inputs.items()}) for case in usual}
    assert len(sizes) == len(usual) > (1 if name == "silero_vad" else 3)  # the open size was varied; it takes few


@pytest.mark.parametrize("name", all_but("hand_recrop", of=TFLITE))
def test_tflite_on_this_host(name: str, real_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    report = do(real_model(name), run_dir, "dynamic:8", "fp16", "float")
    assert report.reference is not None
    assert report.reference.kind == "litert"
    for run in report.runs:
        check_numbers(run_dir, run)
        assert all((error.sqnr_db or 0) > 80 for error in run.errors.conversion.values())
    dynamic, fp16, plain = report.runs
    check_dynamic(dynamic)
    assert dynamic.verdict == CLEAR.get(name, dynamic.verdict)
    assert fp16.verdict == "PASS"
    assert plain.verdict == "PASS"
    assert plain.errors.why_null["quantization"] == "nothing is quantized"


@pytest.mark.nightly
def test_four_bits_are_too_few_for_the_encoder(real_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    report = do(real_model("enc"), run_dir, "dynamic:4,block=32,hqq", "dynamic:8")
    four, eight = report.runs
    for run in report.runs:
        check_numbers(run_dir, run)
        check_dynamic(run)
    assert (four.verdict, eight.verdict, report.verdict) == ("FAIL", "PASS", "FAIL")
    failed = {finding.where for finding in four.findings if finding.code == "LIMIT_EXCEEDED"}
    assert failed == {name for name, output in four.outputs.items() if output.verdict == "FAIL"}
    assert "lsnr" in failed
    assert codes(eight) <= {"MEAN_HIDES_ERROR"}
    # The same conversion error in both: the fault is the quantization's.
    assert four.errors.conversion == eight.errors.conversion
    assert (four.errors.quantization["lsnr"].sqnr_db or 0) < 20 < (eight.errors.quantization["lsnr"].sqnr_db or 0)


def test_weight_is_the_same_file_in_float(real_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    report = do(real_model("ppocr_cls"), run_dir, "weight:8", "dynamic:8")
    weight, dynamic = report.runs
    assert weight.sha256 == dynamic.sha256
    assert (weight.options["memory"], dynamic.options["memory"]) == ("normal", "low")
    assert weight.low_memory_engaged is None
    check_dynamic(dynamic)
    first, second = capture(run_dir, weight), capture(run_dir, dynamic)
    assert any(not np.array_equal(first[case][name], second[case][name]) for case in first for name in first[case])


def test_a_limit_decides(real_model: ModelByName, tmp_path: Path) -> None:
    """One between the two, wherever this CPU's kernels take them."""
    model, variants = real_model("ppocr_cls"), ("dynamic:8", "fp16")
    low, high = (min(o.sqnr_db or 0 for o in run.outputs.values()) for run in do(model, tmp_path / "1", *variants).runs)
    assert 20 < low < high - 4  # both keep the default limit, and there is room for one between them
    bound = round((low + high) / 2, 1)
    report = do(model, tmp_path / "2", *variants, limits=(f"sqnr_db>={bound}",))
    assert [run.verdict.value for run in report.runs] == ["FAIL", "PASS"]
    bounds = {(limit.metric, limit.bound) for run in report.runs for o in run.outputs.values() for limit in o.limits}
    assert ("sqnr_db", bound) in bounds
    assert ("sqnr_db", 20.0) not in bounds
    assert report.options["limits"] == [f"sqnr_db>={bound:g}"]


def test_own_inputs_and_reference(real_model: ModelByName, tmp_path: Path) -> None:
    """A second run on the first one's cases, held against the first one's outputs, gives the same numbers."""
    model = real_model("ppocr_cls")
    first = do(model, tmp_path / "first", "dynamic:8", "fp16")
    second = do(
        model, tmp_path / "second", "dynamic:8", "fp16",
        inputs=tmp_path / "first" / "cases", reference=saved(tmp_path / "first", "reference"),
    )  # fmt: skip
    assert second.reference is not None
    assert second.reference.kind == "file"
    assert "RANDOM_INPUTS" not in codes(second)
    assert [case.name for case in second.cases] == sorted(case.name for case in first.cases)
    for before, after in zip(first.runs, second.runs, strict=True):
        assert before.sha256 == after.sha256
        assert {n: o.sqnr_db for n, o in before.outputs.items()} == {n: o.sqnr_db for n, o in after.outputs.items()}


@pytest.mark.slow
@pytest.mark.ssh
@pytest.mark.parametrize("name", all_but("conv_cnn", of=("conv_cnn", *FIVE)))
def test_over_ssh(
    name: str, real_model: ModelByName, generated_model: ModelByName, sshd: SshServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model, run_dir = real_model(name) if name in FIVE else generated_model(name), tmp_path / "run"
    for key, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(key, value)
    access = DeviceOptions(work_dir=str(tmp_path / "work"), python=sys.executable)
    devices = (f"ssh://{ALIAS}", sshd.uri)
    report = do(model, run_dir, "dynamic:8", "fp16", devices=devices, access=access)
    first, first16, second, second16 = report.runs
    assert [run.device.uri for run in report.runs] == [devices[0]] * 2 + [devices[1]] * 2
    for run in report.runs:
        check_numbers(run_dir, run)
        assert run.error is None
        for output in run.outputs:
            # The same machine and the same library: not a bit may differ between here and there.
            assert run.errors.device[output].exact
            assert run.errors.device[output].max_abs == 0
            assert (run.errors.quantization[output].sqnr_db or 0) > 5
            assert (run.errors.conversion[output].sqnr_db or 0) > CONVERSION_DB[name]
        assert run.device.mnn == report.mnn
        assert not run.errors.why_null
    check_dynamic(first)
    check_dynamic(second)
    assert first.verdict == second.verdict == CLEAR.get(name, first.verdict)
    assert first16.verdict == second16.verdict == "PASS"
    for run in (first, first16):
        assert run.options["pushed_bytes"] == (run_dir / "models" / str(run.file)).stat().st_size
    assert [run.options["pushed_bytes"] for run in (second, second16)] == [0, 0]
    stored = {file.name for file in (tmp_path / "work" / "objects").iterdir()}
    assert {first.sha256, first16.sha256} < stored
    assert not list((tmp_path / "work" / "incoming").iterdir())
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
