"""Energy, from sensors that were made up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgequant.device_scripts import energy
from tests.device_scripts.trees import Tree

RAPL = "sys/class/powercap/intel-rapl:"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path))
    return Tree(tmp_path)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, which a test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_counter_of_each_package_and_not_of_what_is_in_it(tree: Tree) -> None:
    for zone, begin in (("0", 1_000_000), ("1", 5_000_000), ("0:0", 77)):
        tree.write(f"{RAPL}{zone}/energy_uj", str(begin))
        tree.write(f"{RAPL}{zone}/max_energy_range_uj", "10000000")
    meter = energy.Meter()
    meter.start()
    tree.write(f"{RAPL}0/energy_uj", "3500000")
    tree.write(f"{RAPL}1/energy_uj", "1000000")  # over its end
    tree.write(f"{RAPL}0:0/energy_uj", "9000000")
    assert meter.stop() == {
        "joules": pytest.approx(2.5 + 6.0),
        "sensor": "energy counter intel-rapl:0, intel-rapl:1",
        "readings": 2,
    }


def test_power_is_read_again_and_again(tree: Tree, passing: list[float]) -> None:
    tree.write("sys/class/hwmon/hwmon2/power1_input", "2000000")
    meter = energy.Meter()
    meter.start()
    for watts in (2, 2, 4, 4):
        passing[0] += 0.5
        tree.write("sys/class/hwmon/hwmon2/power1_input", str(watts * 1_000_000))
        meter.note()
        meter.note()  # too soon for another
    passing[0] += 0.5
    found = meter.stop()
    assert found["joules"] == pytest.approx(0.5 * (2 + 2 + 3 + 4 + 4))
    assert found["readings"] == 6


def battery(tree: Tree, status: str = "Discharging", usb: int = 0) -> None:
    tree.supply("battery", type="Battery", status=status, current_now=-500000, voltage_now=4000000)
    tree.supply("usb", type="USB", online=usb)


def test_what_flows_out_of_a_battery(tree: Tree, passing: list[float]) -> None:
    battery(tree)
    meter = energy.Meter()
    meter.start()
    for _ in range(4):
        passing[0] += 1
        meter.note()
    assert meter.stop()["joules"] == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("status", "usb", "why"), [("Charging", 1, "plugged in"), ("Full", 1, "plugged in"), ("Full", 0, "not discharging")]
)
def test_a_battery_that_is_fed_tells_nothing(status: str, usb: int, why: str, tree: Tree) -> None:
    battery(tree, status, usb)
    meter = energy.Meter()
    meter.start()
    assert why in meter.stop()["why"]


def test_plugged_in_meanwhile(tree: Tree, passing: list[float]) -> None:
    battery(tree)
    meter = energy.Meter()
    meter.start()
    for _ in range(4):
        passing[0] += 1
        meter.note()
    tree.supply("usb", online=1)
    assert "meanwhile" in meter.stop()["why"]


def test_no_sensor_and_one_that_stands(tree: Tree) -> None:
    meter = energy.Meter()
    meter.start()
    assert meter.stop() == {"why": "there is no sensor that may be read", "sensor": None}
    tree.write(f"{RAPL}0/energy_uj", "5")
    meter = energy.Meter()
    meter.start()
    assert meter.stop()["why"] == "its counter did not move"


def test_too_few_readings(tree: Tree) -> None:
    battery(tree)
    meter = energy.Meter()
    meter.start()
    assert meter.stop()["why"] == "it was read 2 times only"
