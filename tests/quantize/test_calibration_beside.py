"""Calibration samples beside the cases: ranges that differ, and samples that are cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.case import Case
from edgequant.quantize.calibration import CalibrationOptions, CalibrationSet, load_calibration
from edgequant.quantize.calibration_beside import beside
from edgequant.tensors import TensorSpec
from tests.quantize.support import folder_of

X = (TensorSpec("x", "float32", (1, None)),)
RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.uniform(-1, 1, (1, 500)).astype(np.float32) for _ in range(8)]


def cases(arrays: list[np.ndarray]) -> list[Case]:
    return [Case(f"c{number}", {"x": array}, "file") for number, array in enumerate(arrays)]


def samples(path: Path, arrays: list[np.ndarray]) -> CalibrationSet:
    path.mkdir(exist_ok=True)
    folder = folder_of(path / "data", *({"x": array} for array in arrays))
    return load_calibration(folder, X, work=path, options=CalibrationOptions())


@pytest.mark.parametrize(
    "change",
    [
        lambda x: (x + 1) * 127.5,  # never divided
        lambda x: x / 255,  # divided twice
        lambda x: (x + 1) / 2,  # 0 to 1
        lambda x: x - 2,
        lambda x: x * 0.7,
    ],
)
def test_ranges_that_differ(tmp_path: Path, change: object) -> None:
    assert callable(change)
    given = [change(array).astype(np.float32) for array in PICTURES[:4]]
    (finding,) = beside(samples(tmp_path, given), cases(PICTURES[4:]))
    assert (finding.code, finding.severity, finding.where) == ("CALIBRATION_RANGE", "warn", "x")
    assert finding.evidence["cases"] == pytest.approx([-1, 1], abs=0.01)
    assert finding.evidence["calibration"] == pytest.approx([min(a.min() for a in given), max(a.max() for a in given)])
    assert "-1" in finding.message or "-0.9" in finding.message


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x * 1.1, lambda x: x * 3, lambda x: x * 0.95])
def test_the_same_kind_of_data(tmp_path: Path, change: object) -> None:
    assert callable(change)
    given = [change(array).astype(np.float32) for array in PICTURES[:4]]
    assert beside(samples(tmp_path, given), cases(PICTURES[4:])) == []


def test_normal_noise_has_tails(tmp_path: Path) -> None:
    noise = [RANDOM.standard_normal((1, 50)).astype(np.float32) for _ in range(12)]
    assert beside(samples(tmp_path, noise[:4]), cases(noise[4:])) == []


def test_samples_that_are_cases_under_other_names(tmp_path: Path) -> None:
    found = beside(samples(tmp_path, PICTURES[:6]), cases(PICTURES[4:]))
    assert [each.code for each in found] == ["CALIBRATED_ON_CASES"]
    assert "2 of 4 cases" in found[0].message
    whole = beside(samples(tmp_path / "b", PICTURES), cases(PICTURES))
    assert "very cases" in whole[0].message
    assert [each.evidence["all"] for each in (*found, *whole)] == [False, True]


def test_samples_that_are_one(tmp_path: Path) -> None:
    assert [each.code for each in samples(tmp_path / "a", PICTURES[:1] * 4).findings] == ["CALIBRATION_IDENTICAL"]
    assert samples(tmp_path / "b", [PICTURES[0], PICTURES[0], PICTURES[1]]).findings == ()
