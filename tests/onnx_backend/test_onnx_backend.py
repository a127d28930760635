"""ONNX's backend tests: the product's verdict is what an own run of MNN says, and its exit code blames the right side.

A night takes each of them once, with its own outputs as the reference or without, turn about; `python -m
tests.onnx_backend` takes both.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from tests.onnx_backend.examples import examples
from tests.onnx_backend.kept import kept_outcome
from tests.onnx_backend.outcome import Outcome, own_runs
from tests.onnx_backend.truth import difference

PARTS = 40
"""The processes of xdist get one after another."""
KNOWN = {
    tuple(line.split("#")[0].split(None, 2)[:2]): line
    for line in (Path(__file__).parent / "known.txt").read_text("utf-8").splitlines()
    if line.strip() and not line.startswith("#")
}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_verdicts_are_true(part: int) -> None:
    night = datetime.date.today().toordinal()
    with own_runs() as truth:
        found = [
            kept_outcome(each, truth, reference=bool((number + night) % 2))
            for number, each in list(enumerate(examples().values()))[part::PARTS]
        ]
    astray = {_key(each): f"{each.name}: {each.deviation} ({each.code}; {each.truth}; {each.said})" for each in found
              if each.deviation}  # fmt: skip
    unknown = [said for key, said in astray.items() if key not in KNOWN]
    mended = [key for key in map(_key, found) if key in KNOWN and key not in astray]
    assert (unknown, mended) == ([], [])


def _key(outcome: Outcome) -> tuple[str, ...]:
    return outcome.name, "given" if outcome.reference else "own"


def test_what_counts_as_wrong() -> None:
    one = np.array([1.0, np.inf, -np.inf, np.nan, 1000.0], np.float32)
    assert difference(one, one) == ""
    assert difference(one, one + np.array([1e-3, 0, 0, 0, 0.9], np.float32)) == ""
    for other in (one + 2e-3, -one, one[::-1], one.reshape(1, 5), np.nan_to_num(one)):
        assert difference(one, other)
    assert difference(np.array([1, 2]), np.array([1, 3]))
    assert difference(np.array([1, 2]), np.array([1.0, 2.0]))
    assert difference(np.array([True]), np.array([1])) == ""
    assert difference(np.array(1.0), np.array([1.0]))


def test_deviations_have_names() -> None:
    def deviation(exit_code: int, truth: str, code: str = "X", seconds: float = 1.0) -> str:
        return Outcome("t", True, exit_code, code, seconds, truth, cpu=seconds).deviation

    assert deviation(0, "right") == deviation(1, "y: 1 of 2 differ") == deviation(2, "right") == ""
    assert deviation(0, "unknown") == deviation(4, "right") == ""
    assert deviation(0, "y: 1 of 2 differ") == "PASS, but wrong"
    assert deviation(1, "right") == "FAIL, but right"
    assert deviation(3, "signal 11") == "exit 3"
    assert deviation(2, "right", seconds=61) == "slow"
    assert Outcome("t", True, 2, "X", 61, "right", cpu=2).deviation == ""
    assert deviation(1, "wrong", "INTERNAL_ERROR") == "bug"
