"""A runner that does not start, and why: no Python, no MNN, an early end, noise instead of hello."""

from __future__ import annotations

import re
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice, LocalProcess
from edgequant.errors import DeadlineExceeded
from edgequant.runner.session import RunnerSession
from tests.runner.support import TIME, pretend, python, refused
from tests.waiting import LONG, ended


class Patient(LocalDevice):
    """What it starts is handed over when it has said something on stderr, however long that takes."""

    pid: int

    def start(
        self, argv: Sequence[str], deadline: Deadline, *, on_stderr: Callable[[bytes], None] | None = None
    ) -> LocalProcess:
        if argv[0] != sys.executable or on_stderr is None:
            return super().start(argv, deadline, on_stderr=on_stderr)
        heard = threading.Event()
        process = super().start(argv, deadline, on_stderr=lambda data: (on_stderr(data), heard.set()))
        assert heard.wait(LONG)
        self.pid = process._child.pid
        return process


def test_no_hello_in_time() -> None:
    code = "print('waiting', file=sys.stderr, flush=True)\ntime.sleep(600)"
    with Patient() as device:
        session = RunnerSession(device, python(code))
        with pytest.raises(DeadlineExceeded, match="did not say hello within 2 s") as caught:
            session.start(Deadline(2))
        assert caught.value.evidence["stderr"] == ["waiting"]
        assert ended(device.pid)
        session.close()


@pytest.mark.parametrize("command", [["/nonexistent/python3"], ["sh", "-c", "exec no-such-python"]], ids=str)
def test_no_python(command: list[str]) -> None:
    with LocalDevice(python="no-such-python") as device:
        error = refused(device, command)
    assert error.code == "PYTHON_MISSING"
    assert "no-such-python" in str(error)
    assert "--python" in str(error.hint)


def test_a_python_that_cannot_be_executed(device: LocalDevice, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\n")
    for command in ([str(tmp_path / "python")], ["sh", "-c", f"exec {tmp_path}/python"]):
        error = refused(device, command)
        assert error.code == "PYTHON_NOT_EXECUTABLE"
        assert "Permission denied" in error.message
        assert "chmod" in str(error.hint)


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
    error = refused(device, ["sh", "-c", "while :; do echo 'Last login: never'; done"])
    assert error.code == "RUNNER_PROTOCOL"
    assert "Last login" in str(error)


def test_a_banner_before_hello(device: LocalDevice) -> None:
    with pretend(device, "os.write(1, b'Last login: never\\n'); hello()") as session:
        session.start(TIME)
        assert session.noise == b"Last login: never\n"


@pytest.mark.parametrize("changed", [{"protocol": 99}, {"protocol": "new"}, {"pid": None}, {"mnn": "x" * 101}], ids=str)
def test_a_hello_that_does_not_fit(device: LocalDevice, changed: dict[str, object]) -> None:
    assert refused(device, python(f"hello(**{changed!r}); time.sleep(600)")).code == "RUNNER_PROTOCOL"


def test_a_newer_runner_may_say_more(device: LocalDevice) -> None:
    with pretend(device, "hello(news='yes')") as session:
        assert session.start(TIME).runner == "x"
