"""Sending files over a real sshd: content, modes, reasons of the device, stalls and lost links."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.protocol import CommandResult
from edgequant.devices.ssh import SshDevice
from edgequant.devices.ssh_push import write_error
from edgequant.errors import DeadlineExceeded, DeviceError, InputError
from tests.beds.sshd import ALIAS, SshServer
from tests.devices.support import soon

pytestmark = pytest.mark.ssh


@pytest.fixture
def device(sshd: SshServer) -> Iterator[SshDevice]:
    with SshDevice(f"ssh://{ALIAS}", config_path=sshd.config) as it:
        it.open(soon())
        yield it


def source(tmp_path: Path, size: int) -> Path:
    file = tmp_path / "source.bin"
    file.write_bytes(os.urandom(1 << 20) * (size >> 20) + os.urandom(size & 0xFFFFF))
    return file


@pytest.mark.parametrize("size", [0, 1, 32704, 32768, (5 << 20) + 7])
def test_content_mode_and_progress(device: SshDevice, tmp_path: Path, size: int) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"longer than before" * 10)
    target.chmod(0o644)
    steps: list[int] = []
    device.send_file(source(tmp_path, size), str(target), soon(), progress=steps.append)
    assert target.read_bytes() == (tmp_path / "source.bin").read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    assert sum(steps) == size


@pytest.mark.parametrize("name", ['it\'s "$HOME" `x`', "-rf", "new\nline", "ü ☃", "*", "n" * 255])
def test_odd_names(device: SshDevice, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    device.send_file(source(tmp_path, 100), str(target), soon())
    assert target.stat().st_size == 100


def refused(device: SshDevice, file: Path, target: object) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        device.send_file(file, str(target), Deadline(30))
    assert caught.value.hint
    assert str(target)[:50] in caught.value.message
    # The connection is as good as before.
    assert device.run(["true"], soon()).ok
    return caught.value


def test_full_disk(sshd: SshServer, device: SshDevice, tmp_path: Path) -> None:
    file = source(tmp_path, 30 << 20)
    assert refused(device, file, "/dev/full").code == "NO_SPACE"
    if sshd.accounts:
        assert refused(device, file, sshd.small / "too large").code == "NO_SPACE"


def test_read_only(sshd: SshServer, device: SshDevice, tmp_path: Path) -> None:
    if not sshd.accounts:
        pytest.skip("needs a mount: run as root")
    assert refused(device, source(tmp_path, 8 << 20), sshd.read_only / "x").code == "READ_ONLY"


def test_permission_denied(sshd: SshServer, tmp_path: Path) -> None:
    if not sshd.accounts:
        pytest.skip("needs an account other than root: run as root")
    with SshDevice(sshd.uri_as("eqtest"), config_path=sshd.config) as it:
        it.open(soon())
        assert refused(it, source(tmp_path, 8 << 20), "/etc/edgequant-test").code == "PERMISSION_DENIED"


def test_other_reasons(device: SshDevice, tmp_path: Path) -> None:
    file = source(tmp_path, 8 << 20)
    assert refused(device, file, tmp_path).code == "IS_A_DIRECTORY"
    assert refused(device, file, tmp_path / "no" / "x").code == "NO_SUCH_DIRECTORY"
    assert refused(device, file, tmp_path / ("n" * 256)).code == "NAME_TOO_LONG"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"sh: can't create /x/y: nonexistent directory", "NO_SUCH_DIRECTORY"),
        (b"sh: can't create /x: Read-only file system", "READ_ONLY"),
        (b"cat: write error: No space left on device", "NO_SPACE"),
        (b"cat: write error: Input/output error", "DEVICE_IO"),
        (b"", "DEVICE_IO"),
    ],
)
def test_words_of_other_shells(said: bytes, code: str) -> None:
    assert write_error("/x", said, CommandResult(1, b"", b""), "ssh://x").code == code


def test_missing_source(device: SshDevice, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        device.send_file(tmp_path / "missing", str(tmp_path / "x"), soon())
    assert caught.value.code == "FILE_UNREADABLE"


def test_link_lost(sshd: SshServer, device: SshDevice, tmp_path: Path) -> None:
    sent = 0
    enough = threading.Event()

    def progress(count: int) -> None:
        nonlocal sent
        sent += count
        if sent > 8 << 20:
            enough.set()

    killer = threading.Thread(target=lambda: (enough.wait(30), sshd.kill_sessions()))
    killer.start()
    with pytest.raises(DeviceError) as caught:
        device.send_file(source(tmp_path, 400 << 20), "/dev/null", soon(), progress=progress)
    killer.join()
    assert caught.value.code == "LINK_LOST"
    assert caught.value.transient


@pytest.mark.parametrize("what", ["link", "storage"])
def test_stall(sshd: SshServer, device: SshDevice, tmp_path: Path, what: str) -> None:
    device.idle_limit = 1.5
    target = "/dev/null"
    if what == "storage":
        target = str(tmp_path / "fifo")
        os.mkfifo(target)
        reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)  # opens it for cat, and never reads
        with pytest.raises(DeadlineExceeded) as caught:
            device.send_file(source(tmp_path, 16 << 20), target, soon())
        os.close(reader)
        assert device.run(["true"], soon()).ok
    else:
        frozen = threading.Event()

        def progress(count: int) -> None:
            if not frozen.is_set():
                sshd.freeze_sessions()
                frozen.set()

        with pytest.raises(DeadlineExceeded) as caught:
            device.send_file(source(tmp_path, 64 << 20), target, soon(), progress=progress)
    assert caught.value.code == "STALLED"  # and not TIMEOUT


def test_deadline(device: SshDevice, tmp_path: Path) -> None:
    target = tmp_path / "fifo"
    os.mkfifo(target)
    reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(DeadlineExceeded) as caught:
        device.send_file(source(tmp_path, 16 << 20), str(target), Deadline(1))
    os.close(reader)
    assert caught.value.code == "TIMEOUT"
