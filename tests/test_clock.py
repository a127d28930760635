from __future__ import annotations

import time

import pytest

from edgequant.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ticks = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))  # each look at it is a second later
    return Clock()


def test_phases_add_up(clock: Clock) -> None:
    for _ in range(2):
        with clock.phase("convert"):
            pass
    assert clock.seconds == {"convert": 2.0}


def test_inner_phases_do_not_count_twice(clock: Clock) -> None:
    with clock.phase("device open"):  # 0 to 5
        with clock.phase("pack push"):  # 1 to 2
            pass
        with clock.phase("runner start"):  # 3 to 4
            pass
    assert clock.seconds == {"pack push": 1.0, "runner start": 1.0, "device open": 3.0}


def test_a_phase_that_fails_counts(clock: Clock) -> None:
    with pytest.raises(RuntimeError), clock.phase("device open"), clock.phase("pack push"):
        raise RuntimeError
    assert clock.seconds == {"pack push": 1.0, "device open": 2.0}
    with clock.phase("device open"):
        pass
    assert clock.seconds == {"pack push": 1.0, "device open": 3.0}
