"""What is advised and found beside a verdict, from a run folder made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.archive.types import CalibrationFacts, FileFacts
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.spec import RunOptions
from tests.judge.archives import (
    BOARD,
    HOST,
    RANDOM,
    TRUE,
    WAVE,
    Archive,
    all_off,
    codes,
    failed,
    only,
    told_by,
)


def test_advice_knows_what_was_measured_beside_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:4", "weight:8", "float", "static:8", devices=(HOST, BOARD))
    for variant, db in (("weight:4", 3.0), ("weight:8", 30.05)):
        archive.tried(HOST, variant, all_off(TRUE, db))
    archive.tried(HOST, "float")
    archive.tried(BOARD, "weight:4", all_off(TRUE, 3))
    archive.made("static:8", label="dynamic:8", calibration=CalibrationFacts(source="random", samples=1))
    archive.on_device(HOST, "static:8", all_off(TRUE, 25.05))
    archive.close(ended=False)  # the others were not tried there
    here, *_, there = archive.judged().trials
    assert {each.remedy for each in here.findings if each.code == "LIMIT_EXCEEDED"} == {
        "weight:8 (30.0 dB), dynamic:8 (made where static:8 was asked for, 25.0 dB) and float (exact), measured "
        "beside it, keep all limits."
    }
    assert {each.remedy for each in there.findings if each.code == "LIMIT_EXCEEDED"} == {
        "Try other variants: weight:8, weight:8,block=32, fp16 or auto."
    }, "what runs on another device says nothing of this one"


@pytest.mark.parametrize(("finding", "advised"), [(None, False), ("CALIBRATION_RANDOM", True), ("OTHER", False)])
def test_random_calibration_is_told_of(tmp_path: Path, finding: str | None, advised: bool) -> None:
    archive = Archive(tmp_path, "kl")
    findings = () if finding is None else (Finding(code=finding, severity="warn", message="m"),)
    archive.made("kl", calibration=CalibrationFacts(source="random", samples=1), findings=findings)
    archive.on_device(HOST, "kl", all_off(TRUE, 3))
    trial = only(archive)
    assert trial.findings[: len(findings)] == findings
    assert all(
        ("Static int8 needs real calibration data." in (each.remedy or "")) is advised
        for each in trial.findings
        if each.code == "LIMIT_EXCEEDED"
    )
    archive.made("kl")
    assert "needs real calibration data" in (only(archive).findings[-1].remedy or "")


def test_what_failed_beside_it_is_no_advice(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:4", "weight:8")
    archive.tried(HOST, "weight:4", all_off(TRUE, 3))
    archive.tried(HOST, "weight:8", {"a": TRUE["a"]}, failure=failed())
    assert {each.remedy for each in archive.judged().trials[0].findings} == {
        "Try other variants: weight:8,block=32, fp16 or auto."
    }
    archive.on_device(HOST, "weight:8", all_off(TRUE, 3))
    assert "weight:8, measured beside it, does not keep its limits either." in (
        archive.judged().trials[0].findings[0].remedy or ""
    )


def test_findings_come_in_their_order(tmp_path: Path) -> None:
    """Of making, of the two runs, of the outputs, then of the device and of how it was asked for."""
    facts = FileFacts(static_tensors=1, half_tiles=("fc",), max_pools=("pool",))
    archive = Archive(tmp_path, "dynamic:8", devices=(BOARD,), options=RunOptions(precision="low"),
                      limits=("device_sqnr_db>=90",))  # fmt: skip
    odd = Finding(code="OF_MAKING", severity="warn", message="m")
    archive.made("dynamic:8", facts=facts, warnings=("odd",), findings=(odd,))
    archive.on_host("dynamic:8", all_off(TRUE, 40))
    told = told_by(BOARD, arch="aarch64", mnn="3.4.0", facts={"mnn_kernels": {"fp16": False}})
    archive.on_device(BOARD, "dynamic:8", all_off(TRUE, 10), repeated=TRUE, normal=all_off(TRUE, 10), device=told)
    trial = only(archive)
    assert [code for code in codes(trial) if code != "LIMIT_EXCEEDED"] == [
        "OF_MAKING", "NOT_DETERMINISTIC", "DEVICE_DIFFERS", "DEVICE_BEYOND_ROUNDING", "STATIC_I8MM_UNSEEN",
        "LOW_MEMORY_NOT_ENGAGED", "CONVERTER_WARNING", "MNN_VERSION_DIFFERS", "PRECISION_LOW_INEFFECTIVE",
    ]  # fmt: skip
    assert trial.verdict is Verdict.FAIL
    archive = Archive(tmp_path / "host", "dynamic:8", limits=("device_sqnr_db>=90",))
    archive.made("dynamic:8", facts=facts, warnings=("odd",))
    archive.on_device(HOST, "dynamic:8", all_off(TRUE, 10), normal=all_off(TRUE, 10))
    assert [code for code in codes(only(archive)) if code != "LIMIT_EXCEEDED"] == [
        "STATIC_POOL_ON_X86", "STATIC_I8MM_UNSEEN", "DEVICE_LIMIT_UNUSED", "LOW_MEMORY_NOT_ENGAGED",
        "CONVERTER_WARNING",
    ]  # fmt: skip


def test_a_limit_on_devices_is_unused_where_there_is_none(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", devices=(HOST, BOARD), limits=("device_sqnr_db>=90",))
    archive.tried(HOST, "weight:8")
    archive.tried(BOARD, "weight:8")
    assert [codes(trial) for trial in archive.judged().trials] == [[], []]
    archive.on_host("weight:8", {}, failure=failed())
    assert [codes(trial) for trial in archive.judged().trials] == [[], ["DEVICE_ERROR_UNKNOWN"]]
    assert [codes(trial) for trial in archive.judged(devices=(HOST,)).trials] == [["DEVICE_LIMIT_UNUSED"]]
    # A device that could not be reached is one nevertheless, or may be.
    archive.on_device(BOARD, "weight:8", device=told_by(BOARD, is_host=True))
    assert codes(archive.judged().trials[0]) == ["DEVICE_LIMIT_UNUSED"]


def test_only_quantize_asks_whether_the_file_resembles_its_source(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", reference=RANDOM)
    wrong = {case: {"y": -array["y"]} for case, array in RANDOM.items()}
    archive.tried(HOST, "weight:8", wrong)
    assert "FILE_NOT_WRITTEN" not in codes(only(archive))
    assert codes(only(archive, job="quantize"))[-1] == "FILE_NOT_WRITTEN"
    archive.on_device(HOST, "weight:8", wrong, failure=failed())
    assert "FILE_NOT_WRITTEN" not in codes(only(archive, job="quantize"))
    archive.on_device(HOST, "weight:8", RANDOM)
    assert codes(only(archive, job="quantize")) == []


def test_outputs_without_a_kind_are_not_judged(tmp_path: Path) -> None:
    """The source says which outputs there are: the reference may have more of them."""
    archive = Archive(tmp_path, "weight:8", reference={"a": {"y": WAVE, "z": WAVE}}, source={"kinds": {"y": "float"}})
    archive.tried(HOST, "weight:8", {"a": {"y": WAVE, "z": -WAVE}})
    trial = only(archive)
    assert list(trial.outputs) == ["y"]
    assert list(trial.stages.conversion) == ["y"]
    assert list(trial.stages.quantization) == ["y"]
    assert trial.verdict is Verdict.PASS
