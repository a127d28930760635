"""A runner that dies, or does not answer in time: what is said of it, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import DeadlineExceeded, RunnerError
from edgequant.runner.client import Loaded, MnnRunner, TimeResult
from edgequant.runner.session import RunnerSession
from tests.runner.support import TIME, pretend
from tests.waiting import ended, eventually

# ---- deaths


def killed_when(ready: Callable[[], bool], pid: int, number: int) -> threading.Thread:
    def kill() -> None:
        if eventually(ready):
            os.kill(pid, number)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGILL], ids=lambda number: number.name)
def test_death_while_timing_keeps_the_samples(
    runner: MnnRunner, cnn: Loaded, image: dict[str, np.ndarray], number: signal.Signals
) -> None:
    result = TimeResult()
    killer = killed_when(lambda: bool(result.samples), runner.hello.pid, number)
    with pytest.raises(RunnerError) as caught:
        runner.time(cnn, image, warmup=0, repeat=1_000_000, into=result)
    killer.join()
    assert caught.value.code == "RUNNER_DIED"
    assert number.name in str(caught.value)
    assert caught.value.where == "local:"
    assert caught.value.evidence["signal"] == number
    assert caught.value.evidence["during"] == "time"
    assert not caught.value.transient
    assert result.samples
    assert result.end is None
    with pytest.raises(RunnerError, match="is not running"):
        runner.run(cnn, image)


def test_death_between_two_requests(runner: MnnRunner, cnn: Loaded, image: dict[str, np.ndarray]) -> None:
    os.kill(runner.hello.pid, signal.SIGKILL)
    with pytest.raises(RunnerError, match="SIGKILL") as caught:
        runner.run(cnn, image)
    assert caught.value.code == "RUNNER_DIED"


def test_a_real_crash(device: LocalDevice) -> None:
    with pretend(device, "hello(); stream.read(); print('about to crash', file=sys.stderr, flush=True)\n"
                 "import ctypes; ctypes.string_at(0)") as session:  # fmt: skip
        session.start(TIME)
        with pytest.raises(RunnerError, match=r"died during 'run': signal 11 \(SIGSEGV\)") as caught:
            session.request("run", deadline=TIME)
    assert caught.value.code == "RUNNER_DIED"
    assert "about to crash" in caught.value.evidence["stderr"]
    assert caught.value.hint


def test_exit_status_and_last_line(device: LocalDevice) -> None:
    code = "hello(); stream.read(); print('first\\nthe reason', file=sys.stderr); sys.exit(7)"
    with pretend(device, code) as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="exit status 7; its last line: the reason") as caught:
            session.request("run", deadline=TIME)
    assert caught.value.code == "RUNNER_DIED"
    assert caught.value.evidence["exit_code"] == 7


def test_death_inside_an_answer(device: LocalDevice) -> None:
    code = """
        hello(); stream.read()
        frame = b"".join(wire.encode(wire.RESPONSE, {"id": 2, "ok": True}, {"y": np.zeros(1000)}))
        stream.write_raw(frame[:500]); os.kill(os.getpid(), signal.SIGKILL)
    """
    with pretend(device, code) as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="SIGKILL") as caught:
            session.request("run", deadline=TIME)
    assert caught.value.code == "RUNNER_DIED"


def test_death_while_it_is_sent_a_large_request(device: LocalDevice) -> None:
    with pretend(device, "hello(); os.read(0, 10); sys.exit(5)") as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="exit status 5") as caught:
            session.request("run", tensors={"x": np.zeros(1 << 22)}, deadline=TIME)
    assert caught.value.code == "RUNNER_DIED"


# ---- deadlines


@pytest.mark.parametrize("code", ["hello(); stream.read(); time.sleep(600)", "hello(); time.sleep(600)"])
def test_a_deadline_ends_it(device: LocalDevice, code: str) -> None:
    with pretend(device, code) as session:
        pid = session.start(TIME).pid
        with pytest.raises(DeadlineExceeded, match=r"did not finish 'run' within 0\.3 s") as caught:
            session.request("run", tensors={"x": np.zeros(1 << 20)}, deadline=Deadline(0.3))
        assert caught.value.code == "TIMEOUT"
        assert ended(pid)
        with pytest.raises(RunnerError, match="is not running"):
            session.request("run", deadline=TIME)


def test_a_deadline_inside_mnn(runner: MnnRunner, session: RunnerSession, cnn: Loaded, image: dict) -> None:
    header = {"handle": cnn.handle, "warmup": 0, "repeat": 10**6, "min_seconds": 600, "max_seconds": 600}
    with pytest.raises(DeadlineExceeded):
        session.request("time", header, image, deadline=Deadline(0.5))
    assert ended(runner.hello.pid)


def test_nothing_is_left_when_the_host_dies(script: Path) -> None:
    # A host killed outright cannot close anything: the runner has to notice by itself.
    code = """
        import sys, time
        from edgequant.deadline import Deadline
        from edgequant.devices.local import LocalDevice
        from edgequant.runner.session import RunnerSession
        session = RunnerSession(LocalDevice(), [sys.executable, sys.argv[1]])
        print(session.start(Deadline(60)).pid, flush=True)
        time.sleep(600)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code), str(script)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        host.kill()
    assert ended(pid)
