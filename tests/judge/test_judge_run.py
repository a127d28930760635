"""A whole run folder judged: order, what keeps the whole from being more than its parts, and limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.folder import device_capture, host_capture
from edgequant.archive.open import open_run
from edgequant.archive.types import CaseCapture, ReferenceFacts
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.judge.run import check_limits, judge
from edgequant.judge.stages import Comparer
from edgequant.judge.trial import limits_of
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant
from tests.judge.archives import BOARD, HOST, TRUE, WAVE, Archive, all_off, failed, off, parsed, sha


def test_trials_come_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "float", devices=(BOARD, HOST))
    for uri in (HOST, BOARD):
        for variant in ("float", "weight:8"):
            archive.tried(uri, variant)
    found = archive.judged()
    assert [(trial.uri, str(trial.variant)) for trial in found.trials] == [
        (BOARD, "weight:8"), (BOARD, "float"), (HOST, "weight:8"), (HOST, "float"),
    ]  # fmt: skip
    assert found.verdict is Verdict.PASS
    assert found.findings == ()
    # A plan with fewer of them, or in another order, is judged as it says.
    found = archive.judged(devices=(HOST,), variants=(Variant.parse("float"),))
    assert [(trial.uri, str(trial.variant)) for trial in found.trials] == [(HOST, "float")]


def test_the_worst_trial_decides(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "weight:4", "kl")
    archive.tried(HOST, "weight:8")
    archive.not_made("kl", failed())
    archive.tried(HOST, "weight:4")
    assert archive.judged().verdict is Verdict.ERROR
    archive.tried(HOST, "weight:4", all_off(TRUE, 3))
    assert archive.judged().verdict is Verdict.FAIL
    assert [trial.verdict for trial in archive.judged().trials] == [Verdict.PASS, Verdict.FAIL, Verdict.ERROR]


def test_limits_of_the_plan_it_is_judged_by(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", limits=("sqnr_db>=50",))
    archive.tried(HOST, "weight:8", all_off(TRUE, 40))
    assert archive.judged().verdict is Verdict.FAIL
    assert archive.judged(limits=()).verdict is Verdict.PASS


def test_goals_bind_auto_alone(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "auto", "weight:8", goals=("sqnr_db>=50",), limits=("sqnr_db>=30",))
    archive.made("auto", run_as=Variant.parse("weight:8"))
    archive.on_device(HOST, "auto", all_off(TRUE, 40))
    archive.tried(HOST, "weight:8", all_off(TRUE, 40))
    assert [trial.verdict for trial in archive.judged().trials] == [Verdict.FAIL, Verdict.PASS]
    run = open_run(archive.folder.path)
    auto = {limit.metric: limit.value for limit in limits_of(run.plan, run.source, Variant.parse("auto"))["y"]}
    plain = {limit.metric: limit.value for limit in limits_of(run.plan, run.source, Variant.parse("weight:8"))["y"]}
    half = {limit.metric: limit.value for limit in limits_of(run.plan, run.source, Variant.parse("fp16"))["y"]}
    assert auto == {"cosine": 0.99, "sqnr_db": 50, "rel_max": 0.25}
    assert plain == {"cosine": 0.99, "sqnr_db": 30, "rel_max": 0.25}
    assert half == {"cosine": 0.999, "sqnr_db": 30, "rel_max": 0.05}


def test_limits_that_cannot_apply_are_told_before_anything_is_judged(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "auto")
    run = open_run(archive.folder.path)
    check_limits(run, archive.plan)
    for limit, code in (("q:sqnr_db>=3", "LIMIT_UNKNOWN_OUTPUT"), ("mismatch<=0.1", "LIMIT_UNDEFINED")):
        for where in ("limits", "goals"):
            with pytest.raises(InputError) as caught:
                check_limits(run, archive.plan.model_copy(update={where: parsed([limit])}))
            assert caught.value.code == code


def test_a_run_that_ended_too_early_has_nothing_to_limit(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", source={"kinds": {}, "cases": ()})
    with pytest.raises(InputError) as caught:
        check_limits(open_run(archive.folder.path), archive.plan)
    assert caught.value.code == "RUN_INVALID"
    assert str(caught.value) == f"{archive.folder.path}: it ended before there was anything to judge"


# ---- the whole


def test_one_that_was_interrupted_is_no_pass(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", "float", devices=(HOST, BOARD))
    archive.tried(HOST, "weight:8")
    found = judge(open_run(archive.folder.path))
    assert found.verdict is Verdict.ERROR
    assert found.findings == (
        Finding(
            code="INTERRUPTED",
            severity="error",
            message="interrupted: 1 of 4 runs are in this report",
            remedy="`edgequant verify --resume RUN_DIR` does what is missing.",
        ),
    )
    assert [trial.verdict for trial in found.trials] == [Verdict.PASS]
    archive.tried(HOST, "float", all_off(TRUE, 3))
    assert judge(open_run(archive.folder.path)).findings[0].message.startswith("interrupted: 2 of 4")
    archive.close(ended=False, source_now=sha("another"))
    found = archive.judged()
    assert found.verdict is Verdict.FAIL, "what is proven stays proven"
    assert [each.code for each in found.findings] == ["INTERRUPTED"]


@pytest.mark.parametrize("now", ["another", "MODEL_NOT_FOUND"])
def test_a_model_that_was_changed_meanwhile_is_no_pass(tmp_path: Path, now: str) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(HOST, "weight:8")
    archive.close(source_now=now)
    found = archive.judged()
    assert found.verdict is Verdict.ERROR
    assert found.findings == (
        Finding(
            code="MODEL_CHANGED",
            severity="error",
            message="the model file was changed while it was being verified",
            evidence={"sha256": sha("m"), "now": now},
            remedy="Run again when nothing writes to it.",
        ),
    )
    archive.close(source_now=None)
    assert archive.judged().verdict is Verdict.PASS


def refused(archive: Archive, hint: str = "A file of it was removed.") -> str:
    """Why the folder is not judged at all."""
    with pytest.raises(InputError) as caught:
        archive.judged()
    assert caught.value.code == "RUN_INVALID"
    assert caught.value.hint == hint
    return caught.value.message.partition(": ")[2]


def test_a_run_that_is_lost_is_no_pass(tmp_path: Path) -> None:
    """Though all that is left of it passes."""
    archive = Archive(tmp_path, "weight:8", "float")
    archive.tried(HOST, "weight:8")
    archive.made("float")
    assert refused(archive) == "what float did on local: is missing"
    archive.close(ended=False)
    assert [trial.verdict for trial in archive.judged().trials] == [Verdict.PASS]
    assert archive.judged().verdict is Verdict.ERROR


def test_what_was_captured_of_an_earlier_file_is_not_judged_as_this_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", devices=(BOARD,))
    archive.tried(BOARD, "weight:8")
    archive.on_host("weight:8", all_off(TRUE, 3), artifact_sha256=sha("earlier"))
    assert refused(archive) == "what the file of weight:8 computes on this host is missing"
    archive.on_device(BOARD, "weight:8", artifact_sha256=sha("earlier"))
    assert refused(archive) == "what the file of weight:8 did on ssh://board is missing"
    archive.close(ended=False)  # its place will be taken
    found = archive.judged()
    assert (found.verdict, found.trials) == (Verdict.ERROR, ())


def test_a_variant_that_could_not_be_made_was_tried_on_every_device(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "kl", devices=(HOST, BOARD))
    archive.not_made("kl", failed())
    found = archive.judged()
    assert found.findings == ()
    assert [(trial.uri, trial.failure) for trial in found.trials] == [(HOST, failed()), (BOARD, failed())]


# ---- a folder that lost something


def test_a_capture_whose_artifact_is_lost(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.on_device(HOST, "weight:8")
    assert refused(archive) == "how weight:8 was made is missing"
    archive.on_device(HOST, "weight:8", {}, failure=failed("LINK_LOST", "cable"))
    assert refused(archive) == "how weight:8 was made is missing"
    archive.on_device(HOST, "weight:8", {}, failure=failed("LINK_LOST", "cable"), artifact_sha256=None)
    (trial,) = archive.judged().trials
    assert trial.failure == failed("LINK_LOST", "cable")


def test_a_capture_that_names_neither_a_file_nor_a_failure(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    archive.tried(HOST, "weight:8")
    archive.on_device(HOST, "weight:8", artifact_sha256=None)
    assert refused(archive) == "which file of weight:8 ran on local: is missing"


def test_a_capture_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    """Of this host in that of a board, the board's own result was lost, and the whole passed."""
    damaged = "The folder is damaged, or of another version."
    archive = Archive(tmp_path, "weight:8", "float", devices=(HOST, BOARD))
    for uri in (HOST, BOARD):
        for variant in ("weight:8", "float"):
            archive.tried(uri, variant)
    run = open_run(archive.folder.path)
    whole = {name: run.capture(name) for name in (device_capture(HOST, "weight:8"), device_capture(BOARD, "weight:8"))}
    here, there = (each for each in whole.values() if each is not None)
    archive.folder.save_capture(device_capture(BOARD, "weight:8"), here)
    assert refused(archive, damaged) == "what is kept as that of weight:8 on ssh://board is of local:"
    archive.folder.save_capture(device_capture(BOARD, "weight:8"), there.model_copy(update={"variant": "dynamic:8"}))
    assert refused(archive, damaged) == "what is kept as that of weight:8 on ssh://board is of dynamic:8"
    archive.folder.save_capture(device_capture(BOARD, "weight:8"), there)
    archive.folder.save_capture(host_capture("weight:8"), there)
    assert refused(archive, damaged) == "what is kept as that of weight:8 on this host is of ssh://board"


