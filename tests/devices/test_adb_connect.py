"""Finding the device behind an adb server: names, serials, states, old devices."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgequant.devices.adb import AdbDevice, parse_uri
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, InputError
from edgequant.files import sha256_of
from tests.beds.adb import AdbBed
from tests.beds.adb_parts import ScriptedServer
from tests.devices.adb_phones import Scripted, attached, opens, refused
from tests.devices.support import soon
from tests.waiting import LONG, eventually

pytestmark = pytest.mark.adb


# --- names ---


@pytest.mark.parametrize(
    ("uri", "serial", "server"),
    [
        ("adb://", None, None),
        ("adb://R58M12ABCDE", "R58M12ABCDE", None),
        ("adb://emulator-5554", "emulator-5554", None),
        ("adb://192.168.0.5:5555", "192.168.0.5:5555", None),
        ("adb://[fe80::1%eth0]:5555", "[fe80::1%eth0]:5555", None),
        ("adb://adb-R58M-x1._adb-tls-connect._tcp", "adb-R58M-x1._adb-tls-connect._tcp", None),
        ("adb://R58M@lab:5038", "R58M", "lab:5038"),
        ("adb://R58M@lab", "R58M", "lab:5037"),
        ("adb://@lab:5038", None, "lab:5038"),
        ("adb://10.0.0.2:5555@[::1]:5038", "10.0.0.2:5555", "[::1]:5038"),
    ],
)
def test_uri(uri: str, serial: str | None, server: str | None) -> None:
    found, address = parse_uri(uri)
    assert found == serial
    assert (str(address) if address else None) == server


@pytest.mark.parametrize("rest", ["a b", "a/b", "-s", "a@b@c:1", "x@", "x@h:0", "x@h:99999", "x@h:p", "x" * 300, "a\n"])
def test_bad_uri(rest: str) -> None:
    with pytest.raises(InputError) as caught:
        AdbDevice(f"adb://{rest}")
    assert caught.value.code == "DEVICE_URI_INVALID"


# --- which device ---


def test_by_serial_and_the_only_one(adb_bed: AdbBed) -> None:
    assert opens(adb_bed.uri)
    assert opens("adb://")
    it = AdbDevice(adb_bed.uri, python="/opt/python3")
    assert list(it.python) == ["/opt/python3"]
    assert not it.is_host
    assert it.work_dirs[0].startswith("/data/local/tmp/edgequant-")


def test_none_attached(adb_bed: AdbBed) -> None:
    adb_bed.disconnect(adb_bed.serial)
    assert refused("adb://").code == "ADB_NONE_ATTACHED"


def test_two_attached(adb_bed: AdbBed, monkeypatch: pytest.MonkeyPatch) -> None:
    second = adb_bed.second()
    error = refused("adb://")
    assert error.code == "ADB_SEVERAL_ATTACHED"
    assert adb_bed.serial in error.message
    assert second in error.message
    for serial in (adb_bed.serial, second):
        assert opens(f"adb://{serial}")
        monkeypatch.setenv("ANDROID_SERIAL", serial)
        with AdbDevice("adb://") as it:
            it.open(soon())
            assert it._link is not None
            assert it._link.serial == serial
    # What the URI says comes first.
    monkeypatch.setenv("ANDROID_SERIAL", "nothing")
    assert opens(adb_bed.uri)
    assert refused("adb://").code == "ADB_UNKNOWN_SERIAL"


def test_wrong_serial(adb_bed: AdbBed) -> None:
    error = refused("adb://R58M12ABCDE")
    assert error.code == "ADB_UNKNOWN_SERIAL"
    assert adb_bed.serial in error.message


def test_a_network_device_is_connected(adb_bed: AdbBed) -> None:
    adb_bed.disconnect(adb_bed.serial)
    assert opens(adb_bed.uri)
    error = refused("adb://127.0.0.1:1")
    assert error.code == "ADB_CONNECT_FAILED"
    assert "127.0.0.1:1" in error.message


def test_list(adb_bed: AdbBed) -> None:
    adb_bed.fake("--state", "recovery", "--model", "Old_Phone")
    found = {device.serial: device for device in attached()}
    assert len(found) == 2
    real = found.pop(adb_bed.serial)
    assert (real.state, real.transport, real.explanation, real.uri) == ("device", "tcp", None, adb_bed.uri)
    (other,) = found.values()
    assert (other.state, other.model, other.usable) == ("recovery", "Old Phone", False)
    assert "recovery" in str(other.explanation)


# --- states ---


@pytest.mark.parametrize(
    ("state", "code"),
    [("recovery", "ADB_RECOVERY"), ("sideload", "ADB_SIDELOAD"), ("bootloader", "ADB_BOOTLOADER")],
)
def test_states(adb_bed: AdbBed, state: str, code: str) -> None:
    fake = adb_bed.fake("--state", state)
    assert refused(f"adb://{fake.serial}").code == code


def test_authorization(adb_bed: AdbBed) -> None:
    fake = adb_bed.fake("--auth")
    fake.heard("asked")
    error = refused(f"adb://{fake.serial}")
    assert error.code == "ADB_UNAUTHORIZED"
    assert "Allow USB debugging" in str(error.hint)
    assert "unauthorized" in [device.state for device in attached()]
    fake.tell("accept")
    adb_bed.ask_until(fake.serial, "device")
    assert opens(f"adb://{fake.serial}")


NO_PERMISSIONS = (
    "no permissions (missing udev rules? user is in the plugdev group); see "
    "[http://developer.android.com/tools/device.html] usb:1-4 transport_id:3"
)


@pytest.mark.parametrize(
    ("line", "serial", "code", "transport"),
    [
        (f"R58M12ABCDE            {NO_PERMISSIONS}", "R58M12ABCDE", "ADB_NO_PERMISSIONS", "usb"),
        (f"(no serial number)     {NO_PERMISSIONS}", "(no serial number)", "ADB_NO_PERMISSIONS", "usb"),
        ("R58M12ABCDE            offline usb:1-4 transport_id:1", "R58M12ABCDE", "ADB_OFFLINE", "usb"),
        ("R58M12ABCDE            authorizing usb:1-4 transport_id:1", "R58M12ABCDE", "ADB_AUTHORIZING", "usb"),
        ("R58M12ABCDE            detached usb:1-4 transport_id:1", "R58M12ABCDE", "ADB_DETACHED", "usb"),
        ("R58M12ABCDE            host usb:1-4 transport_id:1", "R58M12ABCDE", "ADB_NOT_READY", "usb"),
        ("emulator-5554          offline transport_id:1", "emulator-5554", "ADB_OFFLINE", "emulator"),
    ],
)
def test_states_of_a_server(scripted: Scripted, line: str, serial: str, code: str, transport: str) -> None:
    server = scripted({"host:devices-l": ScriptedServer.okay(line + "\n"), "host:track-devices": None})
    it = AdbDevice("adb://")
    it.settle = 0.5
    with pytest.raises(DeviceError) as caught:
        it.open(soon())
    assert caught.value.code == code
    assert serial in str(caught.value)
    (device,) = attached()
    assert (device.serial, device.transport) == (serial, transport)
    assert device.explanation
    assert refused(f"adb://@127.0.0.1:{server.port}", seconds=3).code in (code, "TIMEOUT")


def test_a_device_that_is_just_being_asked(scripted: Scripted) -> None:
    """Its state passes by itself: the server tells when."""
    tracked = ScriptedServer.okay("X\tauthorizing\n") + b"000aX\toffline\n"
    scripted({"host:devices-l": ScriptedServer.okay("X  authorizing usb:1\n"), "host:track-devices": tracked})
    assert refused("adb://X").code == "ADB_OFFLINE"


# --- devices that cannot be used ---


def test_old_device(adb_bed: AdbBed) -> None:
    fake = adb_bed.fake("--features", "cmd", "--release", "6.0.1")
    error = refused(f"adb://{fake.serial}")
    assert error.code == "ADB_TOO_OLD"
    assert "Android 6.0.1" in error.message
    assert "7.0" in str(error.hint)
    nameless = adb_bed.fake("--features", "")
    assert refused(f"adb://{nameless.serial}").code == "ADB_TOO_OLD"


def test_no_shell(adb_bed: AdbBed) -> None:
    error = refused(f"adb://{adb_bed.fake('--broken-shell').serial}")
    assert error.code == "NO_SHELL"
    assert "no shell!!!" in error.message


def test_a_device_that_starts_nothing(adb_bed: AdbBed) -> None:
    started = time.monotonic()
    assert refused(f"adb://{adb_bed.fake('--mute-shell').serial}", seconds=1).code == "TIMEOUT"
    fake = adb_bed.fake()
    fake.tell("hang")
    assert refused(f"adb://{fake.serial}", seconds=1).code == "TIMEOUT"
    assert time.monotonic() - started < LONG / 2


def test_a_connection_that_is_dead_without_a_word(adb_bed: AdbBed) -> None:
    """As after a power cut: the server says `device`, and would for minutes."""
    fake = adb_bed.fake()
    fake.tell("stick")
    assert f"{fake.serial}\tdevice" in adb_bed.ask("host:devices")
    with AdbDevice(f"adb://{fake.serial}") as it:
        it.answer = 5
        it.open(soon())
        assert it.run(["echo", "works"], soon()).stdout == b"works\n"


def test_connections_reset_by_the_device(adb_bed: AdbBed) -> None:
    fake = adb_bed.fake()
    begun = adb_bed.files / "begun"
    with AdbDevice(f"adb://{fake.serial}") as it:
        it.open(soon())
        drop = threading.Thread(target=lambda: (eventually(begun.exists), fake.tell("drop")))
        drop.start()
        with pytest.raises(DeviceError) as caught:
            it.run(["sh", "-c", 'touch "$1"; exec sleep 100', "sh", str(begun)], soon())
        drop.join()  # the bed may go only when it has answered
        assert caught.value.code == "LINK_LOST"


# --- the store on it ---


@pytest.mark.parametrize("shell", [None, "busybox-static", "mksh"])
def test_store(adb_bed: AdbBed, tmp_path: Path, shell: str | None) -> None:
    place = str(adb_bed.files / f"store {shell}")
    file = tmp_path / "model"
    file.write_bytes(bytes(range(256)) * 5000)
    digest = sha256_of(file)
    with AdbDevice(f"adb://{adb_bed.second(shell)}") as it:
        it.open(soon())
        store = Store(it, place)
        store.prepare(soon())
        assert store.put(file, digest, soon()).sent == file.stat().st_size
        assert store.free_bytes
        again = Store(it, place)
        again.prepare(soon())
        assert again.put(file, digest, soon()).sent == 0
        assert again.clean(soon()) >= file.stat().st_size
        full = Store(it, str(adb_bed.small / "store"))
        full.prepare(soon())
        with pytest.raises(DeviceError) as caught:
            full.put(file, digest, soon())
        assert caught.value.code == "NO_SPACE"
