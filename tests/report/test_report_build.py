"""Every field of a report, from a run folder made by hand."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgequant.archive.open import open_run
from edgequant.archive.types import (
    CalibrationFacts,
    CalibrationShapes,
    Memory,
    ReferenceFacts,
    SessionCapture,
    TensorFacts,
    TimingCapture,
)
from edgequant.findings import Finding
from edgequant.judge.run import judge
from edgequant.judge.verdict import Verdict
from edgequant.report.build import build_report
from edgequant.report.model import DeviceInfo, Report, Run
from edgequant.report.read import loads
from edgequant.report.write import to_json
from edgequant.spec import RunOptions
from tests.judge.archives import BOARD, HOST, TRUE, Archive, all_off, failed, parsed, sha, told_by

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def report_of(archive: Archive, **other: Any) -> Report:
    archive.close(seconds={"convert": 1.5})
    run = open_run(archive.folder.path)
    plan = archive.plan.model_copy(update=other) if other else None
    report = build_report(run, judge(run, plan), plan, NOW)
    assert to_json(loads(to_json(report))) == to_json(report)
    return report


def run_of(archive: Archive) -> Run:
    (run,) = report_of(archive).runs
    return run


def test_what_was_asked_for_and_of_what(tmp_path: Path) -> None:
    source = {
        "inputs": (TensorFacts(name="x", dtype="float32", shape=(1, None)),),
        "declared": (TensorFacts(name="y", dtype="float32"),),
        "reference": ReferenceFacts(kind="onnxruntime", version="1.2", why="it is there"),
        "findings": (Finding(code="CASES_RANDOM", severity="warn", message="m"),),
    }
    archive = Archive(
        tmp_path, "weight:8", source=source, limits=("sqnr_db>=20",), calibration="/data", images={"mean": [1.0]},
        fallback=False, shapes={"x": (1, 3)}, options=RunOptions(threads=3, precision="low"),
    )  # fmt: skip
    archive.tried(HOST, "weight:8", all_off(TRUE, 30))
    report = report_of(archive)
    assert (report.verdict, report.created, report.edgequant, report.mnn) == (Verdict.MARGINAL, NOW, "0.1", "3.6.1")
    assert report.model.model_dump() == {
        "path": "/m.onnx",
        "sha256": sha("m"),
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1, None]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": None}],
        "format": "onnx",
        "bytes": 5000,
    }
    assert report.reference is not None
    assert report.reference.model_dump() == {"kind": "onnxruntime", "version": "1.2", "why": "it is there"}
    assert [case.model_dump() for case in report.cases] == [
        {"name": name, "shapes": {"x": [1, 3]}, "source": "random", "steps": 1} for name in ("a", "b")
    ]
    assert report.options == {
        "limits": ["sqnr_db>=20"],
        "calibration": "/data",
        "images": {"mean": [1.0]},
        "fallback": False,
        "decides": {},
        "shapes": {"x": [1, 3]},
        **RunOptions(threads=3, precision="low").model_dump(),
    }
    assert [finding.code for finding in report.findings] == ["CASES_RANDOM"]
    assert report.timing_s == {"convert": 1.5}
    # Judged by another plan, it shows the limits of that one.
    other = report_of(archive, limits=parsed(["sqnr_db>=50"]))
    assert (other.verdict, other.options["limits"]) == (Verdict.FAIL, ["sqnr_db>=50"])


def test_without_a_reference_and_without_a_time(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", source={"reference": None})
    archive.tried(HOST, "weight:8")
    assert report_of(archive).reference is None
    run = open_run(archive.folder.path)
    created = build_report(run, judge(run)).created
    assert created.tzinfo is not None
    assert abs((datetime.now(timezone.utc) - created).total_seconds()) < 3600


def test_a_run_and_how_its_file_was_made(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "static:8", devices=(BOARD,), options=RunOptions(threads=2))
    archive.made(
        "static:8",
        label="dynamic:8",
        steps=({"tried": "kl"},),
        calibration=CalibrationFacts(
            source="/data", samples=3, shapes=(CalibrationShapes(samples=2, inputs={"x": (1, 3)}),), images="resized"
        ),
        findings=(Finding(code="CALIBRATED_ON_CASES", severity="warn", message="m"),),
    )
    archive.on_host("static:8", all_off(TRUE, 40))
    archive.on_device(
        BOARD, "static:8", all_off(TRUE, 30), normal=all_off(TRUE, 20), threads=4, pushed_bytes=9, runtime_bytes=8,
        timings=(TimingCapture(case="b", samples_ms=(2.0, 4.0), complete=True),), load_ms=5.0,
        device=told_by(
            BOARD, arch="aarch64", cpu="Cortex-A76", features=("asimd",), cores=8, ram_mb=100.0, os="Linux",
            facts={"board": "x"},
        ),
    )  # fmt: skip
    run = run_of(archive)
    assert run.device == DeviceInfo(
        uri=BOARD, arch="aarch64", cpu="Cortex-A76", features=["asimd"], mnn="3.6.1", cores=8, ram_mb=100.0,
        os="Linux", facts={"board": "x"},
    )  # fmt: skip
    assert (run.variant, run.made_as, run.steps) == ("static:8", "dynamic:8", [{"tried": "kl"}])
    assert run.calibration is not None
    assert run.calibration.model_dump() == {
        "source": "/data",
        "samples": 3,
        "shapes": [{"samples": 2, "inputs": {"x": [1, 3]}}],
        "images": "resized",
        "cases": True,
    }
    assert (run.file, run.sha256, run.error) == ("static.mnn", sha("static:8"), None)
    assert run.verdict is Verdict.PASS
    assert (run.low_memory_engaged, run.low_memory_why) == (True, "outputs differ from memory normal")
    assert run.outputs["y"].sqnr_db == pytest.approx(30, abs=1e-3)
    assert run.outputs["y"].verdict is Verdict.PASS
    assert run.errors.conversion["y"].exact
    assert run.errors.quantization["y"].sqnr_db == pytest.approx(40, abs=1e-3)
    assert run.errors.device["y"].sqnr_db is not None
    assert run.errors.why_null == {}
    assert run.latency_ms is not None
    assert (run.latency_ms.mean, run.latency_why) == (3.0, "one inference of case 'b'")
    assert [finding.code for finding in run.findings] == ["CALIBRATED_ON_CASES"]
    assert run.options == {
        **RunOptions(threads=2).model_dump(),
        "memory": "low",
        "threads": 4,
        "pushed_bytes": 9,
        "runtime_bytes": 8,
        "low_memory_evidence": {
            "case": "a", "outputs_differ": True, "outputs_reached": ["y"], "deterministic": True,
            "session_mb_low": None, "session_mb_normal": None,
        },
    }  # fmt: skip


def test_a_run_of_what_was_asked_for(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", options=RunOptions(threads=2))
    archive.tried(HOST, "weight:8", all_off(TRUE, 30))
    run = run_of(archive)
    assert (run.made_as, run.calibration, run.options["threads"]) == ("weight:8", None, 2)
    assert (run.device.is_host, run.device.emulated) == (True, False)
    assert run.errors.why_null == {"device": "the device is this host"}
    archive.made("weight:8", calibration=CalibrationFacts(source="random", samples=1))
    archive.on_host("weight:8", TRUE)  # nobody knows that the device is this host
    archive.on_device(HOST, "weight:8", device=None)
    run = run_of(archive)
    assert run.calibration is not None
    assert not run.calibration.cases
    assert run.device == DeviceInfo(uri=HOST)


def test_one_that_was_not_run(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "kl", "weight:8")
    archive.not_made("kl", failed("QUANTIZER_FAILED", "it crashed", hint="h", evidence={"steps": [{"tried": "kl"}]}))
    archive.made("weight:8")
    archive.on_device(HOST, "weight:8", {}, artifact_sha256=None, failure=failed())
    kl, weight = report_of(archive).runs
    assert kl.error is not None
    assert kl.error.model_dump() == {
        "code": "QUANTIZER_FAILED",
        "message": "it crashed",
        "where": None,
        "hint": "h",
        "evidence": {"steps": [{"tried": "kl"}]},
    }
    assert (kl.device, kl.variant, kl.verdict) == (DeviceInfo(uri=HOST), "kl", Verdict.FAIL)
    assert kl.steps == [{"tried": "kl"}]
    assert (kl.latency_why, kl.memory_why, kl.memory_mb) == ("it was not run", "it was not run", None)
    assert weight.error is not None
    assert (weight.error.code, weight.steps) == ("RUNNER_DIED", [])


# ---- memory


def with_memory(tmp_path: Path, **more: Any) -> Run:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(HOST, "weight:8", **more)
    return run_of(archive)


def test_memory_is_in_megabytes(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(
        HOST, "weight:8", load_ms=1.0, before=Memory(rss=1000), loaded=Memory(rss=2000, rss_peak=2000, pss=2500),
        session=SessionCapture(mb=2.0), timings=(TimingCapture(case="a", memory=Memory(rss_peak=4000, pss=2000)),),
    )  # fmt: skip
    memory = run_of(archive).memory_mb
    assert memory is not None
    assert memory.model_dump() == {
        "model_file": 0.001, "session": 2.097152, "rss_before": 1.024, "rss_load": 2.048, "rss_peak": 4.096,
        "pss_peak": 2.56, "why_null": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("session", "why"),
    [
        (None, "the run ended before it was measured"),
        (SessionCapture(), "the run ended before it was measured"),
        (SessionCapture(why="it has subgraphs"), "it has subgraphs"),
    ],
)
@pytest.mark.parametrize(("load_ms", "rss"), [(1.0, "the device does not tell"), (None, "the model was not loaded")])
def test_memory_that_is_not_known_says_why(
    tmp_path: Path, session: SessionCapture | None, why: str, load_ms: float | None, rss: str
) -> None:
    memory = with_memory(tmp_path, session=session, load_ms=load_ms).memory_mb
    assert memory is not None
    assert memory.model_dump() == {
        "model_file": 0.001, "session": None, "rss_before": None, "rss_load": None, "rss_peak": None, "pss_peak": None,
        "why_null": {"session": why, "rss_load": rss, "rss_peak": rss, "pss_peak": rss},
    }  # fmt: skip


def test_memory_of_an_emulator_is_not_the_devices(tmp_path: Path) -> None:
    device = told_by(HOST, emulator="qemu")
    loaded = Memory(rss=1, rss_peak=1, pss=1)
    run = with_memory(
        tmp_path, loaded=loaded, before=loaded, session=SessionCapture(mb=1.0), device=device, load_ms=1.0
    )
    assert run.device.emulated
    assert run.latency_why == "emulated by qemu: times would say nothing about the CPU"
    assert run.memory_mb is not None
    assert run.memory_mb.session == 1.048576
    assert (run.memory_mb.rss_before, run.memory_mb.rss_load, run.memory_mb.rss_peak) == (None, None, None)
    assert run.memory_mb.why_null == dict.fromkeys(("rss_load", "rss_peak", "pss_peak"), "it would be that of qemu")
