"""A fresh runner per trial: its memory tells of one model, and the device stays ours while it comes."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from device_scripts import lock
from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult
from edgequant.errors import DeviceError
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.progress import Progress
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.jobs.support import ssh_home
from tests.lab.freshness import knows_nothing_of_what_ran_before
from tests.waiting import LONG, ended, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a new process")

# Stands before the runner in its process, and makes what was to start it anew fail in some way.
BROKEN = """
import os, runpy, sys, time
def execv(*arguments):
    {how}
os.execv = execv
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Exclusive(LocalDevice):
    """This host as a device that is there to be measured."""

    asked = 0

    @property
    def exclusive(self) -> bool:
        return True

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        self.asked += 1
        return super().run(argv, deadline, stdin=stdin, max_output=max_output)


@pytest.fixture(autouse=True)
def scope(monkeypatch: pytest.MonkeyPatch) -> str:
    """A lock of this test's own."""
    name = f"-test-{secrets.token_hex(6)}"
    monkeypatch.setenv(lock.SCOPE, name)
    return name


Make = Callable[..., Session]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Session] = []

    def session(device: LocalDevice, **run_options: object) -> Session:
        options, run = DeviceOptions(work_dir=str(tmp_path / "work")), RunOptions(threads=1, **run_options)
        made.append(Session(device, options, run, log=tmp_path / "runner.log", progress=Progress()))
        made[-1].open()
        made[-1].own()
        return made[-1]

    yield session
    for each in made:
        each.close()


@pytest.fixture
def small(generated_model: ModelByName, as_mnn: Callable[..., Path]) -> Path:
    return as_mnn(generated_model("conv_cnn"))


@pytest.fixture
def large(generated_model: ModelByName, as_mnn: Callable[..., Path]) -> Path:
    return as_mnn(generated_model("big_mlp"))


@pytest.fixture
def over_ssh(sshd: SshServer, scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    for key, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(key, value)
    python = _script(tmp_path / "python", f'#!/bin/sh\n{lock.SCOPE}={scope} exec {sys.executable} "$@"\n')
    options = DeviceOptions(work_dir=str(tmp_path / "work"), python=python)
    with open_session(f"ssh://{ALIAS}", options, RunOptions(threads=1), log=tmp_path / "runner.log") as session:
        session.own()
        yield session


def _script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("kind", [LocalDevice, Exclusive])
def test_memory_of_a_model_whatever_ran_before_it(
    kind: type[LocalDevice], make: Make, small: Path, large: Path
) -> None:
    knows_nothing_of_what_ran_before(make(kind()), small, large)


@pytest.mark.ssh
def test_memory_of_a_model_over_ssh(over_ssh: Session, small: Path, large: Path) -> None:
    pid = over_ssh.runner().hello.pid
    knows_nothing_of_what_ran_before(over_ssh, small, large)
    assert over_ssh.runner().hello.pid == pid


def test_the_first_is_fresh(make: Make, small: Path) -> None:
    session = make(LocalDevice())
    first = session.runner()
    assert session.fresh() is first
    first.load(session.push(small)[0], "normal")
    second = session.fresh()
    assert second is not first
    assert second.hello.pid != first.hello.pid
    assert session.runner() is second


def test_the_process_stays_where_the_device_is_ours(make: Make, small: Path) -> None:
    device = Exclusive()
    session = make(device)
    first = session.runner()
    path = session.push(small)[0]
    (watcher,) = psutil.Process(first.hello.pid).children()
    sent, asked = session.runtime_bytes, device.asked
    first.load(path, "normal")
    second = session.fresh()
    assert second.hello.pid == first.hello.pid
    # Nothing was looked at, hashed or sent again.
    assert (session.runtime_bytes, device.asked) == (sent, asked)
    assert ended(watcher.pid)
    (watcher,) = psutil.Process(second.hello.pid).children()
    second.load(path, "normal")
    session.drop_runner()
    assert ended(watcher.pid)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_it_is_not_bound_to_the_cores_of_the_last(make: Make, small: Path) -> None:
    session = make(Exclusive(), cores=(min(os.sched_getaffinity(0)),))
    session.runner().load(session.push(small)[0], "normal")
    pid = session.fresh().hello.pid
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)


def nobody_else_gets_it(session: Session, model: Path) -> None:
    heard: list[str] = []
    got: list[str | None] = []
    second = threading.Thread(target=lambda: got.append(lock.Lock().acquire("bob", LONG, heard.append)), daemon=True)
    second.start()
    assert eventually(lambda: bool(heard))
    path = session.push(model)[0]
    for _ in range(3):
        session.fresh().load(path, "normal")
    assert not got
    assert len(set(heard)) == 1
    assert f"process {os.getpid()}" in heard[0]
    session.close()
    second.join(LONG)
    assert got == [None]


def test_nobody_else_gets_the_device_meanwhile(make: Make, small: Path) -> None:
    nobody_else_gets_it(make(Exclusive()), small)


@pytest.mark.ssh
def test_nobody_else_gets_the_device_over_ssh(over_ssh: Session, small: Path) -> None:
    nobody_else_gets_it(over_ssh, small)


@pytest.mark.ssh
def test_a_lost_link_is_no_runner_that_died(sshd: SshServer, over_ssh: Session, small: Path) -> None:
    over_ssh.runner().load(over_ssh.push(small)[0], "normal")
    sshd.kill_sessions()
    with pytest.raises(DeviceError) as caught:
        over_ssh.fresh()
    assert caught.value.code == "LINK_LOST"
    over_ssh.fresh().load(over_ssh.push(small)[0], "normal")


@pytest.mark.parametrize("how", ["raise OSError(8, 'no')", "os._exit(9)", "time.sleep(600)"])
def test_what_cannot_be_started_anew_is_replaced(how: str, make: Make, small: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN.format(how=how))
    python = _script(tmp_path / "python", f'#!/bin/sh\nshift\nexec {sys.executable} {tmp_path / "broken.py"} "$@"\n')
    session = make(Exclusive(python=python), timeout=6)
    first = session.runner()
    path = session.push(small)[0]
    first.load(path, "normal")
    second = session.fresh()
    assert second.hello.pid != first.hello.pid
    assert ended(first.hello.pid)
    second.load(path, "normal")
    assert lock.Lock().acquire("bob", 0, lambda holder: None) is not None


def test_a_runner_that_died_idle_is_replaced(make: Make, small: Path) -> None:
    session = make(Exclusive())
    first = session.runner()
    first.load(session.push(small)[0], "normal")
    psutil.Process(first.hello.pid).kill()
    assert session.fresh().hello.pid != first.hello.pid
