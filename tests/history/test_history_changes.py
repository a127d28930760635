"""Changes of level: found where there are some, and rarely where there are none."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgequant.history.changes import LEVEL, MOST, change_points


def places(values: np.ndarray) -> list[int]:
    return [each.place for each in change_points(values.tolist(), rounds=499)]


@pytest.mark.parametrize("kind", ["normal", "lognormal", "t2", "rounded", "rare"])
def test_the_rate_of_false_alarms(kind: str) -> None:
    rng = np.random.default_rng(5)
    draw = {
        "normal": lambda: rng.normal(size=20),
        "lognormal": lambda: rng.lognormal(sigma=1, size=20),
        "t2": lambda: rng.standard_t(2, size=20),
        "rounded": lambda: np.round(rng.normal(size=20)),
        "rare": lambda: (rng.random(20) < 0.1).astype(float),
    }[kind]
    alarms = sum(bool(places(draw())) for _ in range(200))
    assert alarms <= 200 * LEVEL + 4 * (200 * LEVEL) ** 0.5


def test_a_change_is_found_where_it_is() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(30):
        values = rng.normal(size=40)
        values[25:] += 4
        found.append(places(values))
    assert sum(any(abs(place - 25) <= 1 for place in each) for each in found) >= 28
    assert sum(len(each) == 1 for each in found) >= 26


def test_two_changes_and_their_levels() -> None:
    values = np.concatenate([np.full(10, 8.0), np.full(12, 9.0), np.full(10, 7.5)])
    values += np.random.default_rng(2).normal(scale=0.05, size=len(values))
    one, two = change_points(values.tolist())
    assert (one.place, two.place) == (10, 22)
    assert (one.before, one.after, two.after) == pytest.approx((8, 9, 7.5), abs=0.05)
    assert one.after == two.before
    assert one.p <= LEVEL


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 50, [1.0, 2.0] * 4, [1.0] * 4 + [2.0] * 4])
def test_none(values: list[float]) -> None:
    assert change_points(values) == []


def test_five_and_five_are_enough() -> None:
    assert [each.place for each in change_points([1.0] * 5 + [2.0] * 5)] == [5]
    # One wild value is no level.
    assert change_points([1.0] * 9 + [1e9] + [1.0] * 9) == []


def test_the_same_values_give_the_same_changes() -> None:
    values = np.random.default_rng(3).normal(size=60).cumsum().tolist()
    assert change_points(values) == change_points(values)


def test_a_long_series_takes_no_time() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=20_000)
    values[-100:] += 5
    before = time.process_time()
    found = change_points(values.tolist())
    assert any(abs(each.place - 19_900) <= 5 for each in found)
    assert all(each.place > 20_000 - MOST for each in found)
    assert time.process_time() - before < 10
