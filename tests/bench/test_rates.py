"""python -m bench.rates: what it counts is what it says it counts."""

from __future__ import annotations

import re

from bench.rates import PLANTED, _judged, _slowed, simulated
from tests.judge.benches import blocks


def test_simulated_rates() -> None:
    found = {what: int(re.findall(r"([0-9]+) of 40", number)[0]) for what, number in simulated(40).items()}
    assert found["simulated: 95 % interval of p50, 7 blocks, holds the truth"] >= 33
    assert found["simulated: the same beside itself, 7 blocks, called different"] <= 3
    assert found["simulated: 3 % slower, 20 blocks beside each other"] >= 37


def test_a_session_and_what_is_planted_into_it() -> None:
    same = list(blocks(10.0, 7))
    taken = {"file": same, "copy": same}
    assert _judged(taken, 2, bear=False).says == "same"
    slow = _judged({**taken, "copy": [_slowed(each) for each in same]}, 2, bear=False)
    assert slow.says == "slower"
    assert abs(slow.compared.ratio.value - PLANTED) < 1e-9
