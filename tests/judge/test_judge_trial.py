"""One variant on one device, from a run folder made by hand: its verdict, its stages, its findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.archive.types import ReferenceFacts, TimingCapture
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.spec import RunOptions, Variant
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
    off,
    on_board,
    only,
    sqnr,
)


def test_one_that_keeps_everything(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "dynamic:8")
    archive.tried(HOST, "dynamic:8", all_off(TRUE, 40), timings=(TimingCapture(case="a", samples_ms=(1.0, 3.0)),))
    trial = only(archive)
    assert (trial.verdict, trial.uri, trial.variant) == (Verdict.PASS, HOST, Variant.parse("dynamic:8"))
    assert trial.artifact is not None
    assert trial.artifact.size == 1000
    assert trial.capture is not None
    assert trial.capture.trial == "t"
    assert trial.failure is None
    assert trial.findings == ()
    assert trial.outputs["y"].verdict.verdict is Verdict.PASS
    assert trial.outputs["y"].summary.values["sqnr_db"] == pytest.approx(40, abs=1e-3)
    assert trial.engaged.engaged is True
    assert trial.latency is not None
    assert (trial.latency.mean, trial.latency.case) == (2.0, "a")
    assert trial.latency_why == "one inference of case 'a'"


def test_latency_is_judged_by_what_was_asked_for(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", latency=False, options=RunOptions(warmup=3))
    archive.tried(HOST, "weight:8")
    assert only(archive).latency_why == "not asked for"
    assert only(archive, latency=True).latency_why == "the run ended before it was timed"
    timing = TimingCapture(case="a", samples_ms=(1.0,), warmup=2, complete=True)
    archive.on_device(HOST, "weight:8", timings=(timing,))
    found = only(archive).latency
    assert found is not None
    assert found.why_invalid == ["the time was over before the warm-up was"]


# ---- the three errors


def test_the_three_errors_are_kept_apart(tmp_path: Path) -> None:
    """float MNN 50 dB from the source, the file 30 dB from float MNN, the board 70 dB from this host."""
    here = all_off(all_off(TRUE, 50), 30)
    archive = on_board(tmp_path, {case: {"y": off(here[case]["y"], 70)} for case in here}, here,
                       float_host=all_off(TRUE, 50))  # fmt: skip
    trial = only(archive)
    assert sqnr(trial, "conversion") == {"y": 50}
    assert trial.stages.quantization["y"].values["sqnr_db"] == pytest.approx(30, abs=0.01)
    assert trial.stages.device["y"].values["sqnr_db"] == pytest.approx(70, abs=0.01)
    assert trial.stages.why == {}
    assert trial.verdict is Verdict.PASS


def test_on_this_host_there_is_no_error_of_the_device(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "float", float_host=all_off(TRUE, 50))
    archive.tried(HOST, "weight:8", all_off(TRUE, 30))
    archive.tried(HOST, "float", all_off(TRUE, 50))
    weight, plain = archive.judged().trials
    assert weight.stages.why == {"device": "the device is this host"}
    assert weight.stages.quantization["y"].values["sqnr_db"] is not None
    assert weight.stages.device == {}
    assert plain.stages.why == {"quantization": "nothing is quantized", "device": "the device is this host"}
    assert plain.stages.quantization == {}


def test_a_stage_that_was_not_measured_says_why(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "float", devices=(BOARD,))
    for variant in ("weight:8", "float"):
        archive.tried(BOARD, variant)
    weight, plain = archive.judged().trials
    assert weight.stages.why == {}
    assert plain.stages.why == {"quantization": "nothing is quantized"}
    archive.on_host("weight:8", {}, failure=failed("OUT_OF_MEMORY", "too large"))
    told = "it could not be run on this host (OUT_OF_MEMORY: too large)"
    assert only(archive, variants=(Variant.parse("weight:8"),)).stages.why == {"quantization": told, "device": told}


def test_what_a_failed_host_brought_back_is_not_used(tmp_path: Path) -> None:
    archive = on_board(tmp_path, TRUE, TRUE)
    archive.on_host("weight:8", all_off(TRUE, 10), failure=failed())
    archive.on_device(BOARD, "weight:8", all_off(TRUE, 5))
    trial = only(archive)
    assert (trial.stages.quantization, trial.stages.device) == ({}, {})
    assert codes(trial).count("DEVICE_DIFFERS") == 0
    # Of a host that kept its limits before it died, nothing is claimed either.
    archive.on_host("weight:8", TRUE, failure=failed())
    assert "DEVICE_DIFFERS" not in codes(only(archive))


def test_on_this_host_a_run_that_failed_is_measured_as_far_as_it_went(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(HOST, "weight:8", {"a": {"y": off(WAVE, 30)}}, failure=failed())
    trial = only(archive)
    assert trial.verdict is Verdict.ERROR
    assert trial.failure == failed()
    assert trial.stages.why == {"device": "the device is this host"}
    assert trial.stages.quantization["y"].cases == 1
    assert trial.outputs["y"].verdict.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        (ReferenceFacts(kind="mnn-float", why="there is no onnxruntime"), "there is no onnxruntime"),
        (ReferenceFacts(kind="mnn-float"), ""),
        (None, "not measured"),
    ],
)
def test_where_float_mnn_is_the_reference_there_is_no_conversion(
    tmp_path: Path, reference: ReferenceFacts | None, why: str
) -> None:
    archive = Archive(tmp_path, "weight:8", source={"reference": reference})
    (archive.folder.path / "captures" / "float-host.json").unlink()
    archive.tried(HOST, "weight:8", all_off(TRUE, 30))
    trial = only(archive)
    assert trial.stages.why == {"conversion": why, "device": "the device is this host"}
    assert sqnr(trial, "quantization") == {"y": 30}


# ---- verdicts


def test_a_device_that_strays_is_blamed_for_itself(tmp_path: Path) -> None:
    archive = on_board(tmp_path, all_off(RANDOM, 12), all_off(RANDOM, 30), reference=RANDOM)
    trial = only(archive)
    assert trial.verdict is Verdict.FAIL
    assert codes(trial) == ["LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "DEVICE_DIFFERS", "DEVICE_BEYOND_ROUNDING"]
    assert [each.remedy for each in trial.findings[:2]] == [None, None]
    # Where this host breaks them too, other variants are the remedy.
    archive.on_host("weight:8", all_off(RANDOM, 12))
    archive.on_device(BOARD, "weight:8", all_off(RANDOM, 12))
    trial = only(archive)
    assert "DEVICE_DIFFERS" not in codes(trial)
    assert {each.remedy for each in trial.findings} == {"Try other variants: weight:8,block=32, fp16 or auto."}


def test_outside_the_band_is_a_failure_where_every_limit_is_kept(tmp_path: Path) -> None:
    trial = only(on_board(tmp_path, all_off(TRUE, 30), TRUE))
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["DEVICE_BEYOND_ROUNDING"])
    assert trial.outputs["y"].verdict.verdict is Verdict.PASS


def test_this_host_is_held_against_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(HOST, "weight:8", all_off(TRUE, 10))
    archive.on_host("weight:8", TRUE)
    trial = only(archive)
    assert not {"DEVICE_DIFFERS", "DEVICE_BEYOND_ROUNDING"} & set(codes(trial))
    assert trial.verdict is Verdict.FAIL


def test_a_device_that_told_nothing_is_no_host(tmp_path: Path) -> None:
    archive = on_board(tmp_path, all_off(TRUE, 30), TRUE)
    archive.on_device(BOARD, "weight:8", all_off(TRUE, 30), device=None)
    assert codes(only(archive)) == ["DEVICE_BEYOND_ROUNDING"]


def test_two_runs_that_differ_are_inconclusive(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.made("weight:8")
    archive.on_device(HOST, "weight:8", repeated=all_off(TRUE, 30))
    trial = only(archive)
    assert (trial.verdict, codes(trial)) == (Verdict.INCONCLUSIVE, ["NOT_DETERMINISTIC"])


def test_dynamic_quantization_that_does_not_take_place_is_inconclusive(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "dynamic:8")
    archive.tried(HOST, "dynamic:8", normal=TRUE)
    trial = only(archive)
    assert (trial.verdict, codes(trial)) == (Verdict.INCONCLUSIVE, ["LOW_MEMORY_NOT_ENGAGED"])
    assert trial.engaged.engaged is False
    archive.on_device(HOST, "dynamic:8", all_off(TRUE, 3), normal=TRUE)
    assert only(archive).verdict is Verdict.FAIL, "a broken limit is proven all the same"


def test_a_file_with_nothing_quantized_proves_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "dynamic:8", "fp16")
    for variant in ("weight:8", "dynamic:8", "fp16"):
        archive.tried(HOST, variant, all_off(TRUE, 60))
        archive.made(variant, quantized_layers=0, float_layers=7, warnings=("odd", "strange"))
    weight, dynamic, half = archive.judged().trials
    assert weight.verdict is Verdict.INCONCLUSIVE
    assert weight.findings == (
        Finding(
            code="NOTHING_QUANTIZED",
            severity="error",
            message="no layer has weights of a kind or size that MNN quantizes: the file is a float model",
            evidence={"float_layers": 7, "log": "convert.log"},
            remedy="There is nothing to gain from quantizing this model: use fp16 or float.",
        ),
    )
    assert dynamic.findings == (), "the finding about low memory says so"
    assert half.verdict is Verdict.PASS
    assert half.findings == tuple(
        Finding(code="CONVERTER_WARNING", severity="warn", message=text, evidence={"log": "convert.log"})
        for text in ("odd", "strange")
    )
    archive.made("dynamic:8", warnings=("odd",))
    assert codes(archive.judged().trials[1]) == ["CONVERTER_WARNING"]


def test_of_what_a_recipe_came_to_the_file_decides(tmp_path: Path) -> None:
    """What it is run as, not what was asked for, says whether memory low has to do something."""
    archive = Archive(tmp_path, "auto")
    archive.made("auto", run_as=Variant.parse("dynamic:8"), label="dynamic:8, as the smallest")
    archive.on_device(HOST, "auto", normal=TRUE)
    assert codes(only(archive)) == ["LOW_MEMORY_NOT_ENGAGED"]


# ---- failures


def test_a_failure_comes_with_what_came_before_it(tmp_path: Path) -> None:
    archive = on_board(tmp_path, {"a": TRUE["a"]}, TRUE)
    archive.on_device(BOARD, "weight:8", {"a": TRUE["a"], "b": "refused"}, failure=failed("LINK_LOST", "cable"))
    trial = only(archive)
    assert (trial.verdict, trial.failure) == (Verdict.ERROR, failed("LINK_LOST", "cable"))
    assert trial.outputs["y"].summary.cases == 1
    archive.on_device(BOARD, "weight:8", all_off({"a": TRUE["a"]}, 3), failure=failed("LINK_LOST", "cable"))
    assert only(archive).verdict is Verdict.FAIL


def test_a_capture_without_all_cases_is_no_pass(tmp_path: Path) -> None:
    many = {f"c{i:04}": TRUE["a"] for i in range(1010)}
    archive = on_board(tmp_path, {"c0003": TRUE["a"]}, many, reference=many)
    trial = only(archive)
    names = [name for name in many if name != "c0003"]
    assert trial.verdict is Verdict.ERROR
    assert trial.failure == failed(
        "CAPTURE_INCOMPLETE",
        "the capture says nothing of case c0000, c0001, c0002, c0004, c0005, though it was not interrupted",
        where=BOARD,
        hint="The run folder is damaged: run again.",
        evidence={"cases": names[:1000]},
    )
    assert len(names) > 1000


def test_a_case_that_only_the_device_refuses_is_its_failure(tmp_path: Path) -> None:
    archive = on_board(tmp_path, {"a": TRUE["a"], "b": "too large"}, TRUE)
    trial = only(archive)
    assert trial.verdict is Verdict.ERROR
    assert trial.failure == failed(
        "INFERENCE_FAILED",
        "too large",
        where=BOARD,
        hint="MNN on this host runs this case: compare the MNN versions, or pin other sizes with --shape.",
        evidence={"case": "b"},
    )
    assert trial.outputs["y"].verdict.verdict is Verdict.PASS
    assert trial.outputs["y"].summary.cases == 1


@pytest.mark.parametrize("where", ["variant", "float"])
def test_a_case_that_this_host_refuses_too_is_the_models(tmp_path: Path, where: str) -> None:
    partly = {"a": TRUE["a"], "b": "too large"}
    archive = on_board(tmp_path, partly, partly if where == "variant" else TRUE,
                       float_host=partly if where == "float" else TRUE)  # fmt: skip
    trial = only(archive)
    assert trial.failure is None
    assert trial.verdict is Verdict.FAIL
    assert trial.outputs["y"].summary.problems == {"b": "missing"}
    # One that only the device refuses comes to light behind it.
    archive.on_device(BOARD, "weight:8", {"b": "too large", "a": "no"})
    trial = only(archive)
    assert trial.failure is not None
    assert trial.failure.evidence == {"case": "a"}


def test_a_case_that_this_host_alone_was_asked_for_and_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(HOST, "weight:8", {"a": TRUE["a"], "b": "too large"})
    trial = only(archive)
    assert (trial.verdict, trial.failure) == (Verdict.FAIL, None)
    assert trial.outputs["y"].summary.problems == {"b": "missing"}


def test_one_that_was_never_begun(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "kl", "dynamic:8", "weight:8", devices=(HOST,))
    archive.not_made("kl", failed("QUANTIZER_FAILED", "it crashed", hint="Try dynamic:8."))
    archive.tried(HOST, "dynamic:8", all_off(TRUE, 40.05))
    archive.made("weight:8")
    archive.on_device(HOST, "weight:8", {}, artifact_sha256=None, failure=failed("DEVICE_UNREACHABLE", "no route"))
    trial, _, unreached = archive.judged().trials
    # No rerun makes it of this model.
    assert (trial.verdict, trial.latency_why) == (Verdict.FAIL, "it was not run")
    assert (trial.uri, trial.variant, trial.artifact, trial.capture) == (HOST, Variant.parse("kl"), None, None)
    assert trial.failure is not None
    assert trial.failure.hint == (
        "dynamic:8 (40.0 dB), measured beside it, keeps all limits.  Let edgequant try the other ways (leave "
        "--no-fallback out)."
    )
    assert unreached.failure == failed("DEVICE_UNREACHABLE", "no route")
    assert (unreached.artifact, unreached.verdict) == (None, Verdict.ERROR)
