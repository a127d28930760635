"""What `bench` is asked beside latencies: options that make no sense are refused before anything is measured."""

from __future__ import annotations

import pytest

from edgequant.cli.laboratory import request
from edgequant.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds", "period"),
    [("10m", 600, 60), ("30s", 30, 3), ("90", 90, 9), ("1.5h", 5400, 60), ("24h", 86400, 86.4), ("1s", 1, 0.1)],
)
def test_how_long_and_in_what_steps(text: str, seconds: float, period: float) -> None:
    asked = request(None, None, text, False)
    assert asked.sustain == seconds
    assert asked.period == pytest.approx(period)


@pytest.mark.parametrize("text", ["", "0", "0s", "25h", "ten", "10 minutes", "-5m", "1e9", "5d"])
def test_no_time_at_all(text: str) -> None:
    with pytest.raises(InputError, match="not a time"):
        request(None, None, text, False)


@pytest.mark.parametrize("name", ["", "Fast", "a b", "../x", "p" * 40])
def test_no_governor_at_all(name: str) -> None:
    with pytest.raises(InputError, match="no governor"):
        request(name, None, None, False)


def test_nothing_is_asked_by_default() -> None:
    asked = request(None, None, None, False)
    assert (asked.governor, asked.cool_below, asked.sustain, asked.per_op) == (None, None, None, False)
    assert request("performance", 45.0, None, True).governor == "performance"
