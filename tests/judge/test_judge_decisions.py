"""Outputs that decide something, from run folders made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.errors import InputError
from edgequant.judge.decisions import check_named
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict
from tests.judge.archives import BOARD, HOST, Archive, codes, only, parsed

RANDOM = np.random.default_rng(7)


def probabilities(rows: int, classes: int = 8, rare: int = 0) -> np.ndarray:
    """Clear ones; `rare` rows of the last class, which wins in no other."""
    logits = RANDOM.normal(0, 0.3, (rows, classes))
    wins = np.arange(rows) % (classes - 1)
    wins[:rare] = classes - 1
    logits[np.arange(rows), wins] += 5
    raised = np.exp(logits)
    return (raised / raised.sum(-1, keepdims=True)).astype(np.float32)


def judged(
    path: Path, expected: np.ndarray, got: np.ndarray, decision: str, variant: str = "weight:8"
) -> TrialJudgement:
    reference: dict[str, Any] = {case: {"y": expected} for case in ("a", "b")}
    archive = Archive(path, "weight:8", reference=reference, source={"decisions": {"y": decision}})
    archive.tried(HOST, "weight:8", {case: {"y": got} for case in reference})
    return only(archive)


def test_the_same_winners(tmp_path: Path) -> None:
    p = probabilities(700, rare=4)
    trial = judged(tmp_path, p, p + RANDOM.normal(0, 1e-3, p.shape).astype(np.float32), "probabilities")
    assert (trial.verdict, codes(trial)) == (Verdict.PASS, [])


def test_a_rare_class_that_never_wins_is_lost_though_every_limit_is_kept(tmp_path: Path) -> None:
    p = probabilities(700, rare=4)
    got = p.copy()
    got[:4] = got[:4, ::-1]
    trial = judged(tmp_path, p, got, "probabilities")
    assert trial.outputs["y"].summary.values["sqnr_db"] > 19
    assert "CLASS_LOST" in codes(trial)
    assert trial.verdict is Verdict.FAIL
    found = next(each for each in trial.findings if each.code == "CLASS_LOST")
    assert found.evidence["classes"] == {"7": 8}
    assert "mostly as 0" in found.message
    plain = judged(tmp_path / "plain", p, got, "ordered")
    assert "CLASS_LOST" not in codes(plain)


def test_many_clear_decisions_that_change(tmp_path: Path) -> None:
    p = probabilities(700)
    got = p.copy()
    got[::50] = got[::50, ::-1]
    trial = judged(tmp_path, p, got, "probabilities")
    assert "DECISIONS_CHANGED" in codes(trial)
    assert trial.verdict is Verdict.FAIL


def test_one_clear_decision_may_be_chance(tmp_path: Path) -> None:
    p = probabilities(20)
    got = p.copy()
    got[3] = got[3, ::-1]
    reference: dict[str, Any] = {"a": {"y": p}, "b": {"y": p}}
    archive = Archive(tmp_path, "weight:8", reference=reference, source={"decisions": {"y": "probabilities"}})
    archive.tried(HOST, "weight:8", {"a": {"y": got}, "b": {"y": p}})
    findings = only(archive, limits=parsed(["sqnr_db>=0", "rel_max<=2", "cosine>=0"])).findings
    found = [(each.code, each.severity) for each in findings]
    assert found == [("DECISIONS_CHANGED", "warn"), ("LIMIT_KEEPS_ANYTHING", "error")]


def test_a_label_that_always_comes_out_as_another(tmp_path: Path) -> None:
    labels = np.arange(1000) % 5
    labels[:6] = 9
    got = labels.copy()
    got[:6] = 1
    trial = judged(tmp_path, labels, got, "classes")
    assert trial.outputs["y"].verdict.verdict is Verdict.PASS
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["CLASS_LOST"])


def test_scores_that_change_sides(tmp_path: Path) -> None:
    scores = RANDOM.uniform(0.7, 1, (1, 500)).astype(np.float32)
    scores[:, :100] = 0.1
    got = scores.copy()
    got[:, :8] = 0.6
    trial = judged(tmp_path, scores, got, "scores")
    assert "DECISIONS_CHANGED" in codes(trial)


BOXES = np.sort(RANDOM.uniform(0, 1, (20, 6)), axis=0)[::-1].astype(np.float32)


def test_neighbours_that_change_places_are_matched(tmp_path: Path) -> None:
    got = BOXES.copy()
    got[[4, 5, 10, 11]] = got[[5, 4, 11, 10]]
    far = got.copy()
    far[0], far[9] = got[9], got[0]
    trial = judged(tmp_path, BOXES, far, "ordered")
    assert (trial.verdict, codes(trial)) == (Verdict.MARGINAL, ["ROWS_MATCHED"])
    assert trial.outputs["y"].summary.exact
    assert judged(tmp_path / "plain", BOXES, far, "probabilities").verdict is Verdict.FAIL


@pytest.mark.parametrize("got", [BOXES[::-1], BOXES + 0.4 * (BOXES > 0.5)], ids=["reversed", "others"])
def test_lists_that_are_others_fail(tmp_path: Path, got: np.ndarray) -> None:
    trial = judged(tmp_path, BOXES, got.astype(np.float32), "ordered")
    assert trial.verdict is Verdict.FAIL
    assert "ROWS_DIFFER" in codes(trial)


def test_one_more_in_a_set(tmp_path: Path) -> None:
    places = np.stack([np.arange(130), np.arange(130) * 7 % 100])
    got = np.insert(places, 60, [59, 1], axis=1)
    trial = judged(tmp_path, places, got, "set")
    assert (trial.verdict, codes(trial)) == (Verdict.MARGINAL, ["ROWS_MATCHED"])
    assert "131 came back" in trial.findings[0].message
    fewer = judged(tmp_path / "fewer", places, places[:, :100], "set")
    assert fewer.verdict is Verdict.FAIL
    assert {"ROWS_DIFFER", "OUTPUT_SHAPE"} <= set(codes(fewer))


def on_a_board(path: Path, here: np.ndarray, there: np.ndarray, decision: str = "ordered") -> TrialJudgement:
    """The same file on both: this host has what the reference has."""
    reference: dict[str, Any] = {case: {"y": here} for case in ("a", "b")}
    archive = Archive(path, "weight:8", reference=reference, source={"decisions": {"y": decision}}, devices=(BOARD,))
    archive.made("weight:8")
    archive.on_host("weight:8", reference)
    archive.on_device(BOARD, "weight:8", {case: {"y": there} for case in reference})
    return only(archive)


def test_rows_that_change_places_on_a_device_are_matched_there_as_well(tmp_path: Path) -> None:
    got = BOXES.copy()
    got[[0, 5]] = got[[5, 0]]
    trial = on_a_board(tmp_path, BOXES, got)
    assert trial.verdict in (Verdict.PASS, Verdict.MARGINAL)
    assert set(codes(trial)) <= {"ROWS_MATCHED"}
    plain = on_a_board(tmp_path / "plain", BOXES, got, "scores")
    assert "DEVICE_BEYOND_ROUNDING" in codes(plain)
    shuffled = on_a_board(tmp_path / "shuffled", BOXES, BOXES[::-1])
    assert "DEVICE_BEYOND_ROUNDING" in codes(shuffled)
    other = on_a_board(tmp_path / "other", BOXES, BOXES * np.float32(1.02))
    assert (other.verdict, "DEVICE_BEYOND_ROUNDING" in codes(other)) == (Verdict.FAIL, True)


def test_nan_in_a_list_is_nan_in_whatever_order(tmp_path: Path) -> None:
    got = BOXES.copy()
    got[7] = np.nan
    trial = judged(tmp_path, BOXES, got, "ordered")
    assert trial.verdict is Verdict.FAIL
    assert "OUTPUT_NAN" in codes(trial)


@pytest.mark.parametrize(("named", "verdict"), [({}, Verdict.PASS), ({"y": "probabilities"}, Verdict.FAIL)])
def test_logits_decide_where_their_user_says_so(tmp_path: Path, named: Any, verdict: Verdict) -> None:
    logits = np.log(probabilities(700, rare=4)) + RANDOM.normal(0, 9, (700, 1)).astype(np.float32)
    got = logits.copy()
    got[:4] = got[:4, ::-1]
    reference: dict[str, Any] = {case: {"y": logits} for case in ("a", "b")}
    archive = Archive(tmp_path, "weight:8", reference=reference, decides=named)
    archive.tried(HOST, "weight:8", {case: {"y": got} for case in reference})
    trial = only(archive)
    assert (trial.verdict, "CLASS_LOST" in codes(trial)) == (verdict, bool(named))
    assert trial.decisions == named


def test_what_its_user_says_of_an_output_goes_over_what_the_graph_says(tmp_path: Path) -> None:
    p = probabilities(700, rare=4)
    got = p.copy()
    got[:4] = got[:4, ::-1]
    reference: dict[str, Any] = {case: {"y": p} for case in ("a", "b")}
    archive = Archive(
        tmp_path, "weight:8", reference=reference, decides={"y": "set"}, source={"decisions": {"y": "probabilities"}}
    )
    archive.tried(HOST, "weight:8", {case: {"y": got} for case in reference})
    assert "CLASS_LOST" not in codes(only(archive))
    assert "CLASS_LOST" in codes(only(archive, decides={}))


@pytest.mark.parametrize(
    ("decides", "code"),
    [
        ({"z": "set"}, "DECIDES_UNKNOWN_OUTPUT"),
        ({"y": "classes"}, "DECIDES_WRONG_KIND"),
        ({"label": "scores"}, "DECIDES_WRONG_KIND"),
        ({"label": "probabilities"}, "DECIDES_WRONG_KIND"),
    ],
)
def test_outputs_that_cannot_decide_that(decides: Any, code: str) -> None:
    kinds: Any = {"y": "float", "label": "int"}
    check_named(kinds, {"y": "scores", "label": "classes"})
    check_named(kinds, {"y": "set", "label": "ordered"})
    with pytest.raises(InputError) as caught:
        check_named(kinds, decides)
    assert caught.value.code == code
