"""A push of 100 MB over adb against the adb command.

Timed: from nothing to a file that is there.  Ours: AdbDevice.open, which finds the device, starts its guard and waits
for a sign of life, and AdbDevice.send_file, which also takes the file's rights from others.  The peer is `adb push` as
a process, with the same adb server, device and directory.  The number is our speed divided by adb's.

Fair because neither verifies anything, both send the same file, which is incompressible and new for every round, and
they alternate.  `verified` is the whole of what edgequant does with a model: it also prepares the store, asks whether
the file is there, has the device hash it and renames it, against the same `adb push`, which does none of that.  The
SHA-256 on the host is not timed: edgequant knows it from making the model.

`adbd`: AOSP's adbd in a network namespace of this machine, its files in memory where there is such a place, so that
protocol and copying are all there is.  `phone`: the virtual ARM64 phone; what bounds it is the emulation.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.beds import adb_bed, phone_vm
from bench.harness import CannotRun, Pairs, Result, Settings, median
from bench.push import fresh_file, work_folder

BOUND = 0.9
MEGABYTES = 100


def run(settings: Settings) -> list[Result]:
    megabytes = settings.pairs(MEGABYTES, 25)
    with work_folder(settings) as folder, adb_bed(folder) as bed:
        results = _one("adbd", bed, bed.serial, str(bed.files), folder, megabytes, settings.pairs(12, 2))
        with phone_vm(bed, settings.folder) as phone:
            place = "/data/local/tmp"
            return results + _one("phone", bed, phone.serial, place, folder, megabytes, settings.pairs(4, 1))


def _one(name: str, bed: Any, serial: str, place: str, folder: Path, megabytes: int, rounds: int) -> list[Result]:
    sides: tuple[Callable[[Path, str], float], ...] = (
        lambda source, _: _sent(serial, source, f"{place}/sent"),
        lambda source, _: _adb(bed, serial, source, f"{place}/copy"),
        lambda source, sha256: _verified(serial, source, sha256, f"{place}/store"),
    )
    _sent(serial, fresh_file(folder, 1)[0], f"{place}/sent")  # imports are not part of a push
    plain, verified = Pairs(), Pairs()
    for turn in range(rounds):
        source, sha256 = fresh_file(folder, megabytes)
        speed = [0.0] * 3
        # One new file serves all three; every second time they run in the opposite order.
        for side in (0, 1, 2) if turn % 2 == 0 else (2, 1, 0):
            speed[side] = megabytes / sides[side](source, sha256)
        for pairs, ours in ((plain, 0), (verified, 2)):
            pairs.ours.append(speed[ours])
            pairs.peer.append(speed[1])
    return [
        Result(
            f"adb_push {name} /adb",
            plain.ratios,
            BOUND,
            "higher",
            unit="x",
            notes=f"{megabytes} MB: {median(plain.ours):.0f} MB/s, adb {median(plain.peer):.0f} MB/s",
            detail=plain.detail(),
        ),
        Result(
            f"adb_push {name} verified /adb",
            verified.ratios,
            better="higher",
            unit="x",
            notes=f"{median(verified.ours):.0f} MB/s with the hash there",
            detail=verified.detail(),
        ),
    ]


def _sent(serial: str, source: Path, target: str) -> float:
    from edgequant.deadline import Deadline
    from edgequant.devices.adb import AdbDevice

    start = time.perf_counter()
    device = AdbDevice(f"adb://{serial}")
    device.open(Deadline(60))
    device.send_file(source, target, Deadline(600))
    seconds = time.perf_counter() - start
    _remove(device, target)
    device.close()
    return seconds


def _verified(serial: str, source: Path, sha256: str, root: str) -> float:
    from edgequant.deadline import Deadline
    from edgequant.devices.adb import AdbDevice
    from edgequant.devices.store import Store

    start = time.perf_counter()
    device = AdbDevice(f"adb://{serial}")
    device.open(Deadline(60))
    store = Store(device, root)
    store.prepare(Deadline(60))
    stored = store.put(source, sha256, Deadline(600))
    seconds = time.perf_counter() - start
    if stored.sent != source.stat().st_size:
        raise CannotRun("the file was there already: nothing was measured")
    _remove(device, stored.path)
    device.close()
    return seconds


def _remove(device: Any, path: str) -> None:
    """So that the next one finds the disk as this one did; the size shows that it was all there."""
    from edgequant.deadline import Deadline

    done = device.run(["sh", "-c", 'wc -c < "$1" && rm -f "$1" && sync', "sh", path], Deadline(60))
    if not done.ok or not done.stdout.strip().isdigit():
        raise CannotRun(f"{path} is not there: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}")


def _adb(bed: Any, serial: str, source: Path, target: str) -> float:
    command = [bed.adb, "-L", bed.spec, "-s", serial, "push", str(source), target]
    start = time.perf_counter()
    done = subprocess.run(command, env=bed.environment(), capture_output=True, text=True, timeout=600, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise CannotRun(f"adb push failed: {(done.stderr or done.stdout).strip()[-300:]}")
    removed = [bed.adb, "-L", bed.spec, "-s", serial, "shell", f"rm -f {target} && sync"]
    subprocess.run(removed, env=bed.environment(), capture_output=True, timeout=60, check=True)
    return seconds
