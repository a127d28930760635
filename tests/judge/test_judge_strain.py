"""Strained cases, from run folders made by hand: no limits, but the conversion right and numbers numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import CaseFacts
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict
from tests.judge.archives import BOARD, HOST, TRUE, WAVE, Archive, all_off, codes, off, only, sqnr

STRAINED = {**TRUE, "loud": {"y": 10 * WAVE}}
QUIET = {**TRUE, "silence": {"y": 1e-6 * WAVE}}
NAN = np.full_like(WAVE, np.nan)


def judged(
    path: Path,
    there: np.ndarray,
    *,
    floats: np.ndarray | None = None,
    reference: dict[str, dict[str, np.ndarray]] = STRAINED,
) -> TrialJudgement:
    """A case that is strained, the last: `there` came of it on this host, `floats` of float MNN."""
    *names, last = reference
    facts = [CaseFacts(name=name, source="random", kind="usual") for name in names]
    cases = (*facts, CaseFacts(name=last, source="random", kind="strain"))
    kept: dict[str, Any] = {**all_off(TRUE, 40), last: {"y": there}}
    float_host = reference if floats is None else {**TRUE, last: {"y": floats}}
    archive = Archive(path, "dynamic:8", reference=reference, float_host=float_host, source={"cases": cases})
    archive.tried(HOST, "dynamic:8", kept)
    return only(archive)


def test_no_limit_is_held_against_it(tmp_path: Path) -> None:
    trial = judged(tmp_path, off(10 * WAVE, 5))
    assert trial.verdict is Verdict.PASS
    assert trial.outputs["y"].summary.cases == 2
    assert trial.outputs["y"].summary.values["sqnr_db"] == pytest.approx(40, abs=1e-3)
    assert sqnr(trial, "quantization") == {"y": pytest.approx(40, abs=1e-3)}
    (finding,) = trial.findings
    assert (finding.code, finding.severity, finding.where) == ("STRAIN_ERROR", "info", "y")
    assert finding.evidence["sqnr_db"] == {"y in loud": pytest.approx(5, abs=1e-3)}


def test_what_is_near_enough_is_not_told(tmp_path: Path) -> None:
    assert judged(tmp_path, off(10 * WAVE, 25)).findings == ()


@pytest.mark.parametrize("there", [NAN, np.full_like(WAVE, np.inf), WAVE[:9]], ids=["nan", "inf", "shape"])
def test_what_is_no_number_any_more(tmp_path: Path, there: np.ndarray) -> None:
    trial = judged(tmp_path, there)
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["STRAIN_BROKEN"])
    assert "y in loud" in trial.findings[0].message


@pytest.mark.parametrize("floats", [off(10 * WAVE, 20), NAN, WAVE[:5]], ids=["off", "nan", "shape"])
def test_a_wrong_conversion(tmp_path: Path, floats: np.ndarray) -> None:
    trial = judged(tmp_path, 10 * WAVE, floats=floats)
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["STRAIN_CONVERSION"])


def test_rounding_of_float_kernels_is_none(tmp_path: Path) -> None:
    assert judged(tmp_path, 10 * WAVE, floats=off(10 * WAVE, 45)).verdict is Verdict.PASS


def test_next_to_nothing_is_measured_against_the_usual_size(tmp_path: Path) -> None:
    """Of silence often next to nothing comes out: an error as large as that is none."""
    noise = 1e-6 * WAVE[::-1]
    trial = judged(tmp_path, noise, floats=noise, reference=QUIET)
    assert (trial.verdict, trial.findings) == (Verdict.PASS, ())
    loud = judged(tmp_path / "loud", WAVE, floats=WAVE[::-1], reference=QUIET)
    assert codes(loud) == ["STRAIN_CONVERSION"]


def test_a_device_is_held_against_this_host_there_too(tmp_path: Path) -> None:
    usual = [CaseFacts(name=name, source="random") for name in TRUE]
    cases = (*usual, CaseFacts(name="loud", source="random", kind="strain"))
    archive = Archive(tmp_path, "weight:8", reference=STRAINED, source={"cases": cases}, devices=(BOARD,))
    archive.made("weight:8")
    archive.on_host("weight:8", STRAINED)
    archive.on_device(BOARD, "weight:8", {**TRUE, "loud": {"y": off(10 * WAVE, 30)}})
    trial = only(archive)
    assert trial.verdict is Verdict.FAIL
    assert "DEVICE_BEYOND_ROUNDING" in codes(trial)


ROWS = np.concatenate([np.arange(48.0).reshape(12, 4), np.ones((12, 1))], axis=1).astype(np.float32)
"""Boxes whose scores are all at their limit."""


def of_a_list(path: Path, floats: np.ndarray, decision: str = "ordered") -> TrialJudgement:
    usual = {name: {"y": ROWS * np.float32(0.5)} for name in TRUE}
    cases = (
        *(CaseFacts(name=name, source="random", kind="usual") for name in usual),
        CaseFacts(name="loud", source="random", kind="strain"),
    )
    reference, told = {**usual, "loud": {"y": ROWS}}, {**usual, "loud": {"y": floats}}
    archive = Archive(
        path, "dynamic:8", reference=reference, float_host=told,
        source={"cases": cases, "decisions": {"y": decision} if decision else {}},
    )  # fmt: skip
    archive.tried(HOST, "dynamic:8", told)
    return only(archive)


@pytest.mark.parametrize(
    ("floats", "decision", "found"),
    [
        (ROWS[::-1], "ordered", ["STRAIN_ERROR"]),
        (ROWS[::-1], "", ["STRAIN_CONVERSION"]),
        (np.concatenate([ROWS[:5], ROWS[:7] + 40]), "ordered", ["STRAIN_ERROR"]),
        (ROWS[::-1] * np.array([1.1, 1, 1, 1, 1], np.float32), "ordered", ["STRAIN_CONVERSION"]),
        (np.full_like(ROWS, np.nan), "ordered", ["STRAIN_CONVERSION"]),
    ],
    ids=["another order", "no list", "others of them", "a wrong column", "nan"],
)
def test_which_of_equal_scores_comes_first_is_chance(
    tmp_path: Path, floats: np.ndarray, decision: str, found: list[str]
) -> None:
    """Loud inputs drive all scores of a detector to 1, and then what sorts them decides by nothing."""
    trial = of_a_list(tmp_path, floats, decision)
    assert [code for code in codes(trial) if code.startswith("STRAIN")] == found
    assert (trial.verdict is Verdict.FAIL) == (found == ["STRAIN_CONVERSION"])
