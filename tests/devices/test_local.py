"""This host as a device."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice, LocalProcess
from edgequant.errors import DeadlineExceeded, DeviceError, InputError
from tests.devices.support import TIME
from tests.waiting import LONG, OnceReady, ended, eventually


def read_all(process: LocalProcess) -> bytes:
    found = bytearray()
    while data := process.read(1 << 16, TIME):
        found += data
    return bytes(found)


def read_line(process: LocalProcess) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        found += process.read(1, TIME)
    return found


def test_run(device: LocalDevice) -> None:
    result = device.run(["sh", "-c", "cat; echo err >&2; exit 3"], TIME, stdin=b"in\0put")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in\0put", b"err\n")
    assert not result.ok
    assert not result.lost
    assert device.run(["true"], TIME).ok


def test_arguments_arrive_as_they_are(device: LocalDevice) -> None:
    odd = ["a b", "", "'\"`$HOME\\", "line\nbreak", "*", "-n", "\u00e4\u4e2d", "\udcff"]
    assert device.run(["printf", "%s\\0", *odd], TIME).stdout == b"".join(os.fsencode(word) + b"\0" for word in odd)


def test_killed_by_a_signal(device: LocalDevice) -> None:
    result = device.run(["sh", "-c", "kill -SEGV $$"], TIME)
    assert (result.exit_code, result.signal) == (None, signal.SIGSEGV)


def test_much_of_everything_at_once(device: LocalDevice) -> None:
    code = "import sys; data = sys.stdin.buffer.read(); sys.stderr.buffer.write(data); sys.stdout.buffer.write(data)"
    data = os.urandom(4 << 20)
    result = device.run([sys.executable, "-c", code], TIME, stdin=data)
    assert result.stdout == data
    assert result.stderr == data


def test_input_nobody_reads(device: LocalDevice) -> None:
    assert device.run(["true"], TIME, stdin=bytes(4 << 20)).ok


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_too_much_output(device: LocalDevice, stream: str) -> None:
    with pytest.raises(DeviceError) as caught:
        device.run(["sh", "-c", f"echo $$ > /dev/null; yes {stream}"], TIME, max_output=1 << 20)
    assert caught.value.code == "OUTPUT_TOO_LARGE"
    assert not device._processes


def test_a_command_that_takes_too_long_is_killed_with_its_children(device: LocalDevice, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    # cat reads until its stdin ends, then sleep's stdout is waited for.
    command = f"sleep 600 & echo $! $$ > '{note}'; echo ready; cat"
    with pytest.raises(DeadlineExceeded):
        device.run(["sh", "-c", command], OnceReady(0.5, lambda: note.exists() and "\n" in note.read_text()))
    assert all(ended(int(pid)) for pid in note.read_text().split())


def test_no_such_command(device: LocalDevice, tmp_path: Path) -> None:
    (tmp_path / "not executable").write_text("x")
    for argv in (["no-such-command"], [str(tmp_path / "not executable")]):
        with pytest.raises(DeviceError) as caught:
            device.run(argv, TIME)
        assert caught.value.code == "COMMAND_NOT_STARTED"
        assert argv[0] in str(caught.value)


def test_an_expired_deadline_starts_nothing(device: LocalDevice, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        device.run(["touch", str(tmp_path / "made")], Deadline(0))
    assert not (tmp_path / "made").exists()


def test_a_process_is_a_duplex_stream(device: LocalDevice) -> None:
    process = device.start(["cat"], TIME)
    for size in (1, 100, 1 << 20):
        data = os.urandom(size)
        writer = threading.Thread(target=process.write, args=(data, TIME))
        writer.start()
        found = b""
        while len(found) < size:
            part = process.read(1 << 20, TIME)
            assert 0 < len(part) <= 1 << 20
            found += part
        writer.join()
        assert found == data
    process.kill()
    process.kill()


def test_stderr_is_drained_and_complete_after_wait(device: LocalDevice) -> None:
    seen = bytearray()
    process = device.start(["sh", "-c", "head -c 3000000 /dev/zero >&2; echo end >&2"], TIME, on_stderr=seen.extend)
    assert read_all(process) == b""
    assert process.wait(TIME).exit_code == 0
    assert len(seen) == 3_000_004
    assert seen.endswith(b"end\n")


def test_wait_does_not_wait_for_grandchildren(device: LocalDevice) -> None:
    process = device.start(["sh", "-c", "sleep 600 > /dev/null & echo $!"], TIME)
    sleeper = int(read_line(process))
    assert process.wait(Deadline(LONG)).exit_code == 0
    process.kill()
    assert ended(sleeper)


def test_write_to_one_that_ended(device: LocalDevice) -> None:
    process = device.start(["true"], TIME)
    process.wait(TIME)
    with pytest.raises(DeviceError) as caught:
        process.write(bytes(1 << 20), TIME)
    assert caught.value.code == "PROCESS_ENDED"
    assert process.read(10, TIME) == b""


def test_deadlines_of_a_process(device: LocalDevice) -> None:
    process = device.start(["sleep", "600"], TIME)
    with pytest.raises(DeadlineExceeded):
        process.read(1, Deadline(0.05))
    with pytest.raises(DeadlineExceeded):
        process.write(bytes(1 << 20), Deadline(0.05))
    with pytest.raises(DeadlineExceeded):
        process.wait(Deadline(0.05))


def test_close_ends_what_was_started() -> None:
    device = LocalDevice()
    process = device.start(["sh", "-c", "sleep 600 & echo $! $$; wait"], TIME)
    pids = [int(word) for word in read_line(process).split()]
    device.close()
    device.close()
    assert all(ended(pid) for pid in pids)


def test_more_than_a_thousand_open_files(device: LocalDevice, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = []
    try:
        files = [open(os.devnull) for _ in range(1100)]  # noqa: SIM115
        assert device.run(["cat"], TIME, stdin=b"x").stdout == b"x"
    finally:
        for file in files:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nothing_stays_open(device: LocalDevice) -> None:
    device.run(["true"], TIME)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        device.run(["cat"], TIME, stdin=b"x")
    # Each stderr is closed by the thread that reads it, soon after.
    assert eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 1)


def test_send_file(device: LocalDevice, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "a b\n'c"
    source.write_bytes(os.urandom((5 << 20) + 1))
    sent: list[int] = []
    device.send_file(source, str(target), TIME, progress=sent.append)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    assert sum(sent) == source.stat().st_size
    source.write_bytes(b"short")
    device.send_file(source, str(target), TIME)
    assert target.read_bytes() == b"short"


def test_send_file_that_does_not_work(device: LocalDevice, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(1 << 21))
    for target in (tmp_path / "missing" / "x", tmp_path):
        with pytest.raises(DeviceError, match="source cannot be copied"):
            device.send_file(source, str(target), TIME)
    with pytest.raises(DeviceError) as caught:
        device.send_file(source, "/dev/full", TIME)
    assert caught.value.code == "NO_SPACE"
    kept = tmp_path / "kept"
    kept.write_text("old")
    with pytest.raises(DeviceError):
        device.send_file(tmp_path / "no source", str(kept), TIME)
    assert kept.read_text() == "old"
    with pytest.raises(DeadlineExceeded):
        device.send_file(source, str(kept), Deadline(0))


def test_what_it_is() -> None:
    assert LocalDevice().python == (sys.executable,)
    assert LocalDevice(python="python3.8").python == ("python3.8",)
    assert LocalDevice().is_host
    assert not LocalDevice(python="python3.8").is_host  # it may have another MNN
    with pytest.raises(InputError) as caught:
        LocalDevice("local:x")
    assert caught.value.code == "DEVICE_URI_INVALID"
