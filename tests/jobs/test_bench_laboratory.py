"""`bench` on a machine that was made up: governor, heat, frequency, long runs, operators, energy; and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgequant.archive.bench import open_bench
from edgequant.archive.types import Capture
from edgequant.jobs.bench import BenchRequest, BenchResult, bench
from edgequant.jobs.laboratory import LaboratoryRequest
from edgequant.jobs.rejudge_bench import judge_bench_again
from edgequant.judge.verdict import Verdict
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.report.html.bench import page
from edgequant.spec import RunOptions, Variant
from tests.beds.models import ModelByName
from tests.device_scripts.trees import CPUS, Tree
from tests.waiting import LONG, eventually
from tools import check_bench

QUICK = {"blocks": 3, "runs": 3, "seconds": 0.0, "warm_seconds": 0.1, "redo": 0.0}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path / "machine"))
    return Tree(tmp_path / "machine")


@pytest.fixture
def changing() -> Iterator[Callable[[Callable[[int], object]], None]]:
    """Calls something again and again, with a number that grows, until the test is over."""
    over = threading.Event()
    threads = []

    def start(what: Callable[[int], object]) -> None:
        def run() -> None:
            number = 0
            while not over.wait(0.02):
                what(number := number + 1)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def measured(
    model: Path, tmp_path: Path, progress: Progress | None = None, seconds: float = 0.0, **laboratory: object
) -> BenchResult:
    request = Request(
        model, variants=(Variant.parse("float"),), run_dir=tmp_path / "run", options=RunOptions(threads=1)
    )
    asked = LaboratoryRequest(**laboratory)  # type: ignore[arg-type]
    wanted = {**QUICK, "seconds": seconds}
    found = bench(BenchRequest(request, laboratory=asked, **wanted), progress)  # type: ignore[arg-type]
    assert check_bench.main(found.folder) == 0
    return found


def doubts(found: BenchResult) -> set[str]:
    (setting,) = found.report.devices[0].settings
    return {doubt.code for block in setting.blocks for doubt in block.doubts}


def test_all_of_it(generated_model: ModelByName, tmp_path: Path, tree: Tree, changing: Callable[..., None]) -> None:
    tree.write("sys/class/powercap/intel-rapl:0/energy_uj", "0")
    changing(lambda number: tree.write("sys/class/powercap/intel-rapl:0/energy_uj", str(number * 100_000)))
    for number, cpu in enumerate(CPUS):
        tree.write(f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", "300" if number else "1024")
    found = measured(
        generated_model("conv_cnn"),
        tmp_path,
        None,
        0.3,
        governor="performance",
        cool_below=60,
        sustain=1.0,
        per_op=True,
    )
    (device,) = found.report.devices
    apart = device.apart
    timings = [capture.timings[0] for _, capture in open_bench(found.folder).blocks("local:", "float")]
    if len(CPUS) > 1:
        assert f"1 thread on cores {CPUS[0]}" in apart.cores[0]
    assert apart.governor is not None
    assert apart.governor["set"]
    assert {each.governor for timing in timings for each in timing.conditions} == {"performance"}
    assert eventually(lambda: tree.governors() == {"schedutil"})
    run = apart.sustained["float"]
    assert run.complete
    assert run.periods
    assert run.celsius[0] == 41.0
    assert apart.operators["float"].types[0].ms > 0
    assert apart.operators["float"].total_ms <= 2 * (apart.operators["float"].watched_ms or 0)
    energies = [timing.energy for timing in timings]
    assert all(each is not None and each.sensor == "energy counter intel-rapl:0" for each in energies)
    assert any(each.joules for each in energies if each is not None)
    assert judge_bench_again(found.folder).changes == ()
    text = page(found.report, open_bench(found.folder))
    for told in ("Without a pause", "Operators of float", "Beside latencies", "performance"):
        assert told in text
    plan = open_bench(found.folder).plan
    assert plan.command.endswith("--governor performance --cool-below 60 --sustain 1s --per-op --threads 1")
    kept = [Capture.model_validate_json(path.read_text()) for path in (tmp_path / "run/captures").rglob("apart/*")]
    assert {(each.sustained is not None, each.operators is not None) for each in kept} == {(True, False), (False, True)}


@pytest.mark.nightly
def test_a_governor_that_cannot_be_set_is_told(generated_model: ModelByName, tmp_path: Path, tree: Tree) -> None:
    found = measured(generated_model("conv_cnn"), tmp_path, governor="warp")
    (finding,) = found.report.devices[0].apart.findings
    assert finding.code == "GOVERNOR_NOT_SET"
    assert "schedutil" in finding.message
    assert "GOVERNOR_SLOW" not in doubts(found)


@pytest.mark.nightly
def test_heat_and_frequency(
    generated_model: ModelByName, tmp_path: Path, tree: Tree, changing: Callable[..., None]
) -> None:
    tree.write("sys/class/thermal/thermal_zone0/temp", "82000")
    tree.write("sys/class/thermal/cooling_device0/type", "cpufreq-cpu0")
    tree.write("sys/class/thermal/cooling_device0/cur_state", "2")
    changing(lambda number: tree.each("cpufreq/scaling_max_freq", str(round(1e9 * 0.97**number))))
    found = measured(generated_model("conv_cnn"), tmp_path, None, 0.3, cool_below=45, cool_seconds=0.1)
    assert {"THROTTLED", "TOO_HOT", "FREQUENCY_FELL"} <= doubts(found)


class Interrupting(Progress):
    """Ctrl-C once two periods have come."""

    def say(self, message: str) -> None:
        self.periods = getattr(self, "periods", 0) + (": p50 " in message)
        if self.periods == 2:
            raise KeyboardInterrupt


def test_a_long_run_that_is_interrupted_keeps_what_came(
    generated_model: ModelByName, tmp_path: Path, tree: Tree
) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(generated_model("conv_cnn"), tmp_path, Interrupting(), governor="performance", sustain=5.0)
    (path,) = (tmp_path / "run/captures").rglob("apart/*")
    kept = Capture.model_validate_json(path.read_text()).sustained
    assert kept is not None
    assert not kept.complete
    assert 1 <= len(kept.periods) <= 2
    shown = judge_bench_again(tmp_path / "run").report
    assert shown.interrupted
    assert shown.verdict is Verdict.INCONCLUSIVE
    assert shown.devices[0].rounds == 3
    assert [each.code for each in shown.devices[0].apart.sustained["float"].against][-1] == "NOT_FINISHED"
    assert eventually(lambda: tree.governors() == {"schedutil"})


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_the_governor_is_given_back_when_the_host_is_killed(
    number: int, generated_model: ModelByName, tmp_path: Path, tree: Tree
) -> None:
    words = ["bench", str(generated_model("conv_cnn")), "--device", "local:", "--run-dir", str(tmp_path / "run"),
             "--variant", "float", "--seconds", "600", "--governor", "performance"]  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "edgequant", *words], stdout=-3, stderr=-3) as host:
        assert eventually(lambda: tree.governors() == {"performance"})
        os.kill(host.pid, number)
        host.wait(LONG)
    assert eventually(lambda: tree.governors() == {"schedutil"})
