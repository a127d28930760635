"""Phones behind a real adb server: whether they can be opened, and with which error if not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.adb_attached import Attached, listed
from edgequant.devices.adb_server import AdbServer
from edgequant.devices.adb_wire import Address
from edgequant.errors import EdgequantError
from tests.beds.adb_parts import ScriptedServer
from tests.devices.support import soon
from tests.waiting import LONG


def opens(uri: str) -> bool:
    with AdbDevice(uri) as it:
        it.open(soon())
        return it.run(["echo", "works"], soon()).stdout == b"works\n"


def refused(uri: str, seconds: float = LONG) -> EdgequantError:
    with AdbDevice(uri) as it, pytest.raises(EdgequantError) as caught:
        it.open(Deadline(seconds))
    assert caught.value.hint or caught.value.code == "TIMEOUT"
    assert caught.value.where == uri
    return caught.value


def attached() -> list[Attached]:
    return listed(AdbServer(Address.from_environment(), "adb:"), soon())


Scripted = Callable[[dict[str, bytes | None]], ScriptedServer]
