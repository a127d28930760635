"""What keeps a run from proving anything: no independent reference, the model's own output, limits that keep all."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.archive.types import ReferenceFacts
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from tests.judge.archives import HOST, TRUE, Archive, all_off, codes, only


def said(code: str, severity: str = "error") -> Finding:
    return Finding(code=code, severity=severity, message="something is wrong")


@pytest.mark.parametrize(
    ("code", "severity", "db", "verdict"),
    [
        ("CONVERSION_UNCHECKED", "error", 60, Verdict.INCONCLUSIVE),
        ("CONVERSION_UNCHECKED", "warn", 60, Verdict.PASS),  # of a .mnn
        ("CONVERSION_NOT_REPRODUCIBLE", "error", 60, Verdict.INCONCLUSIVE),
        ("CONVERSION_UNCHECKED", "error", 3, Verdict.FAIL),  # beyond all limits all the same
        ("REFERENCE_OF_OTHER_CASE", "error", 3, Verdict.INCONCLUSIVE),  # that is no fault of the model
    ],
)
def test_an_error_about_the_model_leaves_no_pass(
    tmp_path: Path, code: str, severity: str, db: float, verdict: Verdict
) -> None:
    archive = Archive(tmp_path, "dynamic:8", source={"findings": (said(code, severity),)})
    archive.tried(HOST, "dynamic:8", all_off(TRUE, db))
    assert only(archive).verdict is verdict


@pytest.mark.parametrize(("kind", "own"), [("file", True), ("onnxruntime", False)])
def test_the_quantized_model_s_own_output_as_the_reference(tmp_path: Path, kind: str, own: bool) -> None:
    archive = Archive(
        tmp_path, "dynamic:8", float_host=all_off(TRUE, 30), source={"reference": ReferenceFacts(kind=kind)}
    )
    archive.tried(HOST, "dynamic:8", TRUE)
    trial = only(archive)
    assert ("REFERENCE_IS_MODELS_OWN" in codes(trial)) is own
    assert trial.verdict is (Verdict.INCONCLUSIVE if own else Verdict.PASS)


@pytest.mark.parametrize(
    ("limits", "severity", "verdict"),
    [
        (("sqnr_db>=-200", "cosine>=-1", "rel_max<=5"), "error", Verdict.INCONCLUSIVE),
        (("sqnr_db>=-200", "cosine>=-1"), "warn", Verdict.FAIL),  # rel_max is left
        (("sqnr_db>=1", "cosine>=0.1", "rel_max<=0.9"), None, Verdict.PASS),
        (("sqnr_db>=1", "cosine>=0.1", "rel_max<=0.9", "max_abs<=100"), "warn", Verdict.PASS),
    ],
)
def test_limits_that_zeros_would_keep(
    tmp_path: Path, limits: tuple[str, ...], severity: str | None, verdict: Verdict
) -> None:
    archive = Archive(tmp_path, "dynamic:2", limits=limits)
    archive.tried(HOST, "dynamic:2", all_off(TRUE, 5))
    trial = only(archive)
    assert trial.verdict is verdict
    found = [each for each in trial.findings if each.code == "LIMIT_KEEPS_ANYTHING"]
    assert [each.severity for each in found] == ([] if severity is None else [severity])
