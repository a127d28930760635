"""Sending files over a real adbd: content, modes, reasons of the device, stalls, lost links."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.adb_push import write_error
from edgequant.errors import DeadlineExceeded, DeviceError, InputError
from edgequant.files import sha256_of
from tests.beds.adb import AdbBed
from tests.devices.support import soon
from tests.waiting import LONG

pytestmark = pytest.mark.adb


def source(tmp_path: Path, size: int) -> Path:
    file = tmp_path / "source.bin"
    file.write_bytes(os.urandom(1 << 20) * (size >> 20) + os.urandom(size & 0xFFFFF))
    return file


def endless(tmp_path: Path) -> Path:
    """4 GB that take no space."""
    file = tmp_path / "endless.bin"
    with file.open("wb") as stream:
        stream.truncate(4 << 30)
    return file


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1 << 20, (5 << 20) + 7])
def test_content_mode_and_progress(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path, size: int) -> None:
    target = adb_bed.files / f"target-{size}"
    steps: list[int] = []
    file = source(tmp_path, size)
    for _ in range(2):
        phone.send_file(file, str(target), soon(), progress=steps.append)
        assert target.read_bytes() == file.read_bytes()
        assert target.stat().st_mode & 0o777 == 0o600
    assert sum(steps) == 2 * size
    # A longer one was there before.
    file.write_bytes(b"short")
    phone.send_file(file, str(target), soon())
    assert target.read_bytes() == b"short"


@pytest.mark.parametrize("name", ['it\'s "$HOME" `x`', "-rf", "new\nline", "ü ☃", "*", "a,b,33206", "n" * 255])
def test_odd_names(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path, name: str) -> None:
    target = adb_bed.files / name
    phone.send_file(source(tmp_path, 100), str(target), soon())
    assert target.stat().st_size == 100
    assert target.stat().st_mode & 0o777 == 0o600


def test_missing_directories_are_made(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    target = adb_bed.files / "new" / "er" / "x"
    phone.send_file(source(tmp_path, 100), str(target), soon())
    assert target.stat().st_size == 100


def refused(phone: AdbDevice, file: Path, target: object) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        phone.send_file(file, str(target), soon())
    assert caught.value.hint
    assert str(target)[:50] in caught.value.message
    # The link is as good as before.
    assert phone.run(["true"], soon()).ok
    return caught.value


def test_full_disk(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    file = source(tmp_path, 30 << 20)
    assert refused(phone, file, "/dev/full").code == "NO_SPACE"
    assert refused(phone, file, adb_bed.small / "too large").code == "NO_SPACE"
    file.write_bytes(b"fits")
    phone.send_file(file, str(adb_bed.small / "small"), soon())


def test_read_only(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    assert refused(phone, source(tmp_path, 8 << 20), adb_bed.read_only / "x").code == "READ_ONLY"


def test_permission_denied(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    file = source(tmp_path, 8 << 20)
    assert refused(phone, file, adb_bed.closed / "x").code == "PERMISSION_DENIED"
    assert refused(phone, file, adb_bed.closed / "no" / "x").code == "PERMISSION_DENIED"


def test_other_reasons(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    file = source(tmp_path, 8 << 20)
    (adb_bed.files / "file").touch()
    assert refused(phone, file, adb_bed.files).code == "IS_A_DIRECTORY"
    assert refused(phone, file, adb_bed.files / "file" / "x").code == "NO_SUCH_DIRECTORY"
    assert refused(phone, file, adb_bed.files / ("n" * 256)).code == "NAME_TOO_LONG"
    assert refused(phone, file, str(adb_bed.files) + "/n" * 1024).code == "NAME_TOO_LONG"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("couldn't create file: Read-only file system", "READ_ONLY"),
        ("secure_mkdirs failed: Permission denied", "PERMISSION_DENIED"),
        ("write failed: No space left on device", "NO_SPACE"),
        ("write failed: Input/output error", "DEVICE_IO"),
        ("", "DEVICE_IO"),
    ],
)
def test_words_of_devices(said: str, code: str) -> None:
    assert write_error("/x", said, "adb://x").code == code


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("No space left on device", "NO_SPACE"),
        ("Permission denied", "PERMISSION_DENIED"),
        ("remote says no", "DEVICE_IO"),
        ("nonsense", "LINK_LOST"),
        ("drop", "LINK_LOST"),
    ],
)
@pytest.mark.parametrize("at", [0, 3 << 20])
def test_faults_in_the_middle(adb_bed: AdbBed, tmp_path: Path, fault: str, code: str, at: int) -> None:
    fake = adb_bed.fake("--sync-fault", f"{fault}@{at}")
    with AdbDevice(f"adb://{fake.serial}") as it:
        it.open(soon())
        with pytest.raises(DeviceError) as caught:
            it.send_file(source(tmp_path, 8 << 20), str(adb_bed.base / "x"), soon())
        assert caught.value.code == code
        if code == "DEVICE_IO":
            assert fault in caught.value.message


@pytest.mark.parametrize("size", [10, 64 << 20])
def test_a_device_that_takes_no_more(adb_bed: AdbBed, tmp_path: Path, size: int) -> None:
    fake = adb_bed.fake("--sync-fault", "hang@0")
    with AdbDevice(f"adb://{fake.serial}") as it:
        it.open(soon())
        it.idle_limit = 1.5
        with pytest.raises(DeadlineExceeded) as caught:
            it.send_file(source(tmp_path, size), str(adb_bed.base / "x"), Deadline(LONG))
        assert caught.value.code == "STALLED"  # and not TIMEOUT
        # Only this transfer hangs.
        assert it.run(["true"], soon()).ok


def test_refused_service(adb_bed: AdbBed, tmp_path: Path) -> None:
    fake = adb_bed.fake("--refuse", "sync")
    with AdbDevice(f"adb://{fake.serial}") as it:
        it.open(soon())
        with pytest.raises(DeviceError) as caught:
            it.send_file(source(tmp_path, 10), str(adb_bed.base / "x"), soon())
        assert caught.value.code == "SERVICE_REFUSED"
        assert it.run(["true"], soon()).ok


def test_missing_source(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError) as caught:
            phone.send_file(path, str(adb_bed.files / "x"), soon())
        assert caught.value.code == "FILE_UNREADABLE"


@pytest.mark.parametrize("what", ["device", "server"])
def test_link_lost(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path, what: str) -> None:
    sent = 0
    enough = threading.Event()

    def progress(count: int) -> None:
        nonlocal sent
        sent += count
        if sent > 8 << 20:
            enough.set()

    kill = adb_bed.kill_device if what == "device" else adb_bed.kill_server
    killer = threading.Thread(target=lambda: (enough.wait(30), kill()))
    killer.start()
    with pytest.raises(DeviceError) as caught:
        phone.send_file(endless(tmp_path), "/dev/null", soon(), progress=progress)
    killer.join()
    assert caught.value.code == "LINK_LOST"
    assert caught.value.transient


@pytest.mark.parametrize("what", ["device", "server", "storage"])
def test_stall(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path, what: str) -> None:
    phone.idle_limit = 1.5
    if what == "storage":
        target = adb_bed.files / "fifo"
        os.mkfifo(target)
        target.chmod(0o666)
        reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)  # never reads
        with pytest.raises(DeadlineExceeded) as caught:
            phone.send_file(source(tmp_path, 64 << 20), str(target), Deadline(LONG))
        os.close(reader)
        assert phone.run(["true"], soon()).ok
    else:
        frozen = threading.Event()
        freeze = adb_bed.signal_server if what == "server" else adb_bed.signal_device

        def progress(count: int) -> None:
            if not frozen.is_set():
                freeze(signal.SIGSTOP)
                frozen.set()

        with pytest.raises(DeadlineExceeded) as caught:
            phone.send_file(endless(tmp_path), "/dev/null", soon(), progress=progress)
        freeze(signal.SIGCONT)
    assert caught.value.code == "STALLED"  # and not TIMEOUT


def test_deadline(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    adb_bed.signal_device(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        phone.send_file(source(tmp_path, 64 << 20), "/dev/null", Deadline(1))
    assert caught.value.code == "TIMEOUT"
    assert time.monotonic() - started < LONG / 2


@pytest.mark.slow
def test_a_large_file(adb_bed: AdbBed, phone: AdbDevice, tmp_path: Path) -> None:
    """More than all buffers on the way hold; how fast it is, `bench/adb_push.py` measures."""
    file = source(tmp_path, 100 << 20)
    target = adb_bed.files / "large"
    phone.send_file(file, str(target), soon())
    assert sha256_of(target) == sha256_of(file)
