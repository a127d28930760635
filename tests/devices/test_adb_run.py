"""Commands and long-lived processes over a real adbd, and what happens when they or the link die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.adb_process import command_line
from edgequant.devices.adb_wire import MAX_REQUEST
from edgequant.errors import DeadlineExceeded, DeviceError, InputError
from tests.beds.adb import AdbBed
from tests.beds.adb_parts import eventually

pytestmark = pytest.mark.adb


@pytest.fixture
def device(adb_bed: AdbBed) -> Iterator[AdbDevice]:
    with AdbDevice(adb_bed.uri) as it:
        it.open(Deadline(20))
        yield it


def soon() -> Deadline:
    return Deadline(20)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


ODD = [
    "",
    " ",
    "a b",
    "it's",
    '"quoted"',
    "$HOME `id` $(id) ${x}",
    "back\\slash \\n \\",
    "new\nline\ttab",
    "*?[a-z]~!#&|;<>(){}^%",
    "-n",
    "--",
    "ünï ☃",
]


def test_arguments_arrive_as_they_are(device: AdbDevice) -> None:
    result = device.run(["printf", "%s\\0", *ODD], soon())
    assert result.ok
    assert result.stdout == b"".join(f"{text}\0".encode() for text in ODD)
    assert result.stderr == b""


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 160, 255])
def test_exit_code(device: AdbDevice, code: int) -> None:
    result = device.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"], soon())
    assert (result.exit_code, result.signal, result.lost) == (code, None, False)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.ok == (code == 0)


def test_no_such_command(device: AdbDevice) -> None:
    result = device.run(["/no/such/command"], soon())
    assert result.exit_code == 127
    assert b"/no/such/command" in result.stderr
    assert b"edgequant-" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_death_by_signal(device: AdbDevice, number: signal.Signals) -> None:
    result = device.run(["sh", "-c", f"echo last words; kill -{int(number)} $$"], soon())
    assert (result.exit_code, result.signal, result.lost) == (None, number, False)
    assert result.stdout == b"last words\n"


def test_binary_both_ways(device: AdbDevice) -> None:
    data = bytes(range(256)) * 20_000 + b"\r\n\x04\x1a"
    result = device.run(["cat"], Deadline(60), stdin=data)
    assert result.stdout == data


def test_stdin_that_nobody_reads(device: AdbDevice) -> None:
    assert device.run(["echo", "done"], soon(), stdin=b"x" * (8 << 20)).stdout == b"done\n"


def test_no_stdin_is_an_empty_one(device: AdbDevice) -> None:
    assert device.run(["wc", "-c"], soon()).stdout.strip() == b"0"


def test_large_output_on_both_streams(device: AdbDevice) -> None:
    size = 20 << 20
    script = f"head -c {size} /dev/zero; head -c {size} /dev/zero | tr '\\0' e >&2"
    result = device.run(["sh", "-c", script], Deadline(120), max_output=size)
    assert len(result.stdout) == size
    assert result.stderr == b"e" * size


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_without_end(adb_bed: AdbBed, device: AdbDevice, stream: str) -> None:
    script = 'echo $$ > "$1"; exec cat /dev/zero' + (" >&2" if stream == "stderr" else "")
    file = adb_bed.files / f"endless-{stream}"
    started = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        device.run(["sh", "-c", script, "sh", str(file)], soon(), max_output=1 << 20)
    assert caught.value.code == "OUTPUT_TOO_LARGE"
    assert stream in caught.value.message
    assert time.monotonic() - started < 4
    assert eventually(lambda: gone(int(file.read_text())))
    assert device.run(["true"], soon()).ok


def test_command_line_limit(device: AdbDevice) -> None:
    mark = "edgequant-" + "0" * 16
    room = MAX_REQUEST - len(command_line(["echo", ""], mark, "")) + len("''")
    assert device.run(["echo", "x" * room], soon()).stdout == b"x" * room + b"\n"
    for argument, code in (("x" * (room + 1), "COMMAND_TOO_LONG"), ("a\0b", "COMMAND_INVALID")):
        with pytest.raises(InputError) as caught:
            device.run(["echo", argument], soon())
        assert caught.value.code == code
    assert device.run(["true"], soon()).ok


def test_deadline_kills_the_whole_group(adb_bed: AdbBed, device: AdbDevice) -> None:
    pids = adb_bed.files / "pids"
    script = 'trap "" TERM HUP; sleep 100 & echo $$ $! > "$1"; echo before; wait'
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        device.run(["sh", "-c", script, "sh", str(pids)], Deadline(1))
    assert time.monotonic() - started < 8
    assert "within 1 s" in caught.value.message
    assert caught.value.evidence["stdout"] == "before\n"
    for pid in pids.read_text().split():
        assert eventually(lambda pid=int(pid): gone(pid)), pid  # type: ignore[misc]
    assert device.run(["echo", "next"], soon()).stdout == b"next\n"


def test_many_at_once(device: AdbDevice) -> None:
    results: dict[int, bytes] = {}

    def one(number: int) -> None:
        results[number] = device.run(["sh", "-c", f"sleep 0.2; echo {number}"], Deadline(60)).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(16)}


def test_nothing_is_left_open(device: AdbDevice) -> None:
    device.run(["true"], soon())
    us = psutil.Process()
    before = us.num_fds()
    for _ in range(20):
        device.run(["cat"], soon(), stdin=b"x")
        device.start(["sleep", "100"], soon()).kill()
    assert eventually(lambda: us.num_fds() <= before + 1), us.num_fds() - before


# --- long-lived processes ---


def test_duplex(device: AdbDevice) -> None:
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
    process.close_stdin()  # type: ignore[attr-defined]
    assert process.read(10, soon()) == b""
    assert process.wait(soon()).exit_code == 4
    assert bytes(said) == b"started\nover\n"


def test_a_write_that_was_cut_short_goes_on_whole(device: AdbDevice) -> None:
    """A deadline may come between the halves of a packet; the stream has to stay right all the same."""
    process = device.start(["sh", "-c", "read go; cat"], soon())
    data = os.urandom(48 << 20)
    with pytest.raises(DeadlineExceeded):
        process.write(data, Deadline(1))  # nobody reads it
    process.kill()
    process = device.start(["sh", "-c", 'kill -STOP $$; exec sh -c "wc -c"'], soon())
    sent = 0

    def flood() -> None:
        nonlocal sent
        while sent < 1000:
            process.write(data[: 1 << 20], Deadline(1))
            sent += 1

    with pytest.raises(DeadlineExceeded):
        flood()
    device.run(["kill", "-CONT", str(process.pid)], soon())  # type: ignore[attr-defined]
    process.write(b"end", soon())
    process.close_stdin()  # type: ignore[attr-defined]
    # What was begun was finished: only whole chunks of the last piece can be missing.
    count = int(process.read(100, soon()))
    assert (count - 3) % (64 << 10) == 0
    assert sent << 20 <= count - 3 <= (sent + 1) << 20


def test_stderr_is_drained_while_nobody_reads(device: AdbDevice) -> None:
    total = 0

    def count(data: bytes) -> None:
        nonlocal total
        total += len(data)

    process = device.start(["sh", "-c", "head -c 8000000 /dev/zero >&2; echo done"], soon(), on_stderr=count)
    assert process.read(5, soon()) == b"done\n"
    assert process.wait(soon()).exit_code == 0
    assert total == 8_000_000


def test_stdout_waits_for_a_slow_reader(device: AdbDevice) -> None:
    size = 60 << 20
    process = device.start(["head", "-c", str(size), "/dev/zero"], soon())
    with pytest.raises(DeadlineExceeded):
        process.wait(Deadline(1))
    total = 0
    while data := process.read(1 << 20, soon()):
        total += len(data)
    assert total == size
    assert process.wait(soon()).exit_code == 0


def test_a_stderr_callback_that_fails_does_not_stop_the_process(device: AdbDevice) -> None:
    def fail(data: bytes) -> None:
        raise ValueError("not here")

    process = device.start(["sh", "-c", "head -c 8000000 /dev/zero >&2; echo done"], soon(), on_stderr=fail)
    assert process.read(5, soon()) == b"done\n"


def test_kill(device: AdbDevice) -> None:
    process = device.start(["sh", "-c", "trap '' TERM HUP; echo $$; sleep 100; sleep 100"], soon())
    pid = int(process.read(100, soon()))
    assert not gone(pid)
    started = time.monotonic()
    process.kill()
    process.kill()
    assert time.monotonic() - started < 2
    assert eventually(lambda: gone(pid), 2)
    result = process.wait(soon())
    assert (result.exit_code, result.signal, result.lost) == (None, signal.SIGKILL, False)
    assert process.read(1, soon()) == b""


def test_kill_while_stdout_is_full(device: AdbDevice) -> None:
    process = device.start(["sh", "-c", "echo $$; exec cat /dev/zero"], soon())
    pid = int(process.read(100, soon()).split(b"\n")[0])
    with pytest.raises(DeadlineExceeded):
        process.wait(Deadline(1))
    process.kill()
    assert eventually(lambda: gone(pid), 2)


def test_the_guard_is_replaced_when_something_kills_it(adb_bed: AdbBed, device: AdbDevice) -> None:
    guard = device._guard
    assert guard is not None
    shells = psutil.Process(adb_bed.device_pid).children()
    assert len(shells) == 1
    shells[0].kill()
    assert eventually(lambda: not guard.alive)
    process = device.start(["sh", "-c", "trap '' HUP; echo $$; sleep 100; sleep 100"], soon())
    pid = int(process.read(100, soon()))
    process.kill()
    assert eventually(lambda: gone(pid), 2)


def test_write_to_a_process_that_has_ended(device: AdbDevice) -> None:
    process = device.start(["true"], soon())
    process.wait(soon())
    with pytest.raises(DeviceError) as caught:
        process.write(b"x" * (64 << 20), soon())
    assert caught.value.code == "PROCESS_ENDED"
    process = device.start(["sleep", "0.3"], soon())
    with pytest.raises(DeviceError) as caught:
        process.write(b"x" * (64 << 20), soon())
    assert caught.value.code == "PROCESS_ENDED"


def test_close_ends_everything_there(device: AdbDevice) -> None:
    processes = [device.start(["sh", "-c", "trap '' HUP; echo $$; sleep 100"], soon()) for _ in range(3)]
    pids = [int(process.read(100, soon())) for process in processes]
    device.close()
    for pid in pids:
        assert eventually(lambda pid=pid: gone(pid), 2)  # type: ignore[misc]
    device.close()
    with pytest.raises(DeviceError) as caught:
        device.run(["true"], soon())
    assert caught.value.code == "NOT_CONNECTED"


# --- other shells ---


@pytest.mark.parametrize("shell", ["busybox-static", "mksh"])
def test_shells_of_phones(adb_bed: AdbBed, shell: str) -> None:
    """Android's own is mksh, that of many boards busybox; the one of this host is neither."""
    serial = adb_bed.second(shell)
    pids = adb_bed.files / f"pids-{shell}"
    with AdbDevice(f"adb://{serial}") as it:
        it.open(soon())
        name = it.run(["sh", "-c", 'echo "$KSH_VERSION"; sh --help 2>&1'], soon()).stdout
        assert (b"BusyBox" if shell == "busybox-static" else b"MIRBSD KSH") in name
        assert it.run(["printf", "%s\\0", *ODD], soon()).stdout == b"".join(f"{text}\0".encode() for text in ODD)
        assert it.run(["sh", "-c", "exit 7"], soon()).exit_code == 7
        assert it.run(["sh", "-c", "kill -SEGV $$"], soon()).signal == signal.SIGSEGV
        assert it.run(["/no/such/command"], soon()).exit_code == 127
        data = bytes(range(256)) * 1000
        assert it.run(["cat"], soon(), stdin=data).stdout == data
        with pytest.raises(DeadlineExceeded):
            it.run(["sh", "-c", 'trap "" TERM HUP; sleep 99 & echo $$ $! > "$1"; wait', "sh", str(pids)], Deadline(1))
        for pid in pids.read_text().split():
            assert eventually(lambda pid=int(pid): gone(pid), 2), pid  # type: ignore[misc]
        # Several at once, some of them over: the guard keeps a list.
        processes = [it.start(["sh", "-c", "trap '' HUP; echo $$; sleep 99; true"], soon()) for _ in range(4)]
        left = [int(process.read(100, soon())) for process in processes]
        processes[1].kill()
        assert eventually(lambda: gone(left[1]), 2)
        assert not any(map(gone, (left[0], left[2], left[3])))
        adb_bed.kill_second()
        for pid in left:
            assert eventually(lambda pid=pid: gone(pid)), pid  # type: ignore[misc]


