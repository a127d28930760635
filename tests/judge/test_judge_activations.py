"""What int8 activations cost, against what rounding has to cost; from run folders made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.folder import FLOAT_HOST, REFERENCE
from edgequant.archive.types import FileFacts, Moved, Strayed
from edgequant.findings import Finding
from edgequant.judge.activations import LEAST, MARGIN_DB, STATIC_MARGIN_DB
from edgequant.judge.types import TrialJudgement
from edgequant.judge.verdict import Verdict
from tests.judge.archives import BOARD, HOST, Archive, all_off, codes, only

CHANCE = np.random.default_rng(7)
EXACT = {case: {"y": CHANCE.standard_normal((1, 40)).astype(np.float32)} for case in "abc"}
STATIC = "static:8,calib=minmax"


def moved(predicted: Any, by: str) -> tuple[Moved, ...]:
    """predicted: dB, of all cases or of each."""
    each = predicted if isinstance(predicted, dict) else dict.fromkeys(EXACT, predicted)
    memory = "low" if by == "rows" else "normal"
    return tuple(
        Moved.model_validate({"case": case, "by": by, "memory": memory, "outputs": {"y": Strayed(sqnr_db=db)}})
        for case, db in each.items()
    )


def tried(
    path: Path, found: Any, predicted: Any, *, by: str = "rows", uri: str = HOST, made: Any = None, **source: Any
) -> TrialJudgement:
    """Dynamic quantization whose activations cost so much, in dB, of all cases or of each."""
    archive = Archive(path, "dynamic:8", reference=EXACT, devices=(uri,), source=source)
    archive.save(REFERENCE, "reference", EXACT, moved=moved(predicted, by))
    archive.save(FLOAT_HOST, "float-host", EXACT)
    each = found if isinstance(found, dict) else dict.fromkeys(EXACT, found)
    low = {case: all_off({case: outputs}, each[case])[case] for case, outputs in EXACT.items()}
    archive.made("dynamic:8", **made or {})
    archive.on_host("dynamic:8", low, normal=EXACT, memory_mode="low")
    archive.on_device(uri, "dynamic:8", low, normal=EXACT)
    return only(archive)


@pytest.mark.parametrize("uri", [HOST, BOARD])
def test_rounding_is_no_fault_and_what_is_beyond_it_is(tmp_path: Path, uri: str) -> None:
    within = tried(tmp_path / "within", 51 - MARGIN_DB, 50, uri=uri)
    assert (within.verdict, codes(within)) == (Verdict.PASS, [])
    assert within.stages.predicted == {"y": pytest.approx(50)}
    beyond = tried(tmp_path / "beyond", 49 - MARGIN_DB, 50, uri=uri)
    assert (beyond.verdict, codes(beyond)) == (Verdict.FAIL, ["QUANTIZATION_BEYOND_ROUNDING"])
    (finding,) = beyond.findings
    assert (finding.where, finding.severity, finding.evidence["stage"]) == ("y", "fail", "activations")
    numbers = finding.evidence["outputs"]["y"]
    assert numbers == {
        "found_db": pytest.approx(49 - MARGIN_DB, abs=0.01), "predicted_db": pytest.approx(50), "beyond_db":
        pytest.approx(MARGIN_DB + 1, abs=0.01),
    }  # fmt: skip
    assert "50 dB" in finding.message


def test_one_case_of_three_is_a_close_call_that_tipped(tmp_path: Path) -> None:
    assert codes(tried(tmp_path / "one", {"a": 50.0, "b": 25.0, "c": 50.0}, 50)) == []
    assert codes(tried(tmp_path / "two", {"a": 50.0, "b": 25.0, "c": 25.0}, 50)) == ["QUANTIZATION_BEYOND_ROUNDING"]


@pytest.mark.parametrize(
    ("predicted", "more"),
    [
        (None, {}),
        (95.0, {}),  # nothing is rounded that matters
        ({"a": 50.0}, {}),  # too few numbers
        (50.0, {"by": "tensors"}),  # of another way to round
        (50.0, {"decisions": {"y": "probabilities"}}),
        (50.0, {"decisions": {"y": "ordered"}}),
    ],
)
def test_where_nothing_is_known_nothing_is_claimed(tmp_path: Path, predicted: Any, more: dict[str, Any]) -> None:
    assert next(iter(EXACT.values()))["y"].size < LEAST
    judged = tried(tmp_path, 25, predicted, **more)
    assert "QUANTIZATION_BEYOND_ROUNDING" not in codes(judged)
    assert judged.stages.predicted == {}


def static(path: Path, found: float, variant: str = STATIC, **made: Any) -> TrialJudgement:
    archive = Archive(path, variant, reference=EXACT)
    archive.save(REFERENCE, "reference", EXACT, moved=moved(50.0, "tensors"))
    archive.made(variant, **{"facts": FileFacts(static_tensors=3)} | made)
    archive.on_device(HOST, variant, all_off(EXACT, found), memory_mode="normal")
    return only(archive)


def test_static_int8_has_a_wider_margin_and_a_warning(tmp_path: Path) -> None:
    """For its calibrator may clip on purpose."""
    assert codes(static(tmp_path / "within", 51 - STATIC_MARGIN_DB)) == []
    beyond = static(tmp_path / "beyond", 49 - STATIC_MARGIN_DB)
    assert [(each.code, each.severity) for each in beyond.findings] == [("QUANTIZATION_BEYOND_ROUNDING", "warn")]
    assert beyond.verdict is Verdict.PASS


def test_of_static_int8_whose_error_has_another_name_nothing_is_claimed(tmp_path: Path) -> None:
    far = 45 - STATIC_MARGIN_DB
    assert "QUANTIZATION_BEYOND_ROUNDING" not in codes(static(tmp_path / "kl", far, "kl"))  # MNN's own, as it sees fit
    ranges = (Finding(code="CALIBRATION_RANGE", severity="warn", message="m"),)
    assert codes(static(tmp_path / "ranges", far, findings=ranges)) == ["CALIBRATION_RANGE"]
    pools = static(tmp_path / "pools", far, facts=FileFacts(static_tensors=3, max_pools=("p",)))
    assert "QUANTIZATION_BEYOND_ROUNDING" not in codes(pools)
