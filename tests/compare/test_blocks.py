"""Statistics of blocks: intervals that cover, differences that are found, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.compare.blocks import Estimate, corrected, estimates, percentile, ratio, spreads, student

TABLE = {(1, 0.95): 12.706, (2, 0.95): 4.303, (4, 0.95): 2.776, (4, 0.99): 4.604, (6, 0.99): 3.707, (30, 0.95): 2.042,
         (3, 0.999): 12.924, (120, 0.95): 1.980}  # fmt: skip


@pytest.mark.parametrize(("freedom", "level"), TABLE)
def test_students_t(freedom: int, level: float) -> None:
    assert student(level, freedom) == pytest.approx(TABLE[freedom, level], abs=5e-4)


def session(random: np.random.Generator, blocks: int, mean: float = 10.0) -> list[list[float]]:
    """Blocks that differ by 1.5 % among each other, with skewed samples of 5 % in each."""
    middles = mean * np.exp(0.015 * random.standard_normal(blocks))
    return [list(middle * (0.95 + random.gamma(1.0, 0.05, 60))) for middle in middles]


def truth(mean: float = 10.0) -> float:
    """p50 of such a block, in the middle of all blocks."""
    return mean * (0.95 + 0.05 * float(np.log(2.0)))


@pytest.mark.parametrize("blocks", [3, 7])
def test_intervals_cover_as_often_as_they_say(blocks: int) -> None:
    random = np.random.default_rng(blocks)
    inside = 0
    for _ in range(1000):
        found = estimates(session(random, blocks))["p50"]
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth() <= found.high
    assert 930 <= inside <= 970


def test_a_thing_is_seldom_other_than_itself_and_three_percent_are_seen() -> None:
    random = np.random.default_rng(1)
    called = seen = 0
    for _ in range(300):
        same = ratio(session(random, 7), session(random, 7), 0.99)
        assert same.low is not None
        assert same.high is not None
        called += not same.low <= 1 <= same.high
        # Blocks taken beside each other share what the machine is like just then.
        one = session(random, 20)
        apart = 1.03 * np.exp(0.01 * random.standard_normal(20))
        other = [[by * sample for sample in block] for by, block in zip(apart, one, strict=True)]
        found = ratio(one, other, 0.99)
        assert found.low is not None
        seen += found.low > 1
    assert called <= 8  # 3 of 300 are to be expected
    assert seen >= 285


def test_several_comparisons_hold_together() -> None:
    assert corrected(0.99, 1) == pytest.approx(0.99)
    assert corrected(0.99, 10) == pytest.approx(0.999)
    assert corrected(0.99, 0) == pytest.approx(0.99)


def test_numbers() -> None:
    block = [float(each) for each in range(1, 101)]
    found = estimates([block, block])
    assert found["p50"].value == pytest.approx(50.5)
    assert found["p90"].value == pytest.approx(float(np.percentile(block, 90)))
    assert found["p99"].value == pytest.approx(float(np.percentile(block, 99)))
    assert found["trimmed"].value == pytest.approx(50.5)
    assert found["p50"].half == pytest.approx(0.0)
    assert "p99" not in estimates([block, block[:99]])
    assert "p90" not in estimates([block[:9]])
    whole = spreads([block, block])
    assert (whole["n"], whole["min"], whole["max"]) == (200, 1, 100)
    assert whole["stdev"] == pytest.approx(float(np.std([*block, *block], ddof=1)))
    assert whole["mad"] == pytest.approx(1.4826 * 25.0)
    assert whole["cv"] == pytest.approx(whole["stdev"] / 50.5)


def test_one_block_has_no_interval() -> None:
    found = estimates([[1.0, 2.0]])["p50"]
    assert found == Estimate(1.5)
    assert found.half is None
    assert ratio([[1.0]], [[2.0]], 0.99).value == pytest.approx(2.0)


def test_one_sample() -> None:
    assert spreads([[2.0]]) == {"n": 1, "min": 2, "max": 2, "stdev": 0, "mad": 0, "cv": 0}
    assert percentile([3.0], 0.9) == 3.0