# --- the link ---


def running(device: AdbDevice, file: Path) -> tuple[threading.Thread, list[DeviceError]]:
    """A command that runs in a thread, and the error it ends with."""
    caught: list[DeviceError] = []

    def run() -> None:
        try:
            device.run(["sh", "-c", 'trap "" HUP; echo $$ > "$1"; sleep 100; true', "sh", str(file)], Deadline(60))
        except DeviceError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: file.exists() and bool(file.read_text()))
    return thread, caught


@pytest.mark.parametrize("what", ["server", "device"])
def test_link_lost_in_a_run(adb_bed: AdbBed, device: AdbDevice, what: str) -> None:
    file = adb_bed.files / f"lost-{what}"
    thread, caught = running(device, file)
    if what == "server":
        adb_bed.kill_server()
    else:
        adb_bed.kill_device()
    thread.join(20)
    assert caught[0].code == "LINK_LOST"
    assert caught[0].transient
    # The guard saw the end of its stdin and cleaned up, although the command ignores the hang-up.
    assert eventually(lambda: gone(int(file.read_text())))
    with pytest.raises(DeviceError) as again:
        device.run(["true"], soon())
    assert again.value.code == "LINK_LOST"
    if what == "server":
        adb_bed.start_server()
        device.open(soon())  # knows nothing of the device any more: it is connected again
        assert device.run(["true"], soon()).ok


