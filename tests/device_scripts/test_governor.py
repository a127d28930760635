"""The governor is given back, however a runner ends.  Real runners, on a tree that was made up."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.device_scripts import governor
from tests.device_scripts.support import Runner
from tests.device_scripts.trees import CPUS, Tree
from tests.waiting import ended, eventually

Set = Callable[..., Runner]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path / "machine"))
    return Tree(tmp_path / "machine")


@pytest.fixture
def record(script: Path) -> Callable[[], bool]:
    """Whether there is one."""
    return lambda: bool(list(script.parent.glob(".edgequant-governor*")))


@pytest.fixture
def at_performance(start: Callable[..., Runner], tree: Tree) -> Runner:
    runner = start()
    answer, _ = runner.ask("governor", name="performance")
    assert (answer["set"], answer["was"], answer["why"]) == (True, {"schedutil": CPUS}, None)
    assert tree.governors() == {"performance"}
    return runner


def given_back(tree: Tree, record: Callable[[], bool]) -> bool:
    return eventually(lambda: tree.governors() == {"schedutil"} and not record())


def test_at_the_end(at_performance: Runner, tree: Tree, record: Callable[[], bool]) -> None:
    at_performance.ask("exit")
    assert tree.governors() == {"schedutil"}  # before the answer
    assert not record()


@pytest.mark.nightly
def test_when_asked_to(at_performance: Runner, tree: Tree) -> None:
    assert at_performance.ask("governor", name=None)[0]["restored"]
    assert tree.governors() == {"schedutil"}
    assert not at_performance.ask("governor", name=None)[0]["restored"]


def test_when_the_link_is_lost(at_performance: Runner, tree: Tree, record: Callable[[], bool]) -> None:
    at_performance.child.stdin.close()
    assert given_back(tree, record)


@pytest.mark.nightly
def test_when_the_runner_is_killed(at_performance: Runner, tree: Tree, record: Callable[[], bool]) -> None:
    at_performance.child.kill()
    assert given_back(tree, record)


def test_when_its_whole_group_is_killed(start: Set, tree: Tree, record: Callable[[], bool], script: Path) -> None:
    runner = start([sys.executable, "-u", str(script)], start_new_session=True)
    runner.ask("governor", name="performance")
    os.killpg(runner.child.pid, signal.SIGKILL)
    assert given_back(tree, record)


def test_when_the_runner_and_the_link_are_gone_before_its_watcher_looks(
    at_performance: Runner, tree: Tree, record: Callable[[], bool]
) -> None:
    (watcher,) = at_performance.children()
    os.kill(watcher, signal.SIGSTOP)
    at_performance.child.kill()
    at_performance.child.wait()
    at_performance.child.stdin.close()
    os.kill(watcher, signal.SIGCONT)
    assert given_back(tree, record)


def test_when_its_watcher_is_killed_too(
    at_performance: Runner, start: Set, tree: Tree, record: Callable[[], bool]
) -> None:
    (watcher,) = at_performance.children()
    os.kill(watcher, signal.SIGKILL)
    assert ended(watcher)
    at_performance.child.kill()
    at_performance.child.wait()
    assert tree.governors() == {"performance"}
    start()
    assert given_back(tree, record)


def test_started_anew_it_keeps_it_and_still_gives_it_back(
    at_performance: Runner, tree: Tree, record: Callable[[], bool]
) -> None:
    at_performance.restart()
    assert tree.governors() == {"performance"}
    answer, _ = at_performance.ask("governor", name="performance")
    assert answer["set"]
    assert answer["was"] == {"schedutil": CPUS}
    at_performance.restart()
    at_performance.child.kill()
    assert given_back(tree, record)


@pytest.mark.nightly
def test_two_governors_each_get_theirs(start: Set, tree: Tree) -> None:
    if len(CPUS) < 2:
        pytest.skip("one CPU")
    tree.governor_file(CPUS[-1]).write_text("ondemand\n")
    runner = start()
    answer, _ = runner.ask("governor", name="performance")
    assert answer["was"] == {"schedutil": CPUS[:-1], "ondemand": CPUS[-1:]}
    runner.ask("exit")
    assert tree.governors() == {"schedutil", "ondemand"}


@pytest.mark.nightly
def test_what_somebody_else_has_set_meanwhile_is_theirs(at_performance: Runner, tree: Tree) -> None:
    tree.each("cpufreq/scaling_governor", "powersave")
    at_performance.ask("exit")
    assert tree.governors() == {"powersave"}


def test_where_it_may_not_be_written(start: Set, tree: Tree, record: Callable[[], bool]) -> None:
    tree.governor_file(CPUS[-1]).unlink()
    tree.governor_file(CPUS[-1]).symlink_to("/proc/sys/kernel/ostype")  # root may not write it either
    runner = start()
    answer, _ = runner.ask("governor", name="performance")
    assert answer["set"] is False
    assert answer["why"] == "Permission denied"
    assert tree.governors() == ({"schedutil", "Linux"} if len(CPUS) > 1 else {"Linux"})
    assert not record()


@pytest.mark.nightly
def test_one_that_is_not_offered(start: Set, tree: Tree) -> None:
    answer, _ = start().ask("governor", name="warp")
    assert answer["set"] is False
    assert "performance, powersave, schedutil" in answer["why"]
    assert tree.governors() == {"schedutil"}


@pytest.mark.nightly
def test_no_governor_at_all(start: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path))
    answer, _ = start().ask("governor", name="performance")
    assert (answer["set"], answer["was"]) == (False, {})
    assert "no governor" in answer["why"]


def test_another_one_is_not_disturbed(at_performance: Runner, start: Set, tree: Tree) -> None:
    other = start()  # its record lies where this one looks, and its maker lives
    assert tree.governors() == {"performance"}
    answer, _ = other.ask("governor", name="powersave")
    assert answer["set"] is False
    assert f"process {at_performance.child.pid}" in answer["why"]
    assert not other.ask("governor", name=None)[0]["restored"]
    (watcher,) = other.children()
    other.ask("exit")
    assert ended(watcher)
    assert tree.governors() == {"performance"}
    at_performance.ask("exit")
    assert tree.governors() == {"schedutil"}


@pytest.mark.parametrize("change", [{"boot": "another"}, {"was": {"etc/passwd": "x"}}, {"set": 7}], ids=str)
def test_a_record_of_something_else_changes_nothing(change: dict[str, object], tmp_path: Path, tree: Tree) -> None:
    tree.each("cpufreq/scaling_governor", "performance")
    (tmp_path / "machine/etc").mkdir()
    (tmp_path / "machine/etc/passwd").write_text("performance")
    record = tmp_path / "record"
    was = {f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor": "schedutil" for cpu in CPUS}
    left = {"boot": governor._boot(), "pid": 2**22 + 1, "started": "5", "set": "performance", "was": was}
    record.write_text(json.dumps({**left, **change}))
    governor.give_back(str(record), only_left=True)
    assert tree.governors() == {"performance"}
    assert (tmp_path / "machine/etc/passwd").read_text() == "performance"
    record.write_text(json.dumps(left))
    assert governor.give_back(str(record), only_left=True)
    assert tree.governors() == {"schedutil"}
    assert not record.exists()
