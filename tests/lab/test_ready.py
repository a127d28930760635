"""A device made ready for a block, with a real runner on a machine that was made up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.lab.phone import look, parse
from edgequant.lab.ready import Readying
from edgequant.lab.session import DeviceOptions, Session
from edgequant.progress import Progress
from edgequant.spec import RunOptions
from tests.device_scripts.trees import CPUS, Tree
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path / "machine"))
    return Tree(tmp_path / "machine")


@pytest.fixture
def session(tree: Tree, tmp_path: Path) -> Iterator[Session]:
    options = DeviceOptions(work_dir=str(tmp_path / "work"), runtime="system")
    with Session(LocalDevice(), options, RunOptions(threads=1), log=None, progress=Progress()) as found:
        found.open()
        yield found


class Cooling(Progress):
    """The device cools down once it is waited for."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)
        self.tree.write("sys/class/thermal/thermal_zone0/temp", "44900")


def test_it_waits_until_it_is_cool(session: Session, tree: Tree) -> None:
    tree.write("sys/class/thermal/thermal_zone0/temp", "71000")
    cooling = Cooling(tree)
    found = Readying(cool_below=45, cool_seconds=60).ready(session, cooling)
    assert (found.cooled, found.by, found.at) == (True, "thermometer", 44.9)
    assert found.waited < 30
    assert cooling.said == ["local: is at 71 degrees: it is given up to 60 s to cool down"]


@pytest.mark.nightly
def test_what_is_cool_is_not_waited_for(session: Session, tree: Tree) -> None:
    found = Readying(cool_below=45).ready(session, Progress())
    assert found.cooled
    assert found.waited < 2


def test_what_stays_hot_is_told(session: Session, tree: Tree) -> None:
    tree.write("sys/class/thermal/thermal_zone0/temp", "71000")
    found = Readying(cool_below=45, cool_seconds=0.2).ready(session, Progress())
    assert (found.cooled, found.at) == (False, 71.0)
    assert found.waited >= 0.2


@pytest.mark.nightly
def test_without_a_thermometer_known_work_tells(session: Session, tree: Tree) -> None:
    (tree.root / "sys/class/thermal/thermal_zone0/temp").unlink()
    readying = Readying(cool_below=45, cool_seconds=0.0)
    assert readying.ready(session, Progress()).cooled  # the first is the fastest so far
    readying.fastest = 1e-9
    found = readying.ready(session, Progress())
    assert (found.cooled, found.by, found.at) == (False, "work", None)


def test_the_governor_is_set_for_as_long_as_the_session_is(session: Session, tree: Tree) -> None:
    readying = Readying(governor="performance")
    for _ in range(2):
        found = readying.ready(session, Progress())
        assert found.governor is not None
        assert (found.governor.set, found.governor.was) == (True, {"schedutil": tuple(CPUS)})
        assert tree.governors() == {"performance"}
        session.known_runner.used = True  # type: ignore[union-attr]  # the next one is started anew
    session.close()
    assert eventually(lambda: tree.governors() == {"schedutil"})


@pytest.mark.nightly
def test_a_governor_that_is_not_there(session: Session, tree: Tree) -> None:
    found = Readying(governor="warp").ready(session, Progress())
    assert found.governor is not None
    assert not found.governor.set
    assert "schedutil" in (found.governor.why or "")


def test_what_a_killed_runner_left_outlives_a_clean(session: Session, tmp_path: Path) -> None:
    record = tmp_path / "work" / ".edgequant-governor"
    record.write_text("{}")
    store = Store(LocalDevice(), str(tmp_path / "work"))
    store.prepare(Deadline(None))
    store.clean(Deadline(None))
    assert record.exists()
    store.prepare(Deadline(None))  # it is still known as ours
    record.unlink()
    store.clean(Deadline(None))
    assert not (tmp_path / "work").exists()


POWER = """POWER MANAGER (dumpsys power)
  mWakefulness=Awake
  mIsPowered=true
Battery saver state machine:
  mBatterySaverEnabled={}
Display Power: state=ON
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4123
  temperature: 291
  technology: Li-ion
"""


def said(power: str = POWER.format("false"), setting: str = "0", battery: str = BATTERY) -> str:
    return f"{power}===\n{setting}\n===\n{battery}"


def test_a_phone_that_is_awake() -> None:
    found = parse(said())
    assert found is not None
    assert (found.screen, found.power_save, found.battery, found.plugged, found.charging, found.celsius) == (
        True, False, 87, True, True, 29.1,
    )  # fmt: skip


def test_a_phone_that_sleeps_and_saves() -> None:
    unplugged = BATTERY.replace("USB powered: true", "USB powered: false").replace("status: 2", "status: 3")
    found = parse(said(POWER.format("true").replace("Awake", "Dozing"), "1", unplugged))
    assert found is not None
    assert (found.screen, found.power_save, found.plugged, found.charging) == (False, True, False, False)
    older = parse(said("Display Power: state=OFF\n", "1", ""))
    assert older is not None
    assert (older.screen, older.power_save, older.battery) == (False, True, None)


@pytest.mark.parametrize("nonsense", ["", "===", "===\n===\n", "\0\xff" * 9])
def test_what_is_no_phone(nonsense: str) -> None:
    assert parse(nonsense) is None


def test_it_is_asked_through_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(LocalDevice()) is None
    (tmp_path / "dumpsys").write_text(
        f"#!/bin/sh\ncase $1 in power) cat <<'E'\n{POWER.format('false')}\nE\n;; *) cat <<'E'\n{BATTERY}\nE\nesac\n"
    )
    (tmp_path / "dumpsys").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = look(LocalDevice())
    assert found is not None
    assert (found.screen, found.power_save, found.battery) == (True, False, 87)
