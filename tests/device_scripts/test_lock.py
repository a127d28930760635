"""One edgequant at a time on a device: the lock between real processes."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant.device_scripts import lock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such sockets; elsewhere: Unsupported")

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from edgequant.device_scripts.lock import Lock
held = Lock()
assert held.acquire(sys.argv[1], 0, print) is None
{then}
sys.stdin.read()
"""
SAY = 'print("held", flush=True)'
COMPUTE = "import ctypes; ctypes.PyDLL(None).system(b'echo held; read line')"
"""As native code does: it keeps the interpreter lock from before the line is out."""


@pytest.fixture
def scope(monkeypatch: pytest.MonkeyPatch) -> str:
    """A lock of this test's own."""
    name = f"-test-{secrets.token_hex(6)}"
    monkeypatch.setenv(lock.SCOPE, name)
    return name


class Holder:
    """Another process that has the lock."""

    def __init__(self, who: str, then: str = SAY) -> None:
        command = [sys.executable, "-c", HOLD.format(then=then), who]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == b"held\n"

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.child.send_signal(number)
        self.child.wait(60)

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.child.kill()
        self.child.wait(60)
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        self.child.stdout.close()


def test_the_second_learns_who_has_it(scope: str) -> None:
    heard: list[str] = []
    with Holder("alice@desk since 9:00"):
        assert lock.Lock().acquire("bob", 0.2, heard.append) == "alice@desk since 9:00"
        assert heard == ["alice@desk since 9:00"]
    free = lock.Lock()
    assert free.acquire("bob", 0, heard.append) is None
    assert free.acquire("bob", 0, heard.append) is None  # it has it already


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_second_gets_it_when_the_first_ends(scope: str, number: signal.Signals) -> None:
    with Holder("alice") as first:

        def end(holder: str) -> None:
            assert holder == "alice"
            threading.Timer(0.2, first.end, [number]).start()

        assert lock.Lock().acquire("bob", 60, end) is None


def test_of_many_each_gets_its_turn(scope: str) -> None:
    """A dozen processes that wait for each other: nobody starves, nobody has it together with another."""
    code = (
        "import os, sys\nfrom device_scripts.lock import Lock\n"
        "held = Lock()\nassert held.acquire(str(os.getpid()), 60, lambda holder: None) is None\n"
        "os.mkdir(sys.argv[1])\nos.rmdir(sys.argv[1])\n"
    )
    folder = f"/tmp/edgequant{scope}"
    children = [subprocess.Popen([sys.executable, "-c", code, folder], cwd=ROOT) for _ in range(12)]
    assert [child.wait(120) for child in children] == [0] * 12


def test_a_holder_that_computes_cannot_speak(scope: str) -> None:
    """Native code holds the interpreter lock: the second must not wait for its word beyond the time it has."""
    with Holder("alice", COMPUTE):
        started = time.monotonic()
        assert lock.Lock().acquire("bob", 0.3, lambda holder: None) == "a process that says nothing"
        assert time.monotonic() - started < 30


@pytest.fixture
def rude(scope: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(lock.NAME + scope)
        there.listen(64)
        yield there


def test_a_holder_that_hangs_up_at_once(rude: socket.socket) -> None:
    def hang_up() -> None:
        while True:
            try:
                rude.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=hang_up, daemon=True).start()
    assert lock.Lock().acquire("bob", 0.5, lambda holder: None) is not None
    rude.shutdown(socket.SHUT_RDWR)


def test_a_holder_that_talks_nonsense(rude: socket.socket) -> None:
    def talk() -> None:
        waiter, _ = rude.accept()
        waiter.sendall(b"\xff\x00\x1b[2J" * 1000)
        time.sleep(30)

    threading.Thread(target=talk, daemon=True).start()
    holder = lock.Lock().acquire("bob", 0.5, lambda holder: None)
    assert holder is not None
    assert len(holder) <= 1000


def test_what_the_system_refuses_is_told(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "NAME", "/proc/no-socket-can-be-made-here")
    with pytest.raises(lock.Unsupported):
        lock.Lock().acquire("bob", 0, lambda holder: None)


def test_a_long_name_is_cut(scope: str) -> None:
    with Holder("x" * 5000):
        holder = lock.Lock().acquire("bob", 0, lambda holder: None)
    assert holder is not None
    assert set(holder) == {"x"}
    assert len(holder) <= 600
    assert os.environ[lock.SCOPE] == scope
