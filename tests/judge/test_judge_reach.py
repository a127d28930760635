"""What cases cannot show, from run folders made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgequant.archive.folder import REFERENCE
from edgequant.archive.open import open_run
from edgequant.archive.rollout import Rollout
from edgequant.archive.types import Capture, CaseCapture, CaseFacts
from edgequant.findings import Finding
from edgequant.judge.reach import reach, shows_less
from edgequant.judge.stages import Comparer
from edgequant.judge.types import Judgement
from edgequant.judge.verdict import Verdict
from tests.judge.archives import HOST, TRUE, Archive, all_off, captured

VARYING = [np.arange(3, dtype=np.float32), np.arange(3, 6, dtype=np.float32)]
FLAT = [np.full(3, 2, np.float32)] * 2
WINNERS = {"a": {"p": np.float32([[0.9, 0.1], [0.8, 0.2]])}, "b": {"p": np.float32([[0.7, 0.3], [0.1, 0.9]])}}
CLASSES = {"a": {"label": np.int64([[1]])}, "b": {"label": np.int64([[4]])}}


def judged(path: Path, *inputs: list[np.ndarray], reference: Any = TRUE, generated: bool = False) -> Judgement:
    """Two cases with these arrays of each input."""
    archive = Archive(path, "weight:8", reference=reference)
    refs = [[archive.arrays.put(array) for array in arrays] for arrays in inputs]
    cases = tuple(
        CaseFacts(
            name=name,
            source="file",
            generated=generated,
            inputs={f"x{number}": of[place] for number, of in enumerate(refs)},
        )
        for place, name in enumerate(reference)
    )
    more = {"cases": cases, "decisions": {"p": "probabilities"} if "p" in reference["a"] else {}}
    archive.folder.save_source(open_run(archive.folder.path).source.model_copy(update=more))
    got = all_off(TRUE, 40) if reference is TRUE else reference
    archive.tried(HOST, "weight:8", got)
    return archive.judged()


def codes(judgement: Judgement) -> list[str]:
    return [finding.code for finding in judgement.findings]


def test_cases_that_differ(tmp_path: Path) -> None:
    found = judged(tmp_path, VARYING)
    assert (found.verdict, codes(found)) == (Verdict.PASS, [])


def test_one_case_twice_is_marginal_at_best(tmp_path: Path) -> None:
    found = judged(tmp_path, [VARYING[0]] * 2)
    assert (found.verdict, codes(found)) == (Verdict.MARGINAL, ["CASES_IDENTICAL"])
    assert found.findings[0].evidence["cases"] == [["a", "b"]]
    assert found.trials[0].verdict is Verdict.MARGINAL


def test_two_of_three_cases_alike_are_told(tmp_path: Path) -> None:
    three = {**TRUE, "c": {"y": 3 * TRUE["a"]["y"]}}
    found = judged(tmp_path, [*VARYING, VARYING[0]], reference=three)
    assert (found.verdict, codes(found)) == (Verdict.PASS, ["CASES_IDENTICAL"])


def test_nothing_but_constants(tmp_path: Path) -> None:
    found = judged(tmp_path, [np.zeros(3, np.float32)] * 2)
    assert found.verdict is Verdict.MARGINAL
    assert codes(found) == ["CASES_IDENTICAL", "INPUT_CONSTANT"]


def test_one_constant_input_beside_others_is_marginal_at_best(tmp_path: Path) -> None:
    """What a model makes of it is not looked at, however the others vary."""
    found = judged(tmp_path, VARYING, FLAT)
    assert (found.verdict, codes(found)) == (Verdict.MARGINAL, ["INPUT_CONSTANT"])
    assert found.findings[0].where == "x1"
    assert judged(tmp_path / "drawn", VARYING, FLAT, generated=True).findings == ()


def test_a_mask_that_masks_nothing_is_told(tmp_path: Path) -> None:
    for number, kind in enumerate((np.int64, np.bool_)):
        found = judged(tmp_path / str(number), VARYING, [np.ones(3, kind)] * 2)
        assert (found.verdict, codes(found)) == (Verdict.PASS, ["INPUT_CONSTANT"])
    assert judged(tmp_path / "ids", VARYING, [np.zeros(3, np.int64)] * 2).verdict is Verdict.MARGINAL


def test_a_state_that_a_rollout_feeds_is_not_constant_there(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    inputs = [{"x": archive.arrays.put(VARYING[n]), "h": archive.arrays.put(FLAT[n])} for n in (0, 1)]
    cases = tuple(CaseFacts(name=name, source="file", inputs=of) for name, of in zip(TRUE, inputs, strict=True))
    source, reference = open_run(archive.folder.path).source.model_copy(update={"cases": cases}), captured_as(TRUE)
    assert reach(source, reference, Comparer(archive.arrays)).verdict is Verdict.MARGINAL
    fed = Rollout(steps=2, feedback={"h": "y"}, start={"h": inputs[0]["h"]})
    found = reach(source.model_copy(update={"rollout": fed}), reference, Comparer(archive.arrays))
    assert (found.verdict, [each.code for each in found.findings]) == (Verdict.PASS, ["INPUT_CONSTANT"])


def captured_as(cases: Any) -> Capture:
    return Capture(trial="t", role="reference", cases=tuple(CaseCapture(case=case, outputs={}) for case in cases))


def test_a_branch_that_no_case_takes(tmp_path: Path) -> None:
    def ways(path: Path, *deep: bool) -> Judgement:
        archive = Archive(path, "weight:8")
        taken = zip(captured(archive.arrays, TRUE), deep, strict=True)
        cases = tuple(
            each.model_copy(update={"taps": {"deep": archive.arrays.put(np.array(way))}}) for each, way in taken
        )
        archive.folder.save_capture(REFERENCE, Capture(trial="reference", role="reference", cases=cases))
        archive.tried(HOST, "weight:8", all_off(TRUE, 40))
        return archive.judged()

    assert ways(tmp_path / "both", True, False).verdict is Verdict.PASS
    found = ways(tmp_path / "one", True, True)
    assert (found.verdict, codes(found)) == (Verdict.MARGINAL, ["BRANCH_NOT_TAKEN"])
    assert found.findings[0].evidence == {"conditions": {"deep": True}}
    assert "deep is always true" in found.findings[0].message


def test_a_single_number_may_be_a_mode(tmp_path: Path) -> None:
    assert judged(tmp_path, VARYING, [np.full(1, 3, np.float32)] * 2).findings == ()


def test_classes_that_vary_and_one_that_does_not(tmp_path: Path) -> None:
    assert judged(tmp_path, VARYING, reference=CLASSES).findings == ()
    one = {case: {"label": np.int64([[7]])} for case in CLASSES}
    found = judged(tmp_path / "one", VARYING, reference=one)
    assert (found.verdict, codes(found)) == (Verdict.MARGINAL, ["ONE_CLASS_ONLY"])
    assert found.findings[0].where == "label"


def test_one_winner_in_all_cases_that_a_user_gives(tmp_path: Path) -> None:
    assert judged(tmp_path, VARYING, reference=WINNERS).findings == ()
    upright = {"a": WINNERS["a"], "b": {"p": WINNERS["a"]["p"] * 0.9 + 0.05}}
    found = judged(tmp_path / "one", VARYING, reference=upright)
    assert (found.verdict, codes(found)) == (Verdict.MARGINAL, ["ONE_CLASS_ONLY"])
    assert judged(tmp_path / "drawn", VARYING, reference=upright, generated=True).findings == ()


def test_what_was_calibrated_and_referred_to_can_leave_a_part_open(tmp_path: Path) -> None:
    def finding(code: str, **evidence: Any) -> Finding:
        return Finding(code=code, severity="warn", message="m", evidence=evidence)

    for code in ("CALIBRATION_RANGE", "CALIBRATION_IDENTICAL", "OUTPUTS_NOT_JUDGED"):
        assert shows_less([finding("OTHER"), finding(code)]) is Verdict.MARGINAL
    assert shows_less([finding("CALIBRATED_ON_CASES", all=True)]) is Verdict.MARGINAL
    assert shows_less([finding("CALIBRATED_ON_CASES", all=False)]) is Verdict.PASS
    assert shows_less([finding("CALIBRATED_ON_CASES")]) is Verdict.PASS  # of an older run
    assert shows_less([finding("OTHER")]) is shows_less([]) is Verdict.PASS
    for place in ("made", "source"):
        found = (finding("CALIBRATION_RANGE"),)
        archive = Archive(tmp_path / place, "weight:8", source={"findings": found if place == "source" else ()})
        archive.made("weight:8", findings=found if place == "made" else ())
        archive.on_device(HOST, "weight:8", all_off(TRUE, 60))
        assert archive.judged().trials[0].verdict is Verdict.MARGINAL
