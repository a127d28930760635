"""Devices to test with: this host, a phone behind a real adb server, and a server that knows its answers by heart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant.devices.adb import AdbDevice
from edgequant.devices.local import LocalDevice
from tests.beds.adb import AdbBed
from tests.beds.adb_parts import ScriptedServer
from tests.devices.adb_phones import Scripted
from tests.devices.support import TIME, soon


@pytest.fixture
def device() -> Iterator[LocalDevice]:
    with LocalDevice() as opened:
        opened.open(TIME)
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.mnn"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def phone(adb_bed: AdbBed) -> Iterator[AdbDevice]:
    with AdbDevice(adb_bed.uri) as it:
        it.open(soon())
        yield it


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for name in ("ADB_SERVER_SOCKET", "ANDROID_SERIAL", "ANDROID_ADB_SERVER_PORT", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    made: list[ScriptedServer] = []

    def make(answers: dict[str, bytes | None]) -> ScriptedServer:
        made.append(ScriptedServer(answers))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(made[-1].port))
        return made[-1]

    yield make
    for server in made:
        server.close()
