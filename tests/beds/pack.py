"""Fixtures: the pack, built once and then kept in the user's cache, and a runner started from it under QEMU.

Nothing has to be installed: what is missing is fetched from the registries the host is configured for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.emulated import EmulatedDevice
from edgequant.devices.store import Store
from edgequant.pack import Pack, build_pack, default_cache, unpacked
from edgequant.pack.cache import lock
from edgequant.pack.lock import read_lock
from edgequant.pack.qemu import find_qemu
from edgequant.progress import Progress
from edgequant.runner.bundle import runner_file
from edgequant.runner.client import MnnRunner
from edgequant.runner.session import RunnerSession
from edgequant.spec import RunOptions


@pytest.fixture(scope="session")
def pack() -> Pack:
    """The standard pack."""
    return build_pack()


@pytest.fixture(scope="session")
def pack_tree(pack: Pack) -> Path:
    """The directory of its files on this host, not to be changed."""
    return unpacked(pack)


@pytest.fixture(scope="session")
def qemu() -> str:
    """qemu-aarch64, from PATH or from edgequant's cache."""
    with lock(default_cache()):
        return find_qemu(default_cache(), read_lock(), Progress())


@contextlib.contextmanager
def _runner(folder: Path, cpu: str, options: RunOptions) -> Iterator[tuple[EmulatedDevice, Store, MnnRunner]]:
    with EmulatedDevice(f"emulated:{cpu}") as device:
        device.open(Deadline(60))
        store = Store(device, str(folder / "device"))
        store.prepare(Deadline(60))
        path, digest = runner_file(folder / "host")
        script = store.put(path, digest, Deadline(60)).path
        with RunnerSession(device, [*device.python, "-u", script], log=folder / "log") as session:
            session.start(Deadline(60))
            yield device, store, MnnRunner(session, options, uri=device.uri)


EmulatedRunner = Callable[..., "contextlib.AbstractContextManager[tuple[EmulatedDevice, Store, MnnRunner]]"]


@pytest.fixture
def emulated_runner(tmp_path: Path) -> EmulatedRunner:
    """emulated_runner(cpu, options): a context manager with the device, its store and a runner on it."""

    def start(
        cpu: str, options: RunOptions | None = None
    ) -> contextlib.AbstractContextManager[tuple[EmulatedDevice, Store, MnnRunner]]:
        return _runner(tmp_path, cpu, options or RunOptions())

    return start
