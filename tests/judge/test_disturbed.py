"""Each disturbance, planted into a block that is sound: it is named, and the sound block is not accused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgequant.archive.timing import ConditionsCapture, PhoneCapture, Readied, TimingCapture
from edgequant.judge.disturbed import CAUSES, SESSION, SIGNS, Doubt, doubts, ranked

BASE = {"up": 1000.0, "wall": 5000.0, "own": 3.0, "busy": 40.0, "stolen": 1.0, "waiting": 2.0, "quota": 0.0,
        "mhz": (1800.0, 1800.0), "celsius": 40.0, "governor": "schedutil", "free_mb": 2000.0, "swapped_in": 5.0,
        "battery": 80, "charging": False,
        "cpus": 2, "mhz_most": (1800.0, 1800.0), "cooled": 0.0, "throttled": 7.0, "plugged": False}  # fmt: skip


def noted(after: float, **changed: Any) -> ConditionsCapture:
    """`after` so many seconds, two threads of ours having worked all the time."""
    later = {"up": 1000.0 + after, "wall": 5000.0 + after, "own": 3.0 + 2 * after, "busy": 40.0 + 2 * after}
    return ConditionsCapture.model_validate({**BASE, **later, **changed})


def block(**changed: Any) -> TimingCapture:
    samples = tuple(10.0 + 0.2 * (number % 7) for number in range(100))
    sound = {
        "case": "middle", "samples_ms": samples, "cpu_ms": tuple(1.9 * each for each in samples), "warmup": 50,
        "complete": True, "steady": True, "seconds": 2.2, "looped": 1.2, "work_ms": (2.6, 2.0, 2.02),
        "conditions": (noted(0.0), noted(0.6), noted(1.7)),
    }  # fmt: skip
    return TimingCapture.model_validate({**sound, **changed})


def codes(timing: TimingCapture, fastest: float | None = None) -> set[str]:
    return {doubt.code for doubt in doubts(timing, 2, fastest)}


def test_a_sound_block() -> None:
    assert codes(block(), 1.95) == set()
    assert codes(block(conditions=(), work_ms=(), cpu_ms=())) == set()


def last(**changed: Any) -> dict[str, Any]:
    return {"conditions": (noted(0.0), noted(0.6), noted(1.7, **changed))}


def readied(**how: Any) -> dict[str, Any]:
    return {"readied": Readied(**how)}


def slower_half() -> dict[str, Any]:
    samples = (10.0,) * 50 + (11.5,) * 50
    return {"samples_ms": samples, "cpu_ms": tuple(2 * each for each in samples)}


def two_sorts() -> dict[str, Any]:
    samples = tuple(10.0 + 0.01 * number + (5.0 if number % 5 < 2 else 0.0) for number in range(100))
    return {"samples_ms": samples, "cpu_ms": tuple(2 * each for each in samples), "seconds": 3.0, "looped": 1.4}


def passing(**changed: Any) -> dict[str, Any]:
    """In the middle of a block."""
    return {"conditions": (noted(0.0), noted(0.6), noted(1.1, **changed), noted(1.7))}


def stalled() -> dict[str, Any]:
    samples = (10.0,) * 99 + (300.0,)
    return {"samples_ms": samples, "cpu_ms": (20.0,) * 100, "seconds": 2.5, "looped": 1.5}


PLANTED: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "a program beside it": ("OTHERS_RUNNING", lambda: last(busy=40.0 + 3.4 + 1.1)),
    "a tenth of a CPU beside it": ("OTHERS_RUNNING", lambda: last(busy=40.0 + 3.4 + 0.2)),
    "the hypervisor": ("CPU_STOLEN", lambda: last(stolen=1.2)),
    "too many threads": ("CPU_CONTENDED", lambda: last(waiting=2.6)),
    "a quota": ("CPU_QUOTA", lambda: last(quota=3.0)),
    "swap": ("SWAPPING", lambda: last(swapped_in=90.0)),
    "frequency": ("FREQUENCY_FELL", lambda: last(mhz=(1500.0, 1500.0))),
    "a slow governor": ("GOVERNOR_SLOW", lambda: last(governor="powersave")),
    "battery": ("BATTERY_LOW", lambda: last(battery=11)),
    "memory": ("MEMORY_SHORT", lambda: last(free_mb=30.0)),
    "calendar set": ("CLOCK_JUMPED", lambda: last(wall=5400.0)),
    "clock back": ("CLOCK_JUMPED", lambda: last(up=999.0)),
    "frequency allowed": ("FREQUENCY_FELL", lambda: last(mhz_most=(1200.0, 1200.0))),
    "one slow governor of two": ("GOVERNOR_SLOW", lambda: last(governor="powersave, schedutil")),
    "another governor": ("GOVERNOR_CHANGED", lambda: last(governor="performance")),
    "the kernel cools": ("THROTTLED", lambda: last(cooled=2.0)),
    "the CPU says it was hot": ("THROTTLED", lambda: last(throttled=9.0)),
    "too hot to begin": (
        "TOO_HOT",
        lambda: readied(cool_below=45.0, waited=300.0, by="thermometer", cooled=False, at=52.0),
    ),
    "battery saver": ("POWER_SAVE", lambda: readied(phone=PhoneCapture(power_save=True))),
    "screen": ("SCREEN_OFF", lambda: readied(phone=PhoneCapture(screen=False))),
    "a phone's battery": ("BATTERY_LOW", lambda: readied(phone=PhoneCapture(battery=9, charging=False))),
    "heat": ("THROTTLED", lambda: {"work_ms": (2.0, 2.0, 2.3)}),
    "drift": ("SLOWS_DOWN", slower_half),
    "a thread suspended": ("STALLED", stalled),
    "half a CPU": ("STALLED", lambda: {"cpu_ms": (5.0,) * 100}),
    "two sorts of cores": ("UNEVEN", two_sorts),
    "frequency in passing": ("FREQUENCY_FELL", lambda: passing(mhz=(1500.0, 1500.0))),
    "allowed in passing": ("FREQUENCY_FELL", lambda: passing(mhz_most=(1600.0, 1600.0))),
    "a cap": ("FREQUENCY_CAPPED", lambda: last(mhz_able=(2000.0, 2000.0))),
    "a frequency that was chosen": (
        "GOVERNOR_SLOW",
        lambda: last(governor="userspace", mhz=(1800.0, 1800.0), mhz_most=(2400.0,) * 2, mhz_able=(2400.0,) * 2),
    ),
    "a core that is gone": ("CPUS_CHANGED", lambda: last(cpus=1)),
    "a core that was away": ("CPUS_CHANGED", lambda: passing(cpus=1)),
    "another cgroup": ("CPU_QUOTA", lambda: {"conditions": (noted(0.0), noted(0.6, quota=9.0), noted(1.7))}),
    "steps of a clock": ("CLOCK_ODD", lambda: {"samples_ms": tuple(10.0 + number % 2 for number in range(100))}),
    "always the same": ("CLOCK_ODD", lambda: {"samples_ms": (10.0,) * 100}),
    "one time of nothing": ("CLOCK_ODD", lambda: {"samples_ms": (0.0, *block().samples_ms[1:])}),
    "faster and faster": (
        "NOT_AT_REST",
        lambda: {"samples_ms": tuple(each / (1 + (at > 49) / 4) for at, each in enumerate(block().samples_ms))},
    ),
    "a slow drift": (
        "SLOWS_DOWN",
        lambda: {"samples_ms": tuple(each * (1 + at / 600) for at, each in enumerate(block().samples_ms))},
    ),
    "no rest": ("NOT_AT_REST", lambda: {"steady": False}),
    "few": ("TOO_FEW_SAMPLES", lambda: {"complete": False}),
    "death": ("NOT_FINISHED", lambda: {"complete": None}),
    "a clock that stands": ("CLOCK_ODD", lambda: {"samples_ms": (0.0,) * 100, "cpu_ms": ()}),
    "a clock that is fast": ("CLOCK_ODD", lambda: {"seconds": 1.4, "looped": 0.9}),
    "a clock that lies": ("CLOCK_ODD", lambda: {"samples_ms": (100.0,) * 100, "cpu_ms": ()}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_named(name: str) -> None:
    code, planted = PLANTED[name]
    assert code in codes(block(**planted()))


def test_slower_than_the_rest_of_the_session_is_throttled() -> None:
    assert codes(block(), 1.7) == {"THROTTLED"}


def test_known_work_that_is_slow_may_be_heat_or_others() -> None:
    (found,) = doubts(block(), 2, 1.0)
    assert found.message == "known work took 2.02 times as long as at its fastest: heat, or others on the CPU"


def test_a_device_that_was_made_ready_is_not_accused() -> None:
    phone = PhoneCapture(screen=True, power_save=False, battery=9, plugged=True, charging=True)
    assert codes(block(**readied(cool_below=45.0, waited=9.0, cooled=True, at=44.0, phone=phone))) == set()
    assert codes(block(**readied(phone=PhoneCapture()))) == set()


def test_how_hot_it_was_is_told_where_there_is_a_thermometer() -> None:
    hot: dict[str, Any] = {"cool_below": 45.0, "waited": 300.0, "cooled": False}
    (found,) = (each for each in doubts(block(**readied(**hot, at=52.0)), 0, 1.0) if each.code == "TOO_HOT")
    assert found.message == "it was still at 52 degrees after 300 s; below 45 was wanted"
    (found,) = (each for each in doubts(block(**readied(**hot)), 0, 1.0) if each.code == "TOO_HOT")
    assert found.message == "known work still took longer after 300 s; below 45 was wanted"


def test_a_driver_that_means_something_else_by_powersave() -> None:
    named = {"governor": "powersave", "driver": "intel_pstate"}
    assert codes(block(conditions=tuple(noted(after, **named) for after in (0.0, 0.6, 1.7)))) == set()
    named["driver"] = "intel_cpufreq"
    assert codes(block(conditions=tuple(noted(after, **named) for after in (0.0, 0.6, 1.7)))) == {"GOVERNOR_SLOW"}


def test_at_the_charger_a_low_battery_is_none() -> None:
    assert codes(block(**last(battery=11, charging=True))) == set()


def test_an_idle_cpu_before_the_warm_up_accuses_nobody() -> None:
    assert codes(block(work_ms=(9.0, 2.0, 2.0))) == set()
    assert codes(block(conditions=(noted(0.0, mhz=(3000.0, 3000.0)), noted(0.6), noted(1.7)))) == set()


def test_frequencies_that_nobody_tells_accuse_nobody() -> None:
    nothing = {"mhz": (0.0, 0.0), "mhz_most": (0.0, 0.0), "mhz_able": (0.0, 0.0)}
    assert codes(block(conditions=tuple(noted(after, **nothing) for after in (0.0, 0.6, 1.7)))) == set()
    assert codes(block(**last(**nothing))) == set()
    assert codes(block(**last(mhz_able=(1850.0, 1850.0)))) == set()


def test_what_explains_is_told_and_not_what_it_explains() -> None:
    found = [Doubt("SLOWS_DOWN", "a"), Doubt("OTHERS_RUNNING", "b"), Doubt("CPU_QUOTA", "c"), Doubt("CPU_QUOTA", "d")]
    assert [doubt.code for doubt in ranked(found)] == ["CPU_QUOTA", "OTHERS_RUNNING"]
    assert [doubt.message for doubt in ranked(found)] == ["c", "b"]
    assert [doubt.code for doubt in ranked(found[:1])] == ["SLOWS_DOWN"]


def test_every_code_has_its_rank() -> None:
    assert {code for code, _ in PLANTED.values()} == {*CAUSES, *SIGNS} - {SESSION}
