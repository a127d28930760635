"""Runners that die in the middle of the main job: what is reported, and what is left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgequant.archive.folder import device_capture
from edgequant.archive.open import open_run
from edgequant.lab.probes import latency
from edgequant.lab.take import Taking
from edgequant.spec import RunOptions, Variant
from tests.beds.models import ModelByName
from tests.jobs.fault_cases import MANY, check_partial
from tests.jobs.support import capture, do, once_run, runners
from tests.waiting import eventually

DYNAMIC = Variant.parse("dynamic:8")


@contextlib.contextmanager
def when(condition: Callable[[], Any], act: Callable[[Any], object]) -> Iterator[list[Any]]:
    """Do `act` beside the body as soon as `condition` is true; yields the list of what it was done with."""
    done: list[Any] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            with contextlib.suppress(psutil.Error, OSError):
                if found := condition():
                    done.append(found)
                    act(found)
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield done
    finally:
        stop.set()
        watcher.join()
    assert done, "it never came to that"


def test_runner_killed_in_the_middle_of_a_run(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with once_run(3, psutil.Process.kill):
        report = do(generated_model("conv_cnn"), run_dir, "dynamic:8", "fp16", inputs=cases)
    killed, after = report.runs
    assert killed.verdict == report.verdict == "ERROR"
    assert report.verdict.exit_code == 3
    assert killed.error is not None
    assert killed.error.code == "RUNNER_DIED"
    assert "SIGKILL" in killed.error.message
    assert killed.error.evidence["during"] == "run"
    assert killed.error.hint
    check_partial(run_dir, killed, 3)
    assert killed.low_memory_engaged is None
    assert killed.latency_ms is None
    assert killed.memory_mb is not None
    assert killed.memory_mb.why_null["session"]
    assert after.verdict == "PASS"
    assert len(capture(run_dir, after)) == MANY
    assert not runners()


@pytest.mark.slow
def test_runner_killed_in_the_middle_of_the_timing(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "TIMING_MAX_SECONDS", 120.0)  # more than it takes on the busiest machine
    run_dir = tmp_path / "run"
    started: dict[int, float] = {}
    timing, take = threading.Event(), latency.LatencyProbe.take

    def taking(self: latency.LatencyProbe, taken: Taking) -> None:
        timing.set()
        take(self, taken)

    monkeypatch.setattr(latency.LatencyProbe, "take", taking)

    def busy() -> psutil.Process | None:
        """The runner that has computed for a second and a half since its last case, so that samples have come."""
        if not timing.is_set():
            return None
        for process in runners():
            used = process.cpu_times().user
            if used > started.setdefault(process.pid, used) + 1.5:
                return process
        return None

    def kill(process: psutil.Process) -> None:
        latency.TIMING_MAX_SECONDS = 1.0  # for the run after this one, which nobody kills
        process.kill()

    options = RunOptions(threads=1, repeat=1_000_000)
    with when(busy, kill):
        report = do(generated_model("conv_cnn"), run_dir, "dynamic:8", "fp16", options=options, latency=True)
    killed, after = report.runs
    assert killed.verdict == report.verdict == "ERROR"
    assert killed.error is not None
    assert (killed.error.code, killed.error.evidence["during"]) == ("RUNNER_DIED", "time")
    assert killed.latency_ms is not None
    assert killed.latency_ms.n > 0
    assert not killed.latency_ms.valid
    assert "the runner did not get to the end of the timing" in killed.latency_ms.why_invalid
    assert killed.outputs["y"].verdict == "PASS"
    assert killed.outputs["y"].cases == 2
    kept = open_run(run_dir).capture(device_capture("local:", DYNAMIC))
    assert kept is not None
    assert len(kept.timings[0].samples_ms) == killed.latency_ms.n
    assert after.verdict == "PASS"
    assert after.latency_ms is not None
    assert not after.latency_ms.valid  # 1 000 000 were wanted
    assert "1000000 were wanted" in after.latency_ms.why_invalid[0]


def test_host_runner_killed(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    """The runner that measures the conversion: nothing is known of that case, which is no fault of the model."""
    run_dir = tmp_path / "run"
    with once_run(4, psutil.Process.kill, on_host=True):
        report = do(generated_model("conv_cnn"), run_dir, "weight:8", inputs=cases)
    (run,) = report.runs
    (finding,) = [f for f in report.findings if f.code == "CONVERSION_RUN_FAILED"]
    assert "SIGKILL" in finding.message
    assert run.verdict == report.verdict == "PASS"
    assert run.outputs["y"].cases == MANY


def test_a_waiting_runner_that_died_is_replaced(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    """The device's runner is started at once and waits for this host: its death meanwhile is nobody's verdict."""
    run_dir = tmp_path / "run"

    def kill_the_other(host: psutil.Process) -> None:
        def other() -> list[psutil.Process]:
            return [each for each in runners() if each.pid != host.pid]

        assert eventually(other)
        other()[0].kill()

    with once_run(4, kill_the_other, on_host=True):
        report = do(generated_model("conv_cnn"), run_dir, "weight:8", inputs=cases)
    assert report.runs[0].verdict == "PASS"
    assert report.runs[0].error is None
