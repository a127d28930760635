"""A push of 200 MB over SSH against OpenSSH's scp.

Timed: from nothing to a file that is there and verified.  Ours: connect, make the work directory, look whether the
file is there, send it, hash it on the device, rename it (SshDevice.open, Store.prepare, Store.put).  The peer is the
scp program with the same server, key and target file system: connect and send; it verifies nothing.  The number is
our speed divided by scp's.

Fair because both include their own connection, both send the same file, which is incompressible and new for every
pair, and they alternate.  Ours also does the work scp leaves out; `without verification` is the same without the two
hashes and the rename, and is there to show where time goes.  scp runs with its default cipher; `scp gcm` is scp with
the cipher edgequant asks for.  The SHA-256 of the file on the host is not timed: edgequant knows it from making the
model.  Files lie in memory (/dev/shm) where there is such a place, so that the disk's mood stays out of it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import CannotRun, Pairs, Result, Settings, median
from bench.material import ssh_server

BOUND = 0.9
MEGABYTES = 200


@contextmanager
def work_folder(settings: Settings, need: int = 4 * MEGABYTES) -> Iterator[Path]:
    memory = Path("/dev/shm")
    fits = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > need * 1e6
    folder = Path(tempfile.mkdtemp(prefix="edgequant-bench-", dir=memory if fits else settings.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh_file(folder: Path, megabytes: int = MEGABYTES) -> tuple[Path, str]:
    """An incompressible file that has never been sent, and its SHA-256."""
    path, digest = folder / "payload", hashlib.sha256()
    with open(path, "wb") as stream:
        for _ in range(megabytes):
            piece = secrets.token_bytes(1_000_000)
            digest.update(piece)
            stream.write(piece)
    return path, digest.hexdigest()


def connected(server: Any) -> Any:
    from edgequant.deadline import Deadline
    from edgequant.devices.ssh import SshDevice

    device = SshDevice(server.uri, config_path=server.config, python=sys.executable)
    device.open(Deadline(60))
    return device


def _scp(server: Any, folder: Path, source: Path, *options: str) -> float:
    target = folder / "copy"
    command = ["scp", "-q", "-F", str(server.config), *options, str(source), f"bed:{target}"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    seconds = time.perf_counter() - start
    if done.returncode or target.stat().st_size != source.stat().st_size:
        raise CannotRun(f"scp failed: {done.stderr.strip()[-300:]}")
    target.unlink()
    return seconds


def _scp_default(server: Any, folder: Path, source: Path, _sha256: str) -> float:
    return _scp(server, folder, source)


def _scp_gcm(server: Any, folder: Path, source: Path, _sha256: str) -> float:
    return _scp(server, folder, source, "-c", "aes128-gcm@openssh.com")


def _verified(server: Any, folder: Path, source: Path, sha256: str) -> float:
    from edgequant.deadline import Deadline
    from edgequant.devices.store import Store

    start = time.perf_counter()
    device = connected(server)
    store = Store(device, str(folder / "store"))
    store.prepare(Deadline(60))
    stored = store.put(source, sha256, Deadline(600))
    seconds = time.perf_counter() - start
    device.close()
    if stored.sent != source.stat().st_size:
        raise CannotRun("the file was there already: nothing was measured")
    Path(stored.path).unlink()
    return seconds


def _sent_only(server: Any, folder: Path, source: Path, _sha256: str) -> float:
    from edgequant.deadline import Deadline

    target = folder / "sent"
    start = time.perf_counter()
    device = connected(server)
    device.send_file(source, str(target), Deadline(600))
    seconds = time.perf_counter() - start
    device.close()
    target.unlink()
    return seconds


_STEPS = (_verified, _scp_default, _sent_only, _scp_gcm)


def run(settings: Settings) -> list[Result]:
    megabytes = settings.pairs(MEGABYTES, 50)
    verified, plain, gcm = Pairs(), Pairs(), Pairs()
    with ssh_server() as server, work_folder(settings) as folder:
        connected(server).close()  # paramiko's import and the server's first fork are not part of a push
        for turn in range(settings.pairs(8, 2)):
            source, sha256 = fresh_file(folder, megabytes)
            took = [0.0] * 4
            # One new file serves all four; every second time they run in the opposite order.
            for step in (0, 1, 2, 3) if turn % 2 == 0 else (3, 2, 1, 0):
                took[step] = _STEPS[step](server, folder, source, sha256)
            speed = [megabytes / seconds for seconds in took]
            for pairs, ours, peer in ((verified, 0, 1), (plain, 2, 1), (gcm, 0, 3)):
                pairs.ours.append(speed[ours])
                pairs.peer.append(speed[peer])
    return [
        Result(
            "push /scp",
            verified.ratios,
            BOUND,
            "higher",
            unit="x",
            notes=f"{megabytes} MB: {median(verified.ours):.0f} MB/s verified, scp {median(verified.peer):.0f} MB/s",
            detail=verified.detail(),
        ),
        Result(
            "push unverified /scp",
            plain.ratios,
            better="higher",
            unit="x",
            notes=f"{median(plain.ours):.0f} MB/s",
            detail=plain.detail(),
        ),
        Result(
            "push /scp gcm",
            gcm.ratios,
            better="higher",
            unit="x",
            notes=f"scp with aes128-gcm {median(gcm.peer):.0f} MB/s",
            detail=gcm.detail(),
        ),
    ]
