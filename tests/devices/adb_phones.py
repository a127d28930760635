"""Phones behind a real adb server: whether they can be opened, and whether what ran there is gone."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.errors import EdgequantError
from tests.beds.adb_parts import ScriptedServer


def soon() -> Deadline:
    """For what must come, on however busy a machine: only what fails waits so long."""
    return Deadline(60)


def opens(uri: str) -> bool:
    with AdbDevice(uri) as it:
        it.open(soon())
        return it.run(["echo", "works"], soon()).stdout == b"works\n"


def refused(uri: str, seconds: float = 30) -> EdgequantError:
    with AdbDevice(uri) as it, pytest.raises(EdgequantError) as caught:
        it.open(Deadline(seconds))
    assert caught.value.hint or caught.value.code == "TIMEOUT"
    assert caught.value.where == uri
    return caught.value


Scripted = Callable[[dict[str, bytes | None]], ScriptedServer]


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
