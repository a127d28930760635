"""What the runner notes of its machine, read from trees that were made up with the code that reads the real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.device_scripts import bench, conditions

CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str, str], None]:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


def test_the_real_one() -> None:
    found = conditions.read()
    assert found["up"] > 0
    assert found["busy"] is None or found["busy"] > 0
    assert found["own"] >= 0
    assert conditions.known_work() > 0


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    found = conditions.read(str(tmp_path))
    none = [name for name, value in found.items() if value is None]
    assert set(none) == set(found) - {"up", "wall", "own", "switched", "cpus"}


def test_a_phone_that_is_hot_and_held_back(tmp_path: Path, tree: Callable[[str, str], None]) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    tree("proc/stat", "".join(f"cpu{cpu} {5 * ticks} 0 {ticks} 99 9 0 {ticks} {2 * ticks} 0 0\n" for cpu in CPUS)
         + f"cpu{max(CPUS) + 1} {99 * ticks} 0 0 0 0 0 0 0 0 0\nprocs_running 3\n")  # fmt: skip
    tree("proc/pressure/cpu", "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=7\n")
    tree("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    1000000 kB\n")
    tree("proc/vmstat", "pswpin 17\npswpout 4\n")
    tree("sys/fs/cgroup/cpu.stat", "usage_usec 5\nnr_periods 9\nnr_throttled 4\n")
    for cpu in CPUS:
        tree(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", "1804800\n")
        tree(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "powersave\n")
    tree("sys/class/thermal/thermal_zone0/temp", "71500\n")
    tree("sys/class/thermal/thermal_zone1/temp", "-40960000\n")
    tree("sys/class/thermal/thermal_zone2/temp", "64000\n")
    tree("sys/class/power_supply/usb/type", "USB\n")
    tree("sys/class/power_supply/battery/type", "Battery\n")
    tree("sys/class/power_supply/battery/capacity", "17\n")
    tree("sys/class/power_supply/battery/status", "Discharging\n")
    found = conditions.read(str(tmp_path))
    assert found["busy"] == pytest.approx(7.0 * len(CPUS))
    assert found["stolen"] == pytest.approx(2.0 * len(CPUS))
    assert found["running"] == 3
    assert found["waiting"] == pytest.approx(2.5)
    assert found["free_mb"] == pytest.approx(1024)
    assert found["swapped_in"] == 17
    assert found["quota"] == 4
    assert found["mhz"] == pytest.approx([1804.8] * len(CPUS))
    assert found["governor"] == "powersave"
    assert found["celsius"] == pytest.approx(71.5)
    assert (found["battery"], found["charging"]) == (17, False)


@pytest.mark.parametrize(
    ("told", "degrees"),
    [("45000", 45.0), ("45", 45.0), ("452", 45.2), ("0", None), ("-273000", None), ("45.5", None), ("hot", None)],
)
def test_degrees_whatever_their_unit(
    told: str, degrees: float | None, tmp_path: Path, tree: Callable[[str, str], None]
) -> None:
    """Some vendors' zones tell degrees or tenths, and --cool-below 45 would never wait."""
    tree("sys/class/thermal/thermal_zone0/temp", told)
    assert conditions.celsius(str(tmp_path)) == degrees


def test_a_frequency_of_nothing_is_not_known(tmp_path: Path, tree: Callable[[str, str], None]) -> None:
    for cpu in CPUS:
        for name, told in (("scaling_cur_freq", "0"), ("scaling_max_freq", "1800000"), ("cpuinfo_max_freq", "2000000")):
            tree(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}", told)
    found = conditions.read(str(tmp_path))
    assert (found["mhz"], found["mhz_most"], found["mhz_able"]) == (None, [1800] * len(CPUS), [2000] * len(CPUS))


@pytest.mark.parametrize("text", ["", "some", "some total=x\n", "cpu0 1 2\n", "\0\xff\n" * 9])
def test_nonsense_is_none(text: str, tmp_path: Path, tree: Callable[[str, str], None]) -> None:
    for path in ("proc/stat", "proc/pressure/cpu", "proc/meminfo", "proc/vmstat", "sys/fs/cgroup/cpu.stat"):
        tree(path, text)
    found = conditions.read(str(tmp_path))
    assert {found[name] for name in ("busy", "waiting", "free_mb", "swapped_in", "quota")} == {None}


def warmed(times: Callable[[int], float]) -> bench.WarmUp:
    warm = bench.WarmUp()
    while not warm.add(times(warm.count)):
        assert warm.count < 100_000
    return warm


def test_what_is_at_rest_is_warm_after_a_quarter_of_a_second() -> None:
    warm = warmed(lambda _: 1.0)
    assert warm.steady
    assert warm.count == 250


def test_a_slow_model_is_warm_after_so_many() -> None:
    warm = warmed(lambda _: 100.0)
    assert warm.steady
    assert bench.LEAST <= warm.count <= 42


def test_a_slow_start_is_waited_for() -> None:
    warm = warmed(lambda count: 1.0 + 20 * 0.99**count)
    assert warm.steady
    assert 1.0 + 20 * 0.99**warm.count < 1.3


def test_what_gets_slower_and_slower_is_never_at_rest() -> None:
    warm = warmed(lambda count: 10 * 1.01**count)
    assert not warm.steady


def test_a_block_takes_what_was_asked_for() -> None:
    said: list[dict[str, object]] = []
    header = {"runs": 50, "seconds": 0.0, "warm_seconds": 8.0, "max_seconds": 60.0}
    answer, results = bench.block(lambda: (20.0, "outputs"), header, said.append, 1.0)
    assert results == "outputs"
    assert answer["steady"]
    assert answer["complete"]
    assert answer["n"] == 50
    assert sum(len(each["samples"]) for each in said if each["event"] == "samples") == 50  # type: ignore[arg-type]
    assert sum(len(each["cpu"]) for each in said if each["event"] == "samples") == 50  # type: ignore[arg-type]
    assert len(answer["work_ms"]) == 3
    assert len(answer["conditions"]) == 3


def test_a_block_that_is_out_of_time_says_so() -> None:
    answer, _ = bench.block(
        lambda: (20.0, None),
        {"runs": 10**6, "seconds": 0.0, "warm_seconds": 8.0, "max_seconds": 0.01},
        lambda _: None,
        1,
    )
    assert not answer["complete"]
    assert answer["n"] >= 1
