"""Commands and long-lived processes over a real sshd, and what happens when they or the link die."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.ssh import SshDevice
from edgequant.errors import DeadlineExceeded, DeviceError
from tests.beds.sshd import ALIAS, SshServer
from tests.devices.support import ODD, soon
from tests.waiting import LONG, OnceReady, ended, eventually

pytestmark = pytest.mark.ssh


@pytest.fixture
def device(sshd: SshServer) -> Iterator[SshDevice]:
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config) as it:
        it.open(soon())
        yield it


def test_arguments_arrive_as_they_are(device: SshDevice) -> None:
    result = device.run(["printf", "%s\\0", *ODD], soon())
    assert result.ok
    assert result.stdout == b"".join(f"{text}\0".encode() for text in ODD)
    assert result.stderr == b""


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 137, 255])
def test_exit_code(device: SshDevice, code: int) -> None:
    result = device.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"], soon())
    assert (result.exit_code, result.signal, result.lost) == (code, None, False)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.ok == (code == 0)


def test_no_such_command(device: SshDevice) -> None:
    result = device.run(["/no/such/command"], soon())
    assert result.exit_code == 127
    assert b"/no/such/command" in result.stderr
    assert b"edgequant-" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_death_by_signal(device: SshDevice, number: signal.Signals) -> None:
    result = device.run(["sh", "-c", f"echo last words; kill -{int(number)} $$"], soon())
    assert (result.exit_code, result.signal, result.lost) == (None, number, False)
    assert result.stdout == b"last words\n"


def test_binary_both_ways(device: SshDevice) -> None:
    data = bytes(range(256)) * 20_000 + b"\r\n\x04\x1a"
    result = device.run(["cat"], Deadline(60), stdin=data)
    assert result.stdout == data


def test_stdin_that_nobody_reads(device: SshDevice) -> None:
    assert device.run(["echo", "done"], soon(), stdin=b"x" * (8 << 20)).stdout == b"done\n"


def test_large_output_on_both_streams(device: SshDevice) -> None:
    size = 20 << 20
    script = f"head -c {size} /dev/zero; head -c {size} /dev/zero | tr '\\0' e >&2"
    result = device.run(["sh", "-c", script], Deadline(120), max_output=size)
    assert len(result.stdout) == size
    assert result.stderr == b"e" * size


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_without_end(device: SshDevice, tmp_path: Path, stream: str) -> None:
    script = 'echo $$ > "$1"; exec cat /dev/zero' + (" >&2" if stream == "stderr" else "")
    file = tmp_path / "pid"
    with pytest.raises(DeviceError) as caught:
        device.run(["sh", "-c", script, "sh", str(file)], soon(), max_output=1 << 20)
    assert caught.value.code == "OUTPUT_TOO_LARGE"
    assert stream in caught.value.message
    assert ended(int(file.read_text()))
    assert device.run(["true"], soon()).ok


def test_a_login_shell_that_talks(sshd: SshServer) -> None:
    if not sshd.accounts:
        pytest.skip("needs an account with its own .bashrc: run as root")
    with SshDevice(sshd.uri_as("eqnoisy"), config_path=sshd.config) as it:
        it.open(soon())
        raw = subprocess.run(
            ["ssh", "-F", str(sshd.config), f"eqnoisy@{ALIAS}", "echo", "word"], capture_output=True, check=True
        )
        assert raw.stdout.startswith(b"Welcome")  # or there would be nothing to test here
        result = it.run(["echo", "word"], soon())
        assert (result.stdout, result.stderr) == (b"word\n", b"")


def test_an_account_without_a_shell(sshd: SshServer) -> None:
    authorized = sshd.base / "authorized_keys"
    before = authorized.read_text()
    try:
        authorized.write_text(f'command="echo only this" {before}')
        with SshDevice(sshd.uri, config_path=sshd.config) as it:
            it.open(soon())
            with pytest.raises(DeviceError) as caught:
                it.run(["true"], soon())
        assert caught.value.code == "NO_SHELL"
        assert "only this" in caught.value.message
    finally:
        authorized.write_text(before)


def test_deadline_kills_the_whole_group(device: SshDevice, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = 'sleep 100 & echo $$ $! > "$1"; trap "" TERM HUP INT; echo before; wait; sleep 100'
    with pytest.raises(DeadlineExceeded) as caught:
        device.run(
            ["sh", "-c", script, "sh", str(pids)], OnceReady(3, lambda: pids.exists() and "\n" in pids.read_text())
        )
    assert "within 3 s" in caught.value.message
    assert caught.value.evidence["stdout"] == "before\n"
    for pid in pids.read_text().split():
        assert ended(int(pid)), pid
    assert device.run(["echo", "next"], soon()).stdout == b"next\n"


def test_many_at_once(device: SshDevice) -> None:
    results: dict[int, bytes] = {}

    def one(number: int) -> None:
        results[number] = device.run(["sh", "-c", f"sleep 0.2; echo {number}"], Deadline(60)).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(8)}


def test_more_sessions_than_the_server_allows(device: SshDevice) -> None:
    started = []

    def room() -> bool:
        try:
            started.append(device.start(["cat"], soon()))
        except DeviceError as error:
            if error.code != "SESSION_REFUSED":
                raise
            return False
        return True

    while room():
        assert len(started) < 30
    started[0].kill()
    assert eventually(room)  # the server takes a moment to count again


# --- long-lived processes ---


def test_duplex(device: SshDevice) -> None:
    said = bytearray()
    process = device.start(["sh", "-c", "echo started >&2; cat; echo over >&2; exit 4"], soon(), on_stderr=said.extend)
    for data in (b"\0\xff\r\n", bytes(range(256)) * 1000, b"x"):
        process.write(memoryview(data), soon())
        back = b""
        while len(back) < len(data):
            back += process.read(len(data) - len(back), soon())
        assert back == data
    with pytest.raises(DeadlineExceeded):
        process.read(1, Deadline(0.3))
    with pytest.raises(DeadlineExceeded):
        process.wait(Deadline(0.3))
    process.close_stdin(soon())
    assert process.read(10, soon()) == b""
    assert process.wait(soon()).exit_code == 4
    assert bytes(said) == b"started\nover\n"


def test_stderr_is_drained_while_nobody_reads(device: SshDevice) -> None:
    total = 0

    def count(data: bytes) -> None:
        nonlocal total
        total += len(data)

    process = device.start(["sh", "-c", "head -c 8000000 /dev/zero >&2; echo done"], soon(), on_stderr=count)
    assert process.read(5, soon()) == b"done\n"
    assert process.wait(soon()).exit_code == 0
    assert total == 8_000_000


def test_a_stderr_callback_that_fails_does_not_stop_the_process(device: SshDevice) -> None:
    def fail(data: bytes) -> None:
        raise ValueError("not here")

    process = device.start(["sh", "-c", "head -c 8000000 /dev/zero >&2; echo done"], soon(), on_stderr=fail)
    assert process.read(5, soon()) == b"done\n"


def test_kill(device: SshDevice) -> None:
    process = device.start(["sh", "-c", "trap '' TERM; echo $$; sleep 100; sleep 100"], soon())
    pid = int(process.read(100, soon()))
    process.kill()
    process.kill()
    assert ended(pid)
    result = process.wait(soon())
    assert (result.exit_code, result.signal, result.lost) == (None, signal.SIGKILL, False)
    assert process.read(1, soon()) == b""


def test_write_to_a_process_that_has_ended(device: SshDevice) -> None:
    process = device.start(["true"], soon())
    process.wait(soon())
    with pytest.raises(DeviceError) as caught:
        process.write(b"x" * (64 << 20), soon())
    assert caught.value.code == "PROCESS_ENDED"


def test_close_ends_everything_there(device: SshDevice) -> None:
    processes = [device.start(["sh", "-c", "echo $$; exec sleep 100"], soon()) for _ in range(3)]
    pids = [int(process.read(100, soon())) for process in processes]
    device.close()
    for pid in pids:
        assert ended(pid)
    device.close()


# --- the link ---


def test_link_lost_in_a_run(sshd: SshServer, device: SshDevice, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    killer = threading.Thread(
        target=lambda: (eventually(lambda: bool(file.exists() and file.read_text())), sshd.kill_sessions())
    )
    killer.start()
    # Its stdin is closed when the guard has been told of it: what dies before that, nobody there could clean up after.
    script = 'cat; echo $$ > "$1"; exec sleep 100'
    with pytest.raises(DeviceError) as caught:
        device.run(["sh", "-c", script, "sh", str(file)], Deadline(100))
    killer.join()
    assert caught.value.code == "LINK_LOST"
    assert caught.value.transient
    # The guard saw the end of its stdin and cleaned up.
    assert ended(int(file.read_text()))
    with pytest.raises(DeviceError) as caught:
        device.run(["true"], soon())
    assert caught.value.code == "LINK_LOST"
    device.open(soon())
    assert device.run(["true"], soon()).ok


def test_link_lost_under_a_process(sshd: SshServer, device: SshDevice) -> None:
    process = device.start(["sh", "-c", "echo $$; cat; echo the runner ends by itself > /dev/null"], soon())
    pid = int(process.read(100, soon()))
    sshd.kill_sessions()
    with pytest.raises(DeviceError) as caught:
        process.read(1, soon())
    assert caught.value.code == "LINK_LOST"
    assert process.wait(soon()).lost
    with pytest.raises(DeviceError) as caught:
        process.write(b"x", soon())
    assert caught.value.code == "LINK_LOST"
    assert ended(pid)
    process.kill()


def test_a_dead_link_is_noticed(sshd: SshServer) -> None:
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config, keepalive=3) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        sshd.freeze_sessions()
        with pytest.raises(DeviceError) as caught:
            process.read(1, Deadline(LONG))
        assert caught.value.code == "LINK_LOST"  # and not TIMEOUT
        assert "sign of life" in caught.value.message


@pytest.mark.slow
def test_a_pause_is_survived(sshd: SshServer) -> None:
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config, keepalive=6) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        sshd.freeze_sessions()
        with pytest.raises(DeadlineExceeded):
            process.read(1, Deadline(3))  # far below the limit of 8 s, so that a slow machine is not taken for dead
        sshd.thaw_sessions()
        # Longer than the limit: life after the pause starts the count anew.
        with pytest.raises(DeadlineExceeded):
            process.read(1, Deadline(9.5))
        process.write(b"x", soon())
        assert process.read(1, soon()) == b"x"


@pytest.mark.slow
def test_nothing_waits_beyond_its_deadline_on_a_dead_link(sshd: SshServer) -> None:
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config, keepalive=0) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        sshd.freeze_sessions()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            process.write(b"x" * (64 << 20), Deadline(1))
        assert time.monotonic() - started < LONG / 2
        process.kill()
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config, keepalive=0) as it:
        it.open(soon())
        assert it.run(["true"], soon()).ok
        sshd.freeze_sessions()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            it.run(["true"], Deadline(1))
        assert time.monotonic() - started < LONG / 2


def test_socket_options(device: SshDevice) -> None:
    assert device._link is not None
    transport = device._link.transport
    if "aes128-gcm@openssh.com" in paramiko.Transport._preferred_ciphers:  # old ones have none
        assert transport.remote_cipher == transport.local_cipher == "aes128-gcm@openssh.com"
    assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert transport.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
