"""What the tests of devices share: stores and how they are filled, file systems of a test's own, odd words."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.errors import DeviceError
from edgequant.files import sha256_of
from tests.waiting import LONG

TIME = Deadline(None)  # every test has a time limit of its own


def prepared(device: LocalDevice, work: Path | str) -> Store:
    store = Store(device, str(work))
    store.prepare(TIME)
    return store


def put(store: Store, source: Path) -> Path:
    return Path(store.put(source, sha256_of(source), TIME).path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def refused(device: LocalDevice, work: Path | str) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        prepared(device, work)
    assert caught.value.where == "local:"
    assert str(work) in str(caught.value)
    return caught.value


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(file.relative_to(folder)): file.read_bytes() if file.is_file() else None for file in folder.rglob("*")}


def soon() -> Deadline:
    """For what must come, on however busy a machine: only what fails waits so long."""
    return Deadline(LONG)


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
