"""How captures are held against each other, and whether a file resembles its source."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import ArrayRef
from edgequant.compare.metrics import compare
from edgequant.findings import Finding
from edgequant.judge.resembles import file_resembles
from edgequant.judge.stages import Comparer, by_case, refused_cases
from edgequant.judge.types import NOTHING, Observed
from tests.judge.archives import TRUE, WAVE, all_off, capture, off

RANDOM = np.random.default_rng(1).standard_normal(64).astype(np.float32)


class Counting(MemoryArrays):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, ref: ArrayRef) -> np.ndarray:
        self.read.append(ref.sha256)
        return super().get(ref)


def test_the_same_two_arrays_are_compared_once() -> None:
    arrays = Counting()
    comparer = Comparer(arrays)
    one, other = arrays.put(WAVE), arrays.put(off(WAVE, 30))
    found = comparer.of(one, other)
    assert found == compare(WAVE, off(WAVE, 30))
    assert arrays.read == [other.sha256, one.sha256]
    assert comparer.of(arrays.put(WAVE.copy()), other) is found
    assert len(arrays.read) == 2
    # The other way round, against nothing and against itself are other questions.
    assert comparer.of(other, one) == compare(off(WAVE, 30), WAVE)
    assert comparer.of(one, None) == compare(WAVE, None)
    assert comparer.of(one, one).exact
    assert comparer.of(one, None) is comparer.of(one, None)


def test_outputs_are_compared_in_the_cases_that_both_have() -> None:
    arrays = MemoryArrays()
    comparer = Comparer(arrays)
    three = {case: {"y": WAVE, "z": WAVE} for case in "abc"}
    expected = capture(arrays, {"refused": "no", "not there": TRUE["a"], **three})
    got = capture(arrays, {"refused": TRUE["a"], "a": {"y": off(WAVE, 30)}, "b": "too large", "c": three["c"]})
    found = comparer.between(expected, got, ["y", "z"])
    assert {name: each.cases for name, each in found.items()} == {"y": 2, "z": 2}
    assert found["y"].values["sqnr_db"] == pytest.approx(30, abs=1e-3)
    assert found["y"].problems == {}
    assert found["z"].problems == {"a": "missing"}
    assert list(comparer.between(expected, got, {"z"})) == ["z"]
    assert comparer.between(expected, got, ()) == {}
    counted = comparer.between(expected, got, ["y"], refused=lambda case: case == "b")
    assert counted["y"].problems == {"b": "missing"}
    assert comparer.between(expected, got, ["y"], refused=lambda case: case == "a")["y"].problems == {}


def test_cases_by_name() -> None:
    found = capture(MemoryArrays(), {"a": TRUE["a"], "b": "too large", "c": ""})
    assert list(by_case(found)) == ["a", "b", "c"]
    assert by_case(found)["b"].refused == "too large"
    assert refused_cases(found) == {"b": "too large", "c": ""}
    assert refused_cases(None) == {}


def test_a_file_resembles_its_source_or_is_not_written() -> None:
    arrays = MemoryArrays()
    comparer = Comparer(arrays)
    cases = {"a": {"y": RANDOM}, "b": {"y": 2 * RANDOM}}
    reference = capture(arrays, cases)
    assert file_resembles(reference, capture(arrays, all_off(cases, 15)), comparer) == NOTHING
    (finding,) = file_resembles(reference, capture(arrays, all_off(cases, -10)), comparer).findings
    assert finding.message.startswith("the file does not compute what the source computes: ")
    assert finding.evidence["sqnr_db"] == pytest.approx(-10, abs=1e-3)
    assert file_resembles(reference, capture(arrays, all_off(cases, -10)), comparer) == Observed(
        (
            Finding(
                code="FILE_NOT_WRITTEN",
                severity="fail",
                where="y",
                message=finding.message,
                evidence={"case": "b", "sqnr_db": finding.evidence["sqnr_db"]},
                remedy="A file is written where each output has at least 1 dB SQNR in each case and 3 dB over all of "
                "them, is not stuck at one value and, where it holds whole numbers, differs in at most half of them.  "
                "Try dynamic:8 or fp16, and inputs like those the model is for.",
            ),
        )
    )


def test_a_file_that_cannot_run_a_case_does_not_resemble_its_source() -> None:
    arrays = MemoryArrays()
    comparer = Comparer(arrays)
    cases = {"a": {"y": RANDOM}, "b": {"y": 2 * RANDOM}}
    reference = capture(arrays, cases)
    for left in ({"a": {"y": RANDOM}}, {"a": {"y": RANDOM}, "b": "too large"}, {"a": {"y": RANDOM}, "b": {}}):
        (finding,) = file_resembles(reference, capture(arrays, left), comparer).findings
        assert finding.evidence["case"] == "b"
    # A case that the reference itself could not run proves nothing.
    partly = capture(arrays, {**cases, "c": "no"})
    assert file_resembles(partly, capture(arrays, {**cases, "c": {"y": RANDOM}}), comparer) == NOTHING
