"""adb servers: silent, strange, absent, started by us."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgequant.devices.adb import AdbDevice
from edgequant.devices.adb_attached import phones
from edgequant.devices.adb_wire import Address
from edgequant.errors import DeviceError, InputError
from tests.beds.adb import AdbBed
from tests.devices.adb_phones import Scripted, refused
from tests.devices.support import soon
from tests.waiting import LONG

pytestmark = pytest.mark.adb


def test_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT")
    for values, expected in (
        (("", "", ""), "127.0.0.1:5037"),
        (("", "", "6000"), "127.0.0.1:6000"),
        (("", "lab", "6000"), "lab:6000"),
        (("", "::1", "6000"), "[::1]:6000"),
        (("tcp:6001", "lab", "6000"), "127.0.0.1:6001"),
        (("tcp:lab:6001", "", ""), "lab:6001"),
        (("localfilesystem:/tmp/x", "", ""), "localfilesystem:/tmp/x"),
    ):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
        assert str(Address.from_environment()) == expected
    for values in (("", "", "x"), ("", "", "0"), ("vsock:1", "", ""), ("tcp:", "", "")):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError) as caught:
            AdbDevice("adb://x")
        assert caught.value.code == "ADB_SERVER_INVALID"


@pytest.mark.parametrize("answers", [{}, {"host:devices-l": b"what"}, {"host:devices-l": b"OKAYzzzz"}])
def test_something_else_listens_there(scripted: Scripted, answers: dict[str, bytes | None]) -> None:
    scripted(answers)
    assert refused("adb://x").code in ("ADB_SERVER_LOST", "ADB_SERVER_UNREACHABLE")


def test_a_server_that_says_nothing(scripted: Scripted) -> None:
    scripted({"host:devices-l": None})
    started = time.monotonic()
    assert refused("adb://x", seconds=1).code == "TIMEOUT"
    assert time.monotonic() - started < LONG / 2


def test_no_server_on_another_machine() -> None:
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else can take it
        taken.bind(("127.0.0.2", 0))  # loopback, but not the address where one would be started
        address = f"127.0.0.2:{taken.getsockname()[1]}"
        error = refused(f"adb://x@{address}")
    assert error.code == "ADB_SERVER_UNREACHABLE"
    assert address in error.message
    # Where no name server answers, it takes a while until that is known.
    assert refused("adb://x@nothing.invalid:9", seconds=200).code == "ADB_SERVER_UNREACHABLE"


def test_no_server_and_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ADBUTILS_ADB_PATH", raising=False)
    monkeypatch.setattr("adbutils._utils._get_bin_dir", lambda: str(tmp_path))
    error = refused("adb://x")
    assert error.code == "ADB_MISSING"
    assert "apt install adb" in str(error.hint)
    assert phones() == []


def test_listing_starts_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/none")
    adb = tmp_path / "adb"
    adb.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n')
    adb.chmod(0o755)
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(adb))
    asked = tmp_path / "asked"
    asked.touch()
    ((uri, what),) = phones()
    assert uri == "adb://"
    assert f"no adb server is running at localfilesystem:{tmp_path}/none" in what
    assert "start-server" not in asked.read_text()


@pytest.mark.parametrize("answer", [b"what", b"FAIL0003why"])
def test_listing_what_something_else_answers(scripted: Scripted, answer: bytes) -> None:
    scripted({"host:devices-l": answer})
    with pytest.raises(DeviceError) as caught:
        phones()
    assert caught.value.code in ("ADB_SERVER_LOST", "ADB_SERVER_UNREACHABLE")


def test_listing_the_phones_of_a_server(adb_bed: AdbBed) -> None:
    adb_bed.fake("--state", "recovery", "--model", "Old_Phone")
    found = dict(phones())
    assert found[adb_bed.uri].endswith(", tcp")
    assert any("runs its recovery system" in what for what in found.values())


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo cannot bind >&2; exit 1", "ADB_SERVER_NOT_STARTED"),
        ("exec sleep 100", "TIMEOUT"),
        ("exit 0", "ADB_SERVER_UNREACHABLE"),
    ],
)
def test_a_command_that_starts_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/none")
    adb = tmp_path / "adb"
    adb.write_text(f"#!/bin/sh\n{script}\n")
    adb.chmod(0o755)
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(adb))
    started = time.monotonic()
    error = refused("adb://x", seconds=2 if code == "TIMEOUT" else LONG)
    assert error.code == code
    assert time.monotonic() - started < LONG / 2
    if code == "ADB_SERVER_NOT_STARTED":
        assert "cannot bind" in error.message


def test_the_server_is_started(adb_bed: AdbBed) -> None:
    """In the namespace, so that nothing of this host is touched, and on a port."""
    program = """
import sys
from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
for _ in range(2):  # the second one finds it running
    with AdbDevice(sys.argv[1]) as it:
        it.open(Deadline(90))
        print(it.run(["echo", "works"], Deadline(60)).stdout.decode(), end="")
"""
    environment = adb_bed.environment() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    del environment["ADB_SERVER_SOCKET"]
    uri = f"{adb_bed.uri}@127.0.0.1:19037"
    done = subprocess.run(
        [*adb_bed.inside(), sys.executable, "-c", program, uri],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    subprocess.run([*adb_bed.inside(), adb_bed.adb, "-P", "19037", "kill-server"], env=environment, timeout=30)
    assert done.stdout == "works\nworks\n", done.stderr


def test_a_server_that_is_gone_is_started_by_open_only(adb_bed: AdbBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/no/such/adb")
    with AdbDevice(adb_bed.uri, keepalive=0) as it:
        it.open(soon())
        adb_bed.kill_server()
        with pytest.raises(DeviceError) as caught:
            it.run(["true"], soon())
        assert caught.value.code == "LINK_LOST"
        with pytest.raises(DeviceError) as caught:
            it.open(soon())
        assert caught.value.code == "ADB_MISSING"
