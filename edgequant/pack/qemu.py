"""QEMU's user-mode emulator: programs for ARM64 on this host, without a machine, a kernel or root."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgequant.errors import DeviceError, EdgequantError
from edgequant.pack.archives import read_deb
from edgequant.pack.inputs import Inputs, no_cache
from edgequant.pack.lock import Lock
from edgequant.progress import Progress

NAMES = ("qemu-aarch64-static", "qemu-aarch64")
_DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_HINT = "Install it: apt-get install qemu-user-static (Fedora: qemu-user-static; Arch: qemu-user)."
# 32-bit CPUs, which qemu-aarch64 lists as well.
_NOT_64 = re.compile(r"(arm\d|cortex-a(7|8|9|15)$|cortex-[mr]\d|pxa|sa1\d|ti925t|any$|host$)")


def installed_qemu() -> str | None:
    """An emulator on PATH."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def find_qemu(cache: Path, lock: Lock, progress: Progress, given: tuple[Path, ...] = ()) -> str:
    """An emulator on PATH, or one taken out of its Debian package into the cache.

    Raises DeviceError (QEMU_MISSING), naming the package to install.
    """
    found = installed_qemu()
    if found:
        return found
    if not sys.platform.startswith("linux"):
        raise DeviceError("QEMU_MISSING", "QEMU's user-mode emulation exists on Linux only", hint="Use a Linux host.")
    arch = _DEB_ARCH.get(platform.machine())
    pinned = next((item for item in lock.qemu if item.arch == arch), None)
    if pinned is None:
        raise DeviceError("QEMU_MISSING", f"there is no {NAMES[0]} on this host", hint=_HINT)
    place = cache / "tools" / pinned.sha256[:16] / NAMES[0]
    if place.is_file():
        return str(place)
    try:
        (deb,) = Inputs(cache / "inputs", given, progress).get([pinned], lock.suite)
        data = read_deb(deb, only=f"usr/bin/{NAMES[0]}")[f"usr/bin/{NAMES[0]}"].data
    except OSError as error:
        raise no_cache(cache, error) from None
    except (EdgequantError, KeyError) as error:
        raise DeviceError(
            "QEMU_MISSING",
            f"there is no {NAMES[0]} on this host, and it could not be fetched ({error})",
            hint=_HINT,
        ) from error
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as stream:
            stream.write(data)
        Path(stream.name).chmod(0o755)
        Path(stream.name).replace(place)
    except OSError as error:
        raise no_cache(place.parent, error) from None
    return str(place)


def cpu_models(qemu: str) -> list[str]:
    """The 64-bit CPU models an emulator knows.  Raises DeviceError (QEMU_UNUSABLE)."""
    said = _output([qemu, "-cpu", "help"])
    names = [line.strip().split()[0] for line in said.splitlines() if re.match(r"\s+\w", line)]
    return sorted(name for name in names if not _NOT_64.match(name))


def version(qemu: str) -> str:
    """Such as "7.2.22".  Raises DeviceError (QEMU_UNUSABLE)."""
    found = re.search(r"version (\d[\w.]*)", _output([qemu, "--version"]))
    return found[1] if found else "of unknown version"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("QEMU_UNUSABLE", f"{command[0]} cannot be started: {error}", hint=_HINT) from None
    return done.stdout
