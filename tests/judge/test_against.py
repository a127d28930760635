"""A bench against an earlier one: what has changed is found, what cannot be compared is not, and says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.bench import Bench
from edgequant.compare.blocks import Ratio, of_two_sessions
from edgequant.judge.against import AgainstDevice, told_of
from edgequant.judge.bench_run import judge_folder
from edgequant.spec import RunOptions
from tests.judge.benches import BOARD, URI, BenchMade, blocks, simple


def against(now: Bench) -> AgainstDevice:
    found = judge_folder(now).devices[0].against
    assert found is not None
    return found


@pytest.mark.parametrize(("ms", "says"), [(10.0, "same"), (10.6, "slower"), (9.4, "faster"), (10.15, "same")])
def test_what_has_changed(ms: float, says: str, tmp_path: Path) -> None:
    before = simple(tmp_path / "a", seed=3)
    found = against(simple(tmp_path / "b", ms, seed=7, baseline=before))
    (one, two) = found.settings
    assert one.says == two.says == says
    assert one.ratio is not None
    assert one.ratio.value == pytest.approx(ms / 10, rel=0.01)
    assert one.blocks == (7, 7)
    assert one.same_file
    assert [each.code for each in found.findings] == (["SLOWER_THAN_BASELINE"] * 2 if says == "slower" else [])
    assert "not taken in turn" in found.notes[0]


def test_the_baselines_spread_counts(tmp_path: Path) -> None:
    """6 % more is none where the baseline itself went up and down by more."""
    made = BenchMade(tmp_path / "a", within=0.5)
    before = made.device({"float": list(blocks(10.0, 7, spread=0.08, seed=5))}).close()
    made = BenchMade(tmp_path / "b")
    found = against(made.device({"float": list(blocks(10.6, 7, seed=6))}).close(baseline=before))
    assert found.settings[0].says == "unclear"
    assert not found.findings


def changed(path: Path, before: Bench, device: dict[str, Any] | None = None, **plan: Any) -> AgainstDevice:
    made = BenchMade(path, **plan)
    return against(made.device({"float": list(blocks(10.0, 7))}, **(device or {})).close(baseline=before))


@pytest.mark.parametrize(
    ("device", "plan", "why"),
    [
        ({"threads": 4}, {}, "2 threads then, and with 4 now"),
        ({"shape": (1, 16)}, {}, "another case: input x was 1x8, and is 1x16"),
        ({"values": 2}, {}, "the numbers of input x are others"),
        ({}, {"options": RunOptions(precision="low")}, "another --precision: it was normal, and is low"),
        ({}, {"options": RunOptions(cores=(4, 5))}, r"another --cores: it was None, and is \(4, 5\)"),
    ],
)  # fmt: skip
def test_what_is_not_the_same_is_not_compared(
    device: dict[str, Any], plan: dict[str, Any], why: str, tmp_path: Path
) -> None:
    found = changed(tmp_path / "b", simple(tmp_path / "a"), device, **plan)
    (one,) = found.settings
    assert one.says == "not compared"
    assert one.ratio is None
    assert re.search(why, one.why or "")
    assert found.missing == ("dynamic:8",)


def test_another_device_behind_the_same_address(tmp_path: Path) -> None:
    before = simple(tmp_path / "a")
    other = [
        each.model_copy(update={"device": BOARD.model_copy(update={"cpu": "Cortex-A55"})}) for each in blocks(10.0, 7)
    ]
    found = against(BenchMade(tmp_path / "b").device({"float": other}).close(baseline=before))
    assert found.settings[0].why == "another device: cpu was Cortex-A76, and is Cortex-A55"


def test_another_memory_mode_and_another_name(tmp_path: Path) -> None:
    made = BenchMade(tmp_path / "a").device({"x low": list(blocks(10.0, 7))})
    before = made.close()
    record = before.device(URI)
    assert record is not None
    normal = record.settings[0].model_copy(update={"memory": "normal"})
    now = BenchMade(tmp_path / "b").device({"x low": list(blocks(10.0, 7)), "y": list(blocks(10.0, 7, seed=2))})
    record = record.model_copy(
        update={"settings": (normal, normal.model_copy(update={"name": "y", "file": "y", "base": normal.name}))}
    )
    now.folder.save_record("measured/" + next((tmp_path / "b" / "measured").glob("*.json")).stem, record)
    one, two = against(now.close(baseline=before)).settings
    assert one.why == "it ran with memory low then, and with memory normal now"
    assert two.why == "the baseline has no setting of that name"


def test_numbers_that_are_not_valid_are_not_compared(tmp_path: Path) -> None:
    before = BenchMade(tmp_path / "a").device({"float": list(blocks(10.0, 2))}).close()
    found = against(BenchMade(tmp_path / "b").device({"float": list(blocks(10.0, 7))}).close(baseline=before))
    assert found.settings[0].why == "the baseline's numbers are not valid (TOO_FEW_BLOCKS)"
    now = BenchMade(tmp_path / "c").device({"float": list(blocks(10.0, 2))})
    found = against(now.close(baseline=simple(tmp_path / "d")))
    assert found.settings[0].why == "the numbers are not valid (TOO_FEW_BLOCKS)"


def test_a_cpu_that_is_not_as_fast_as_it_was_is_no_slower_model(tmp_path: Path) -> None:
    """Everything takes 8 % longer, the known work too: that is the device."""
    before = simple(tmp_path / "a")
    work: dict[str, Any] = {"work_ms": (2.16, 2.16, 2.16)}
    now = BenchMade(tmp_path / "b").device({"float": list(blocks(10.8, 7, **work))}).close(baseline=before)
    (found,) = against(now).settings
    assert found.says == "unclear"
    assert found.why is not None
    assert "known work took 1.08 times as long" in found.why


def test_how_often_the_same_is_called_different() -> None:
    """Of 2,000 pairs of sessions of 7 blocks at most 1 %; 6 % more is found in all, or unclear, and never the same."""
    draw = np.random.default_rng(1)
    said: dict[str, int] = {}
    for _ in range(2000):
        one, two = np.exp(0.015 * draw.standard_normal((2, 7)))
        word = told_of(of_two_sessions(list(one), list(two), 0.99), 0.03)
        said[word] = said.get(word, 0) + 1
    assert said.get("slower", 0) + said.get("faster", 0) <= 20, said
    found: dict[str, int] = {}
    for _ in range(500):
        one, two = np.exp(0.01 * draw.standard_normal((2, 7)))
        word = told_of(of_two_sessions(list(one), list(1.06 * two), 0.99), 0.03)
        found[word] = found.get(word, 0) + 1
    assert found["slower"] >= 475, found
    assert set(found) <= {"slower", "unclear"}


def test_one_block_tells_nothing() -> None:
    found = of_two_sessions([10.0], [11.0, 11.0], 0.99)
    assert (found.low, found.high) == (None, None)
    assert told_of(found, 0.03) == "unclear"
    assert told_of(Ratio(1.05, 1.01, 1.09), 0.03) == "slower"
    assert told_of(Ratio(1.02, 1.01, 1.05), 0.03) == "unclear"
    assert told_of(Ratio(1.02, 1.01, 1.025), 0.03) == "same"