@pytest.mark.parametrize("place", ["reference", "float-host", "host", "device"])
@pytest.mark.parametrize("left", [{}, {"case": "b"}])
def test_a_case_of_which_nothing_is_told_is_no_pass(tmp_path: Path, place: str, left: dict[str, str]) -> None:
    """Left out, or there with neither outputs nor a refusal: it would be held against nothing."""
    archive = Archive(tmp_path, "weight:8", devices=(BOARD,))
    archive.tried(BOARD, "weight:8")
    assert archive.judged().verdict is Verdict.PASS
    names = {"device": device_capture(BOARD, "weight:8"), "host": host_capture("weight:8")}
    name = names.get(place, place)
    whole = open_run(archive.folder.path).capture(name)
    assert whole is not None
    cases = (whole.cases[0], *([CaseCapture(**left)] if left else []))
    archive.folder.save_capture(name, whole.model_copy(update={"cases": cases}))
    if place == "device":
        (trial,) = archive.judged().trials
        assert trial.verdict is Verdict.ERROR
        assert trial.failure is not None
        assert trial.failure.code == "CAPTURE_INCOMPLETE"
    else:
        assert refused(archive).endswith("of case b is missing")


# ---- conversion


def test_the_conversion_is_judged_once_for_all(tmp_path: Path) -> None:
    note = Finding(code="CASES_RANDOM", severity="warn", message="m")
    archive = Archive(tmp_path, "weight:8", float_host=all_off(TRUE, 30), source={"findings": (note,)})
    archive.tried(HOST, "weight:8", all_off(TRUE, 30))
    found = archive.judged()
    assert [each.code for each in found.findings] == ["CASES_RANDOM", "CONVERSION_ERROR"]
    assert found.findings[1].severity == "warn"
    assert found.findings[1].evidence["sqnr_db"] == pytest.approx(30, abs=1e-3)
    assert found.verdict is Verdict.PASS
    assert found.trials[0].stages.conversion["y"].values["sqnr_db"] == pytest.approx(30, abs=1e-3)


