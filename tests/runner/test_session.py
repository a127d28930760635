"""A session with a real runner on this host: its whole life, and what is left when it is over."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edgequant.devices.local import LocalDevice
from edgequant.errors import RunnerError
from edgequant.runner.client import Loaded, MnnRunner
from edgequant.runner.session import RunnerSession
from tests.runner.support import TIME
from tests.waiting import ended


def test_a_whole_life(runner: MnnRunner, cnn: Loaded, image: dict[str, np.ndarray], session: RunnerSession) -> None:
    assert session.noise == b""
    assert runner.hello.pid > 0
    assert runner.facts.arch == os.uname().machine
    assert runner.threads == min(4, os.cpu_count() or 1)
    result = runner.run(cnn, image)
    assert result.outputs["y"].shape == (1, 10)
    assert result.ms > 0
    timing = runner.time(cnn, image, warmup=2, repeat=10)
    assert len(timing.samples) == 10
    assert timing.warmup == 2
    assert timing.end is not None
    assert timing.end.complete
    assert runner.session_memory(cnn, {"x": (1, 3, 32, 32)}) > 0
    runner.unload(cnn)
    with pytest.raises(RunnerError) as caught:
        runner.run(cnn, image)
    assert caught.value.code == "HANDLE_UNKNOWN"
    runner.close()
    assert ended(runner.hello.pid)


def test_close_twice_and_requests_after_it(session: RunnerSession) -> None:
    session.close()
    session.close()
    with pytest.raises(RunnerError) as caught:
        session.request("hello", deadline=TIME)
    assert caught.value.code == "RUNNER_DIED"


def test_close_before_start(device: LocalDevice, script: Path) -> None:
    RunnerSession(device, [sys.executable, str(script)]).close()


def test_a_job_that_fails_leaves_it_alive(session: RunnerSession) -> None:
    for _ in range(2):
        with pytest.raises(RunnerError) as caught:
            session.request("run", {"handle": 5}, deadline=TIME)
        assert caught.value.code == "HANDLE_UNKNOWN"
    assert session.request("hello", deadline=TIME)[0]["ok"]
