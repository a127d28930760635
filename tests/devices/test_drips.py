"""Deadlines hold against what never stops and never pauses: a byte now and then, or events without end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb_wire import Address, Wire
from edgequant.devices.collect import after_mark
from edgequant.devices.local import LocalDevice
from edgequant.devices.ssh import SshDevice
from edgequant.errors import DeadlineExceeded
from tests.beds.sshd import ALIAS, SshServer
from tests.runner.support import pretend
from tests.waiting import LONG

DRIP = ["sh", "-c", "while :; do printf x; sleep 0.02; done"]
LIMIT_S = 1.0


@pytest.fixture
def local() -> Iterator[LocalDevice]:
    with LocalDevice() as device:
        yield device


def late(work: Callable[[], object]) -> None:
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        work()
    assert time.monotonic() - start < LONG


def test_a_local_process_that_drips(local: LocalDevice) -> None:
    late(lambda: local.run(DRIP, Deadline(LIMIT_S)))


EVENTS = """
    hello()
    frame, = [stream.read()]
    while True:
        stream.write(wire.EVENT, {"id": frame.header["id"], "event": "waiting", "holder": "x"})
        time.sleep(0.01)
"""


def test_a_runner_that_sends_events_without_end(local: LocalDevice) -> None:
    session = pretend(local, EVENTS)
    session.start(Deadline(LONG))
    late(lambda: session.request("lock", deadline=Deadline(LIMIT_S)))
    session.close()


def test_a_runner_that_drips_its_answer(local: LocalDevice) -> None:
    code = """
        hello()
        stream.read()
        for byte in wire.PREFIX.pack(b"EQF1", 2, bytes(3), 8 << 20, 0, 0) + bytes(8 << 20):
            os.write(1, bytes([byte])); time.sleep(0.01)
    """
    session = pretend(local, code)
    session.start(Deadline(LONG))
    late(lambda: session.request("facts", deadline=Deadline(LIMIT_S)))
    session.close()


@pytest.mark.ssh
def test_a_login_shell_that_drips(sshd: SshServer, tmp_path: Path) -> None:
    if not sshd.accounts:
        pytest.skip("needs an account with its own .bashrc: run as root")
    config = tmp_path / "ssh_config"  # of its own: the server is everybody's
    config.write_text(sshd.config.read_text().replace(f"User {sshd.user}", "User eqdrip"))
    with SshDevice(f"ssh://{ALIAS}", config_path=config) as device:
        device.open(Deadline(LONG))
        late(lambda: device.run(["true"], Deadline(LIMIT_S)))


@pytest.mark.ssh
def test_a_command_over_ssh_that_drips(sshd: SshServer) -> None:
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config) as device:
        device.open(Deadline(LONG))
        late(lambda: device.run(DRIP, Deadline(LIMIT_S)))


def test_an_adb_server_that_drips(tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"ffff")
            while not stop.wait(0.01):
                connection.send(b"x")

    server = threading.Thread(target=serve)
    server.start()
    wire = Wire(Address(f"tcp:127.0.0.1:{listening.getsockname()[1]}"), Deadline(LONG))
    try:
        late(lambda: wire.text(Deadline(LIMIT_S), "asking"))
    finally:
        stop.set()
        server.join()
        wire.close()
        listening.close()


def test_a_mark_is_found_wherever_it_is_cut() -> None:
    mark = b"edgequant-0123456789abcdef"
    stream = b"+ sh " + mark + b" printf\n" + mark + b" 4711\nrest"
    for step in (1, 2, 7, len(stream)):
        held, found = bytearray(), None
        for at in range(0, len(stream), step):
            piece = stream[at : at + step]
            held += piece
            if found := after_mark(held, mark, len(piece)):
                break
        assert found is not None
        assert found[0] == 4711
        assert bytes(held[found[1] :]) == stream[stream.index(b"rest") :][: len(held) - found[1]]


def test_a_mark_is_looked_for_in_linear_time() -> None:
    mark, held, start = b"edgequant-0123456789abcdef", bytearray(), time.process_time()
    for _ in range(1 << 18):
        held += b"e"
        assert after_mark(held, mark, 1) is None
    assert time.process_time() - start < LONG