def test_a_case_that_float_mnn_refuses_counts_as_lost(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", float_host={"a": TRUE["a"], "b": "too large"})
    archive.tried(HOST, "weight:8")
    found = archive.judged()
    # Nothing was dropped or renamed: that it cannot be run says it all.
    assert [(each.code, each.where) for each in found.findings] == [("CONVERSION_RUN_FAILED", "b")]
    assert found.findings[0].message.endswith(": too large")
    assert found.trials[0].stages.conversion["y"].problems == {"b": "missing"}


@pytest.mark.parametrize("reference", [ReferenceFacts(kind="mnn-float"), None])
def test_without_a_runtime_of_the_source_there_is_no_conversion(
    tmp_path: Path, reference: ReferenceFacts | None
) -> None:
    archive = Archive(tmp_path, "weight:8", float_host=all_off(TRUE, 3), source={"reference": reference})
    archive.tried(HOST, "weight:8")
    found = archive.judged()
    assert found.findings == ()
    assert found.trials[0].stages.conversion == {}


def test_what_was_compared_is_known_the_next_time(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", float_host={"a": {"y": off(WAVE, 45)}, "b": TRUE["b"]})
    archive.tried(HOST, "weight:8", all_off(TRUE, 40))
    run = open_run(archive.folder.path)
    comparer = Comparer(run.arrays)
    first = judge(run, comparer=comparer)
    for file in (archive.folder.path / "arrays").iterdir():
        file.unlink()
    again = open_run(archive.folder.path)
    assert judge(again, comparer=comparer) == first
    assert np.isfinite(first.trials[0].stages.quantization["y"].values["sqnr_db"] or np.nan)
