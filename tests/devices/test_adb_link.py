"""The link to a real adbd, and what happens when it dies, freezes or comes back."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.errors import DeadlineExceeded, DeviceError
from tests.beds.adb import AdbBed
from tests.devices.support import soon
from tests.nightly import all_but
from tests.waiting import LONG, ended, eventually

pytestmark = pytest.mark.adb


def running(phone: AdbDevice, file: Path) -> tuple[threading.Thread, list[DeviceError]]:
    """A command that runs in a thread, and the error it ends with."""
    caught: list[DeviceError] = []
    # Its stdin is closed when the guard has been told of it: what dies before that, nobody there could clean up after.
    script = 'trap "" HUP; cat; echo $$ > "$1"; sleep 100; true'

    def run() -> None:
        try:
            phone.run(["sh", "-c", script, "sh", str(file)], Deadline(100))
        except DeviceError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: file.exists() and bool(file.read_text()))
    return thread, caught


@pytest.mark.parametrize("what", all_but("device", of=["server", "device"]))
def test_link_lost_in_a_run(adb_bed: AdbBed, phone: AdbDevice, what: str) -> None:
    file = adb_bed.files / f"lost-{what}"
    thread, caught = running(phone, file)
    if what == "server":
        adb_bed.kill_server()
    else:
        adb_bed.kill_device()
    thread.join(LONG)
    assert caught[0].code == "LINK_LOST"
    assert caught[0].transient
    # The guard saw the end of its stdin and cleaned up, although the command ignores the hang-up.
    assert ended(int(file.read_text()))
    with pytest.raises(DeviceError) as again:
        phone.run(["true"], soon())
    assert again.value.code == "LINK_LOST"
    if what == "server":
        adb_bed.start_server()
        phone.open(soon())  # knows nothing of the device any more: it is connected again
        assert phone.run(["true"], soon()).ok


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


def test_link_lost_under_a_process(adb_bed: AdbBed, phone: AdbDevice) -> None:
    process = phone.start(["sh", "-c", "echo $$; cat; echo the runner ends by itself > /dev/null"], soon())
    pid = int(process.read(100, soon()))
    adb_bed.kill_device()
    with pytest.raises(DeviceError) as caught:
        process.read(1, soon())
    assert caught.value.code == "LINK_LOST"
    assert process.wait(soon()).lost
    with pytest.raises(DeviceError) as caught:
        process.write(b"x", soon())
    assert caught.value.code == "LINK_LOST"
    assert ended(pid)
    process.kill()


@pytest.mark.parametrize("what", all_but("device", of=["server", "device"]))
def test_a_dead_link_is_noticed(adb_bed: AdbBed, what: str) -> None:
    """`adb devices` goes on saying `device`: only silence tells."""
    with AdbDevice(adb_bed.uri, keepalive=3) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        freeze = adb_bed.signal_server if what == "server" else adb_bed.signal_device
        freeze(signal.SIGSTOP)
        with pytest.raises(DeviceError) as caught:
            process.read(1, Deadline(LONG))
        freeze(signal.SIGCONT)
        assert caught.value.code == "LINK_LOST"  # and not TIMEOUT
        assert "sign of life" in caught.value.message


@pytest.mark.nightly
@pytest.mark.slow
def test_a_pause_is_survived(adb_bed: AdbBed) -> None:
    with AdbDevice(adb_bed.uri, keepalive=9) as it:
        it.open(soon())
        process = it.start(["cat"], soon())
        adb_bed.signal_device(signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            process.read(1, Deadline(4))  # far below the limit of 12 s, so that a slow machine is not taken for dead
        adb_bed.signal_device(signal.SIGCONT)
        # Longer than the limit: life after the pause starts the count anew.
        with pytest.raises(DeadlineExceeded):
            process.read(1, Deadline(14))
        process.write(b"x", soon())
        assert process.read(1, soon()) == b"x"


@pytest.mark.slow
@pytest.mark.parametrize("what", all_but("device", of=["server", "device"]))
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
            assert time.monotonic() - started < LONG / 2
        started = time.monotonic()
        it.close()
        assert time.monotonic() - started < LONG / 2
        freeze(signal.SIGCONT)
