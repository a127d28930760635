"""A session with a real runner on this host, and with programs that only pretend to be one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import DeadlineExceeded, DeviceError, RunnerError
from edgequant.runner.answers import Facts
from edgequant.runner.bundle import runner_file
from edgequant.runner.client import Loaded, MnnRunner, TimeResult
from edgequant.runner.session import LOG_LIMIT, TAIL_LINES, ErrorLog, RunnerSession
from edgequant.spec import RunOptions

ROOT = Path(__file__).parents[2]
TIME = Deadline(None)  # every test has a time limit of its own
ModelByName = Callable[[str], Path]


@pytest.fixture
def device() -> Iterator[LocalDevice]:
    with LocalDevice() as opened:
        yield opened


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner_file(tmp_path_factory.mktemp("bundle"))[0]


@pytest.fixture
def session(device: LocalDevice, script: Path, tmp_path: Path) -> Iterator[RunnerSession]:
    with RunnerSession(device, [sys.executable, "-u", str(script)], log=tmp_path / "runner.log") as started:
        started.start(Deadline(60))
        yield started


@pytest.fixture
def runner(session: RunnerSession) -> MnnRunner:
    return MnnRunner(session, RunOptions(timeout=60), uri="local:")


@pytest.fixture
def cnn(runner: MnnRunner, generated_model: ModelByName, as_mnn: Callable[..., Path]) -> Loaded:
    return runner.load(str(as_mnn(generated_model("conv_cnn"))), "normal")


@pytest.fixture
def image() -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, 3, 32, 32), np.float32)}


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def python(code: str, *arguments: str) -> list[str]:
    """A program that may pretend to be a runner: `say` sends frames, `heard` takes requests."""
    prelude = """
        import json, os, signal, sys, time
        sys.path.insert(0, sys.argv[1])
        from device_scripts import wire, server
        import numpy as np
        stream = server.Stream(0, 1)
        HELLO = {"id": 1, "ok": True, "runner": "x", "protocol": wire.PROTOCOL, "pid": os.getpid(), "python": "3",
                 "mnn": "3.6.1", "numpy": "2"}
        def hello(**changed):
            stream.write_raw(wire.PREAMBLE)
            stream.read()
            stream.write(wire.RESPONSE, dict(HELLO, **changed))
    """
    return [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code), str(ROOT), *arguments]


def pretend(device: LocalDevice, code: str, **options: object) -> RunnerSession:
    return RunnerSession(device, python(code), **options)


# ---- a good one


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
    assert gone(runner.hello.pid)


def test_close_twice_and_requests_after_it(session: RunnerSession) -> None:
    session.close()
    session.close()
    with pytest.raises(RunnerError) as caught:
        session.request("hello", deadline=TIME)
    assert caught.value.code == "RUNNER_DIED"


def test_close_before_start(device: LocalDevice, script: Path) -> None:
    RunnerSession(device, [sys.executable, str(script)]).close()


# ---- deaths


def killed_when(ready: Callable[[], bool], pid: int, number: int) -> threading.Thread:
    def kill() -> None:
        while not ready():
            time.sleep(0.005)
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
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"did not finish 'run' within 0\.3 s") as caught:
            session.request("run", tensors={"x": np.zeros(1 << 20)}, deadline=Deadline(0.3))
        assert time.monotonic() - start < 5
        assert caught.value.code == "TIMEOUT"
        assert gone(pid)
        with pytest.raises(RunnerError, match="is not running"):
            session.request("run", deadline=TIME)


def test_a_deadline_inside_mnn(runner: MnnRunner, session: RunnerSession, cnn: Loaded, image: dict) -> None:
    header = {"handle": cnn.handle, "warmup": 0, "repeat": 10**6, "min_seconds": 600, "max_seconds": 600}
    with pytest.raises(DeadlineExceeded):
        session.request("time", header, image, deadline=Deadline(0.5))
    assert gone(runner.hello.pid)


def test_no_hello_in_time(device: LocalDevice, tmp_path: Path) -> None:
    code = (
        "open(sys.argv[2], 'w').write(str(os.getpid())); print('waiting', file=sys.stderr, flush=True)\ntime.sleep(600)"
    )
    note = tmp_path / "pid"
    session = RunnerSession(device, python(code, str(note)))
    with pytest.raises(DeadlineExceeded, match="did not say hello within 2 s") as caught:
        session.start(Deadline(2))
    assert caught.value.evidence["stderr"] == ["waiting"]
    assert gone(int(note.read_text()))
    session.close()


# ---- not started


def refused(device: LocalDevice, argv: list[str]) -> DeviceError:
    session = RunnerSession(device, argv)
    with pytest.raises(DeviceError) as caught:
        session.start(TIME)
    session.close()
    assert caught.value.where == "local:"
    return caught.value


@pytest.mark.parametrize("command", [["/nonexistent/python3"], ["sh", "-c", "exec no-such-python"]], ids=str)
def test_no_python(command: list[str]) -> None:
    with LocalDevice(python="no-such-python") as device:
        error = refused(device, command)
    assert error.code == "PYTHON_MISSING"
    assert "no-such-python" in str(error)
    assert "--python" in str(error.hint)


def test_no_mnn(device: LocalDevice, script: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    error = refused(device, [str(tmp_path / "empty" / "bin" / "python"), str(script)])
    assert error.code == "MNN_MISSING"
    assert "pip install MNN numpy" in str(error.hint)


def test_no_numpy(device: LocalDevice, script: Path, tmp_path: Path) -> None:
    for entry in Path(sysconfig.get_path("platlib")).iterdir():
        if entry.name.lower().startswith(("mnn", "_mnn")):
            (tmp_path / entry.name).symlink_to(entry)
    error = refused(device, ["env", f"PYTHONPATH={tmp_path}", sys.executable, "-S", str(script)])
    assert error.code == "NUMPY_MISSING"


def test_python_too_old(device: LocalDevice) -> None:
    error = refused(device, ["sh", "-c", "echo 'edgequant-runner: PYTHON_TOO_OLD 3.6' >&2; exit 4"])
    assert error.code == "PYTHON_TOO_OLD"
    assert "3.6" in str(error)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('Welcome!'); sys.exit(3)", "exit status 3; its last line: it printed nothing"),
        ("print('cannot map', file=sys.stderr); os.abort()", r"signal 6 \(SIGABRT\)"),
        ("os.kill(os.getpid(), signal.SIGILL)", r"signal 4 \(SIGILL\)"),
    ],
)
def test_ended_before_hello(device: LocalDevice, code: str, said: str) -> None:
    error = refused(device, python(code))
    assert error.code == "RUNNER_NOT_STARTED"
    assert re.search(said, str(error))


def test_what_it_printed_instead_is_evidence(device: LocalDevice) -> None:
    error = refused(device, python("print('Welcome!'); sys.exit(3)"))
    assert "Welcome!" in error.evidence["stdout"]


def test_endless_noise_instead_of_hello(device: LocalDevice) -> None:
    start = time.monotonic()
    error = refused(device, ["sh", "-c", "while :; do echo 'Last login: never'; done"])
    assert error.code == "RUNNER_PROTOCOL"
    assert "Last login" in str(error)
    assert time.monotonic() - start < 8


def test_a_banner_before_hello(device: LocalDevice) -> None:
    with pretend(device, "os.write(1, b'Last login: never\\n'); hello()") as session:
        session.start(TIME)
        assert session.noise == b"Last login: never\n"


# ---- nonsense


ANSWERS = {
    "garbage": "os.write(1, b'MNN: some text in the middle of it\\n' * 3)",
    "damaged": "f = bytearray(b''.join(wire.encode(2, {'id': 2, 'ok': True}))); f[-1] ^= 1; os.write(1, f)",
    "another request's": "stream.write(2, {'id': 99, 'ok': True})",
    "no id": "stream.write(2, {'ok': True})",
    "no ok": "stream.write(2, {'id': 2})",
    "ok of another type": "stream.write(2, {'id': 2, 'ok': {}})",
    "error of another type": "stream.write(2, {'id': 2, 'ok': False, 'error': 'broken'})",
    "error code of another form": "stream.write(2, {'id': 2, 'ok': False, 'error': {'code': 'a b', 'message': ''}})",
    "a request": "stream.write(1, {'id': 2, 'ok': True})",
    "lying tensors": "stream.write(2, {'id': 2, 'ok': True, 'tensors': [{'name': 'y'}]})",
    "negative time": "stream.write(2, {'id': 2, 'ok': True, 'ms': -1})",
    "no time": "stream.write(2, {'id': 2, 'ok': True})",
    "time as text": "stream.write(2, {'id': 2, 'ok': True, 'ms': 'fast'})",
    "bad samples": "stream.write(3, {'id': 2, 'event': 'samples', 'samples': ['x']})",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_nonsense(device: LocalDevice, kind: str) -> None:
    from edgequant.runner.answers import RunAnswer, SamplesEvent

    with pretend(device, f"hello(); stream.read(); {ANSWERS[kind]}; time.sleep(600)") as session:
        pid = session.start(TIME).pid

        def work() -> None:
            header, _ = session.request(
                "run", deadline=TIME, on_event=lambda event: session.checked(SamplesEvent, event)
            )
            session.checked(RunAnswer, header)

        with pytest.raises(RunnerError) as caught:
            work()
        assert caught.value.code == "RUNNER_PROTOCOL"
        assert "devices clean local:" in str(caught.value.hint)
        assert gone(pid)


@pytest.mark.parametrize("changed", [{"protocol": 99}, {"protocol": "new"}, {"pid": None}, {"mnn": "x" * 101}], ids=str)
def test_a_hello_that_does_not_fit(device: LocalDevice, changed: dict[str, object]) -> None:
    assert refused(device, python(f"hello(**{changed!r}); time.sleep(600)")).code == "RUNNER_PROTOCOL"


def test_a_newer_runner_may_say_more(device: LocalDevice) -> None:
    with pretend(device, "hello(news='yes')") as session:
        assert session.start(TIME).runner == "x"


def test_facts_are_checked(device: LocalDevice) -> None:
    answer = {"id": 2, "ok": True, "facts": {"arch": "arm", "cores": -1}}
    with pretend(device, f"hello(); stream.read(); stream.write(2, {answer!r}); time.sleep(600)") as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="cores") as caught:
            MnnRunner(session, RunOptions(), uri="local:")
    assert caught.value.code == "RUNNER_PROTOCOL"
    assert Facts(arch="arm").cores is None


def test_a_job_that_fails_leaves_it_alive(session: RunnerSession) -> None:
    for _ in range(2):
        with pytest.raises(RunnerError) as caught:
            session.request("run", {"handle": 5}, deadline=TIME)
        assert caught.value.code == "HANDLE_UNKNOWN"
    assert session.request("hello", deadline=TIME)[0]["ok"]


# ---- its stderr


def test_the_log_is_bounded_and_its_tail_quoted(device: LocalDevice, tmp_path: Path) -> None:
    code = """
        hello(); stream.read()
        for number in range(100): sys.stderr.write("x" * 100_000 + "\\n")
        for number in range(30): print("line", number, file=sys.stderr)
        sys.exit(1)
    """
    log = tmp_path / "log"
    with pretend(device, code, log=log) as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="its last line: line 29") as caught:
            session.request("run", deadline=TIME)
    assert log.stat().st_size == LOG_LIMIT
    assert caught.value.evidence["stderr"] == [f"line {number}" for number in range(30 - TAIL_LINES, 30)]


def test_long_lines_are_cut() -> None:
    log = ErrorLog(None)
    for _ in range(100):
        log.add(b"y" * 100_000)
    log.add(b"\n\xff end of it")
    tail = log.tail()
    assert max(map(len, tail)) <= 4000
    assert tail[-1] == "\ufffd end of it"


def test_a_full_disk_does_not_stop_it(device: LocalDevice) -> None:
    code = "hello(); stream.read(); sys.stderr.write('z' * 5_000_000); stream.write(2, {'id': 2, 'ok': True})"
    with pretend(device, code, log=Path("/dev/full")) as session:
        session.start(TIME)
        assert session.request("run", deadline=Deadline(20))[0]["ok"]


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
    assert gone(pid)