def test_the_device_comes_back(adb_bed: AdbBed) -> None:
    adb_bed.kill_device()
    adb_bed.start_device()
    with AdbDevice(adb_bed.uri) as it:
        it.open(soon())
        adb_bed.disconnect(adb_bed.serial)
        with pytest.raises(DeviceError) as caught:
            it.run(["true"], soon())
        assert caught.value.code == "LINK_LOST"
        it.open(soon())
        assert it.run(["true"], soon()).ok


def test_link_lost_under_a_process(adb_bed: AdbBed, device: AdbDevice) -> None:
    process = device.start(["sh", "-c", "echo $$; cat; echo the runner ends by itself > /dev/null"], soon())
    pid = int(process.read(100, soon()))
    adb_bed.kill_device()
    with pytest.raises(DeviceError) as caught:
        process.read(1, soon())
    assert caught.value.code == "LINK_LOST"
    assert process.wait(soon()).lost
    with pytest.raises(DeviceError) as caught:
        process.write(b"x", soon())
    assert caught.value.code == "LINK_LOST"
    assert eventually(lambda: gone(pid))
    process.kill()


@pytest.mark.parametrize("what", ["server", "device"])
def test_a_dead_link_is_noticed(adb_bed: AdbBed, what: str) -> None:
    """`adb devices` goes on saying `device`: only silence tells."""
    with AdbDevice(adb_bed.uri, keepalive=1.5) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        freeze = adb_bed.signal_server if what == "server" else adb_bed.signal_device
        freeze(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            process.read(1, Deadline(60))
        freeze(signal.SIGCONT)
        assert caught.value.code == "LINK_LOST"
        assert "sign of life" in caught.value.message
        assert time.monotonic() - started < 6


@pytest.mark.slow
def test_a_pause_is_survived(adb_bed: AdbBed) -> None:
    with AdbDevice(adb_bed.uri, keepalive=3) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        adb_bed.signal_device(signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            process.read(1, Deadline(2))
        adb_bed.signal_device(signal.SIGCONT)
        # Longer than the limit of 4 s: life after the pause starts the count anew.
        with pytest.raises(DeadlineExceeded):
            process.read(1, Deadline(5))
        process.write(b"x", soon())
        assert process.read(1, soon()) == b"x"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["server", "device"])
def test_nothing_waits_beyond_its_deadline_on_a_dead_link(adb_bed: AdbBed, what: str) -> None:
    freeze = adb_bed.signal_server if what == "server" else adb_bed.signal_device
    with AdbDevice(adb_bed.uri, keepalive=0) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        freeze(signal.SIGSTOP)
        for call in (
            lambda: process.write(b"x" * (64 << 20), Deadline(1)),
            lambda: it.run(["true"], Deadline(1)),
            lambda: it.start(["true"], Deadline(1)),
            lambda: AdbDevice(adb_bed.uri).open(Deadline(1)),
        ):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                call()
            assert time.monotonic() - started < 4
        started = time.monotonic()
        it.close()
        assert time.monotonic() - started < 8
        freeze(signal.SIGCONT)
