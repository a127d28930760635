"""What the runner does beside inferences: its machine's state, long runs, operators."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.device_scripts.support import Runner
from tests.device_scripts.trees import CPUS, Tree


def test_a_long_run_tells_of_each_period_as_it_goes(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn, threads=1)["handle"]
    answer, _ = runner.ask("sustain", {"x": image}, handle=handle, seconds=0.6, period=0.2)
    begun, *periods = runner.events
    assert begun["event"] == "begun"
    assert begun["conditions"]["up"] > 0
    assert [each["event"] for each in periods] == ["period"] * answer["periods"]
    assert 1 <= answer["periods"] <= 4  # on a machine that is held up, fewer
    assert periods[0]["at"] < 0.2
    for each in periods:
        assert each["n"] >= 1
        assert each["min"] <= each["p50"] <= each["p90"] <= each["max"]
        assert each["cpu"] > 0
        assert each["energy"]["why"] or each["energy"]["joules"]
    assert sum(each["n"] * each["mean"] for each in periods) / 1e3 < periods[-1]["at"] + periods[-1]["seconds"]


def test_operators_by_name_and_type(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn, threads=1)["handle"]
    answer, _ = runner.ask("operators", {"x": image}, handle=handle, runs=3, seconds=0)
    assert answer["runs"] == 3
    kinds = [each["type"] for each in answer["operators"]]
    assert kinds.count("Convolution") + kinds.count("ConvolutionDepthwise") >= 2
    assert all(each["ms"] >= 0 and each["name"] for each in answer["operators"])
    assert 0 < sum(each["ms"] for each in answer["operators"]) <= 1.5 * answer["watched_ms"]
    assert answer["plain_ms"] > 0


def test_operators_of_inputs_that_do_not_fit_are_refused(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn)["handle"]
    assert runner.refused("operators", {"z": image}, handle=handle, runs=1, seconds=0) == "INPUT_NAMES"


def test_the_state_of_a_machine_that_was_made_up(
    start: Callable[..., Runner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path / "machine"))
    tree = Tree(tmp_path / "machine")
    runner = start()
    first = runner.ask("conditions")[0]["conditions"]
    assert (first["celsius"], first["cooled"], first["mhz_most"]) == (41.0, None, [1800.0] * len(CPUS))
    tree.write("sys/class/thermal/cooling_device0/type", "thermal-cpufreq-0")
    tree.write("sys/class/thermal/cooling_device0/cur_state", "3")
    tree.write("sys/class/thermal/cooling_device1/type", "Fan")
    tree.write("sys/class/thermal/cooling_device1/cur_state", "9")
    tree.each("thermal_throttle/core_throttle_count", "2")
    tree.write("proc/self/cgroup", "0::/user.slice/app")
    tree.write("sys/fs/cgroup/user.slice/cpu.stat", "nr_throttled 4")
    tree.write("sys/fs/cgroup/user.slice/app/cpu.stat", "nr_throttled 3")
    second = runner.ask("conditions")[0]["conditions"]
    assert (second["cooled"], second["throttled"], second["quota"]) == (3, 2 * len(CPUS), 7)
    tree.write("sys/devices/platform/soc/soc:firmware/get_throttled", "50005")
    assert runner.ask("conditions")[0]["conditions"]["cooled"] == 8
    answer, _ = runner.ask("clusters")
    assert [each["cpus"] for each in answer["clusters"]] == [CPUS]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot")
def test_clusters_are_of_all_cores_whatever_a_model_was_held_to(runner: Runner, cnn: Path) -> None:
    before, _ = runner.ask("clusters")
    runner.load(cnn, cores=[CPUS[0]])
    assert runner.ask("clusters")[0]["clusters"] == before["clusters"]
    runner.load(cnn)
    assert sorted(os.sched_getaffinity(runner.child.pid)) == CPUS
