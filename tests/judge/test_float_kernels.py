"""The same file with memory normal on both sides: what is no rounding to int8 shows there, in every case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import FileFacts
from edgequant.judge.verdict import Verdict
from edgequant.spec import RunOptions
from tests.judge.archives import BOARD, HOST, TRUE, WAVE, Archive, all_off, codes, off, only, sqnr

LOW = all_off(TRUE, 40)
"""What comes out with memory low, on both sides: alike to the last bit."""


def dynamic(
    path: Path, here: Any, there: Any, *, facts: FileFacts | None = None, low: Any = LOW, **asked: Any
) -> Archive:
    """A dynamic variant whose outputs with memory normal are these."""
    archive = Archive(path, "dynamic:8", devices=(BOARD,), **asked)
    archive.made("dynamic:8", facts=facts or FileFacts(weights="quantized"))
    archive.on_host("dynamic:8", low, memory_mode="low", normal=here)
    archive.on_device(BOARD, "dynamic:8", low, normal=there)
    return archive


def test_what_float_kernels_leave_is_no_difference(tmp_path: Path) -> None:
    archive = dynamic(tmp_path, TRUE, all_off(TRUE, 61))
    assert (only(archive).verdict, codes(only(archive))) == (Verdict.PASS, [])
    assert set(only(archive).stages.kernels["y"]) == {"a", "b"}


def test_another_file_or_kernel_shows_although_low_memory_hides_it(tmp_path: Path) -> None:
    archive = dynamic(tmp_path, TRUE, {"a": TRUE["a"], "b": {"y": off(TRUE["b"]["y"], 59)}})
    trial = only(archive)
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["FILE_OR_KERNEL_DIFFERS"])
    (finding,) = trial.findings
    assert (finding.severity, finding.where) == ("fail", "y")
    assert "only 59 dB SQNR between them in y, case 'b', where rounding leaves at least 60 dB:" in finding.message
    assert [(each["output"], each["case"]) for each in finding.evidence["found"]] == [("y", "b")]
    assert finding.evidence["found"][0]["bound"] == 60.0
    assert finding.remedy is not None
    assert "device_sqnr_db" in finding.remedy
    worse = dynamic(tmp_path / "worse", TRUE, {"a": {"y": off(WAVE, 10)}, "b": {"y": off(TRUE["b"]["y"], 59)}})
    (finding,) = only(worse).findings
    assert "only 10 dB SQNR between them in y, case 'a'" in finding.message
    assert ", and 1 more: " in finding.message


def test_the_users_own_limit_and_precision_low_take_the_place_of_the_band(tmp_path: Path) -> None:
    far = all_off(TRUE, 31)
    assert codes(only(dynamic(tmp_path, TRUE, far))) == ["FILE_OR_KERNEL_DIFFERS"]
    assert codes(only(dynamic(tmp_path / "asked", TRUE, far, limits=("device_sqnr_db>=30",)))) == []
    low = codes(only(dynamic(tmp_path / "low", TRUE, far, options=RunOptions(precision="low"))))
    assert low == ["PRECISION_LOW_INEFFECTIVE"]
    near = dynamic(tmp_path / "more", TRUE, all_off(TRUE, 70), limits=("y:device_sqnr_db>=80",), low=TRUE)
    assert "FILE_OR_KERNEL_DIFFERS" in codes(only(near))


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"y": np.full_like(WAVE, np.nan)}, "64 NaN and 0 Inf in y"),
        ({"y": WAVE[:3]}, "another shape in y"),
        ({"y": WAVE.astype(np.int32)}, "another dtype in y"),
        ({}, "one of them is missing in y"),
    ],
)
def test_what_cannot_be_compared_is_a_difference(tmp_path: Path, there: Any, said: str) -> None:
    (finding,) = only(dynamic(tmp_path, TRUE, TRUE | {"a": there})).findings
    assert finding.code == "FILE_OR_KERNEL_DIFFERS"
    assert said in finding.message


def test_whole_numbers_have_to_be_equal_and_what_is_near_nothing_may_differ(tmp_path: Path) -> None:
    labels = np.arange(64, dtype=np.int32)
    whole = {"a": {"y": WAVE, "n": labels, "s": np.full(64, 1e-7, np.float32), "z": np.zeros(64, np.float32)}}
    more: dict[str, Any] = {"reference": whole, "low": whole | {"a": whole["a"] | {"y": off(WAVE, 40)}}}
    little = {"a": whole["a"] | {"s": np.full(64, 9e-7, np.float32), "z": np.full(64, 9e-7, np.float32)}}
    assert "FILE_OR_KERNEL_DIFFERS" not in codes(only(dynamic(tmp_path, whole, little, **more)))
    for name, other, said in (
        ("n", np.where(labels == 5, 4, labels), "1.56% of the whole numbers differ in n, case 'a', where rounding "
         "leaves at most 0.00%"),
        ("z", np.full(64, 2e-6, np.float32), "up to 2e-06 in place of zeros in z"),
        ("s", np.full(64, 2e-6, np.float32), "only -25.58 dB SQNR between them in s"),
    ):  # fmt: skip
        trial = only(dynamic(tmp_path / name, whole, {"a": whole["a"] | {name: other}}, **more))
        assert said in next(each.message for each in trial.findings if each.code == "FILE_OR_KERNEL_DIFFERS")


def test_a_case_that_the_device_cannot_run_with_memory_normal_shows_nothing(tmp_path: Path) -> None:
    archive = dynamic(tmp_path, TRUE, TRUE | {"a": "no such kernel"})
    trial = only(archive)
    assert (trial.verdict, codes(trial)) == (Verdict.INCONCLUSIVE, ["FLOAT_KERNELS_UNCHECKED"])
    assert trial.findings[0].where == "a"
    assert "cannot run case 'a', which this host runs: no such kernel" in trial.findings[0].message
    # Where this host cannot either, nobody is to blame; the proof of low memory is that of a case that was run.
    archive = dynamic(tmp_path / "both", TRUE | {"a": "no"}, TRUE | {"a": "no"})
    assert (codes(only(archive)), only(archive).engaged.evidence["case"]) == ([], "b")
    # All of them: a difference in another case is graver.
    archive = dynamic(tmp_path / "worse", TRUE, {"a": "no", "b": {"y": WAVE}})
    assert codes(only(archive)) == ["FILE_OR_KERNEL_DIFFERS"]


def test_static_int8_and_older_runs_say_nothing_of_it(tmp_path: Path) -> None:
    static = FileFacts(weights="quantized", static_tensors=1)
    assert codes(only(dynamic(tmp_path, TRUE, all_off(TRUE, 30), facts=static))) == []
    # Before, a device ran one case, and this host none.
    older = dynamic(tmp_path / "older", {}, {"a": {"y": off(WAVE, 30)}})
    assert (codes(only(older)), only(older).verdict) == ([], Verdict.PASS)
    one = dynamic(tmp_path / "one", TRUE, {"a": {"y": off(WAVE, 30)}})
    assert codes(only(one)) == ["FILE_OR_KERNEL_DIFFERS"]


def test_what_rounding_weights_costs_and_what_rounding_activations_adds(tmp_path: Path) -> None:
    normal = all_off(TRUE, 30)
    for uri in (HOST, BOARD):
        archive = Archive(tmp_path / uri[:3], "dynamic:8", devices=(uri,))
        archive.made("dynamic:8", facts=FileFacts(weights="quantized"))
        archive.on_host("dynamic:8", TRUE, memory_mode="low", normal=normal)
        archive.on_device(uri, "dynamic:8", TRUE, normal=normal)
        trial = only(archive)
        assert sqnr(trial, "weights") == {"y": 30.0}
        assert trial.stages.activations["y"].values["sqnr_db"] == pytest.approx(30, abs=0.1)
        assert list(trial.stages.kernels) == ([] if uri == HOST else ["y"])
