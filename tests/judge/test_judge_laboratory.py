"""Long runs, energy and operators: what is told of them, and what speaks against it."""

from __future__ import annotations

from typing import Any

import pytest

from edgequant.archive.laboratory import OperatorCapture, OperatorsCapture, PeriodCapture, SustainCapture
from edgequant.archive.timing import ConditionsCapture, EnergyCapture, GovernorCapture, TimingCapture
from edgequant.judge.laboratory import energy, findings, operator_times, sustained


def noted(after: float, **changed: Any) -> ConditionsCapture:
    sound = {"up": 1000.0 + after, "wall": 5000.0 + after, "own": 3.0 + after, "busy": 40.0 + after, "cpus": 2,
             "celsius": 40.0 + after / 30, "mhz": (1800.0 - after / 2,), "governor": "schedutil"}  # fmt: skip
    return ConditionsCapture.model_validate({**sound, **changed})


def period(number: int, p50: float, seconds: float = 60.0, **changed: Any) -> PeriodCapture:
    return PeriodCapture(
        at=60.0 * number, seconds=seconds, n=100, mean=p50, min=p50, max=p50, p50=p50, p90=p50, cpu=p50, work_ms=2.0,
        conditions=noted(60.0 * number + seconds, **changed),
    )  # fmt: skip


def run(*p50: float, complete: bool = True, **changed: Any) -> SustainCapture:
    periods = [period(number, ms) for number, ms in enumerate(p50[:-1])]
    periods.append(period(len(p50) - 1, p50[-1], **changed))
    return SustainCapture(asked=60.0 * len(p50), begun=noted(0.0), periods=tuple(periods), complete=complete)


@pytest.mark.parametrize(
    ("p50", "says"),
    [((10, 10.2, 10.1), "holds"), ((10, 11, 12.5), "slower"), ((13, 11, 10), "faster"), ((10,), "unclear")]
)  # fmt: skip
def test_first_against_last(p50: tuple[float, ...], says: str) -> None:
    found = sustained(run(*p50), 2)
    assert found.says == says
    if len(p50) > 1:
        assert found.ratio == pytest.approx(p50[-1] / p50[0])
        assert found.slowest == pytest.approx(max(p50) / p50[0])


def test_heat_and_frequency_are_what_it_is_about() -> None:
    found = sustained(run(10, 11, 12.5, cooled=2.0), 2)
    assert not found.against
    assert found.celsius == (40.0, 42.0, 44.0, 46.0)
    assert found.mhz == (1800.0, 1770.0, 1740.0, 1710.0)


def test_a_last_period_that_was_cut_short_is_not_compared() -> None:
    found = sustained(run(10, 10.1, 30, seconds=3.0), 2)
    assert found.ratio == pytest.approx(1.01)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"busy": 40.0 + 180 + 90}, "OTHERS_RUNNING"),
        ({"wall": 9000.0}, "CLOCK_JUMPED"),
        ({"governor": "performance"}, "GOVERNOR_CHANGED"),
        ({"battery": 3}, "BATTERY_LOW"),
    ],
)
def test_what_speaks_against_it(changed: dict[str, Any], code: str) -> None:
    found = sustained(run(10, 11, 12.5, **changed), 2)
    assert [name for name, _ in found.against] == [code]
    assert found.says == "unclear"


def test_one_that_was_interrupted_says_so() -> None:
    found = sustained(run(10, 11, complete=False), 2)
    assert found.against[0] == ("NOT_FINISHED", "it ended after 120 of 120 s")
    assert found.ratio == pytest.approx(1.1)
    assert sustained(SustainCapture(asked=60.0), 2).says == "unclear"


def block(n: int, **spent: Any) -> TimingCapture:
    return TimingCapture(case="middle", samples_ms=(10.0,) * n, energy=EnergyCapture(**spent))


def test_energy_of_an_inference_over_blocks() -> None:
    blocks = [block(100, joules=joules, sensor="x", readings=2) for joules in (2.0, 2.1, 1.9)]
    found = energy(blocks)
    assert found.mj is not None
    assert found.mj.value == pytest.approx(20.0)
    assert found.mj.low is not None
    assert found.mj.low < 20 < (found.mj.high or 0)


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ([block(10, why="it is plugged in")] * 3, "it is plugged in"),
        ([block(10, joules=1.0, sensor="x")] * 2, "2 blocks have it; 3 are needed"),
        ([block(10, joules=1.0, sensor=name) for name in "xyz"], "blocks were read from different sensors"),
        ([], "0 blocks have it; 3 are needed"),
    ],
)
def test_why_there_is_no_energy(blocks: list[TimingCapture], why: str) -> None:
    found = energy(blocks)
    assert (found.mj, found.why) == (None, why)


def test_operators_add_up_by_type() -> None:
    times = [("a", "Convolution", 3.0), ("b", "Raster", 1.0), ("c", "Convolution", 4.0)]
    capture = OperatorsCapture(
        runs=5, plain_ms=8.1, watched_ms=8.5,
        operators=tuple(OperatorCapture(name=name, type=kind, ms=ms) for name, kind, ms in times),
    )  # fmt: skip
    found = operator_times(capture)
    assert [(each.type, each.count, each.ms, each.share) for each in found.kinds] == [
        ("Convolution", 2, 7.0, 7 / 8), ("Raster", 1, 1.0, 1 / 8),
    ]  # fmt: skip
    assert found.odd is None
    assert "0.40 times" in (operator_times(capture.model_copy(update={"plain_ms": 20.0})).odd or "")
    assert operator_times(OperatorsCapture(why="subgraphs")).total == 0


def test_what_is_found() -> None:
    refused = GovernorCapture(asked="performance", set=False, was={"schedutil": (0, 1)}, why="Permission denied")
    told = findings(refused, {"float": sustained(run(10, 12), 2), "int8": sustained(run(10, 10), 2)}, ["mixed"])
    assert [each.code for each in told] == ["GOVERNOR_NOT_SET", "CLUSTERS_MIXED", "SUSTAINED_SLOWER"]
    assert told[0].message == "the CPU frequency governor is not performance but schedutil: Permission denied"
    assert told[2].where == "float"
    assert findings(refused.model_copy(update={"set": True}), {}, []) == []
