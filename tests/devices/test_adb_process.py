"""Long-lived processes over a real adbd: both ways at once, slow readers, kills."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.errors import DeadlineExceeded, DeviceError
from tests.beds.adb import AdbBed
from tests.devices.support import soon
from tests.waiting import ended, eventually

pytestmark = pytest.mark.adb


def test_nothing_is_left_open(phone: AdbDevice) -> None:
    phone.run(["true"], soon())
    us = psutil.Process()
    before = us.num_fds()
    for _ in range(20):
        phone.run(["cat"], soon(), stdin=b"x")
        phone.start(["sleep", "100"], soon()).kill()
    assert eventually(lambda: us.num_fds() <= before + 1), us.num_fds() - before


def test_duplex(phone: AdbDevice) -> None:
    said = bytearray()
    process = phone.start(["sh", "-c", "echo started >&2; cat; echo over >&2; exit 4"], soon(), on_stderr=said.extend)
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
    process.close_stdin(soon())  # type: ignore[attr-defined]
    assert process.read(10, soon()) == b""
    assert process.wait(soon()).exit_code == 4
    assert bytes(said) == b"started\nover\n"


def test_a_write_that_was_cut_short_goes_on_whole(phone: AdbDevice) -> None:
    """A deadline may come between the halves of a packet; the stream has to stay right all the same."""
    process = phone.start(["sh", "-c", "read go; cat"], soon())
    data = os.urandom(48 << 20)
    with pytest.raises(DeadlineExceeded):
        process.write(data, Deadline(1))  # nobody reads it
    process.kill()
    process = phone.start(["sh", "-c", 'kill -STOP $$; exec sh -c "wc -c"'], soon())
    sent = 0

    def flood() -> None:
        nonlocal sent
        while sent < 1000:
            process.write(data[: 1 << 20], Deadline(1))
            sent += 1

    with pytest.raises(DeadlineExceeded):
        flood()
    phone.run(["kill", "-CONT", str(process.pid)], soon())  # type: ignore[attr-defined]
    process.write(b"end", soon())
    process.close_stdin(soon())  # type: ignore[attr-defined]
    # What was begun was finished: only whole chunks of the last piece can be missing.
    count = int(process.read(100, soon()))
    assert (count - 3) % (64 << 10) == 0
    assert sent << 20 <= count - 3 <= (sent + 1) << 20


def test_stderr_is_drained_while_nobody_reads(phone: AdbDevice) -> None:
    total = 0

    def count(data: bytes) -> None:
        nonlocal total
        total += len(data)

    process = phone.start(["sh", "-c", "head -c 8000000 /dev/zero >&2; echo done"], soon(), on_stderr=count)
    assert process.read(5, soon()) == b"done\n"
    assert process.wait(soon()).exit_code == 0
    assert total == 8_000_000


def test_stdout_waits_for_a_slow_reader(phone: AdbDevice) -> None:
    size = 60 << 20
    process = phone.start(["head", "-c", str(size), "/dev/zero"], soon())
    with pytest.raises(DeadlineExceeded):
        process.wait(Deadline(1))
    total = 0
    while data := process.read(1 << 20, soon()):
        total += len(data)
    assert total == size
    assert process.wait(soon()).exit_code == 0


def test_a_stderr_callback_that_fails_does_not_stop_the_process(phone: AdbDevice) -> None:
    def fail(data: bytes) -> None:
        raise ValueError("not here")

    process = phone.start(["sh", "-c", "head -c 8000000 /dev/zero >&2; echo done"], soon(), on_stderr=fail)
    assert process.read(5, soon()) == b"done\n"


def test_kill(phone: AdbDevice) -> None:
    process = phone.start(["sh", "-c", "trap '' TERM HUP; echo $$; sleep 100; sleep 100"], soon())
    pid = int(process.read(100, soon()))
    assert not ended(pid, 0)
    process.kill()
    process.kill()
    assert ended(pid)
    result = process.wait(soon())
    assert (result.exit_code, result.signal, result.lost) == (None, signal.SIGKILL, False)
    assert process.read(1, soon()) == b""


def test_kill_while_stdout_is_full(phone: AdbDevice) -> None:
    process = phone.start(["sh", "-c", "echo $$; exec cat /dev/zero"], soon())
    pid = int(process.read(100, soon()).split(b"\n")[0])
    with pytest.raises(DeadlineExceeded):
        process.wait(Deadline(1))
    process.kill()
    assert ended(pid)


def test_the_guard_is_replaced_when_something_kills_it(adb_bed: AdbBed, phone: AdbDevice) -> None:
    guard = phone._guard
    assert guard is not None
    # Those of earlier tests may be on their way out.
    there = psutil.Process(adb_bed.device_pid)
    assert eventually(lambda: len(there.children()) == 1)
    there.children()[0].kill()
    assert eventually(lambda: not guard.alive)
    process = phone.start(["sh", "-c", "trap '' HUP; echo $$; sleep 100; sleep 100"], soon())
    pid = int(process.read(100, soon()))
    process.kill()
    assert ended(pid)


def test_write_to_a_process_that_has_ended(phone: AdbDevice) -> None:
    process = phone.start(["true"], soon())
    process.wait(soon())
    with pytest.raises(DeviceError) as caught:
        process.write(b"x" * (64 << 20), soon())
    assert caught.value.code == "PROCESS_ENDED"
    process = phone.start(["sleep", "0.3"], soon())
    with pytest.raises(DeviceError) as caught:
        process.write(b"x" * (64 << 20), soon())
    assert caught.value.code == "PROCESS_ENDED"


def test_close_ends_everything_there(phone: AdbDevice) -> None:
    processes = [phone.start(["sh", "-c", "trap '' HUP; echo $$; sleep 100"], soon()) for _ in range(3)]
    pids = [int(process.read(100, soon())) for process in processes]
    phone.close()
    for pid in pids:
        assert ended(pid)
    phone.close()
    with pytest.raises(DeviceError) as caught:
        phone.run(["true"], soon())
    assert caught.value.code == "NOT_CONNECTED"
