"""What counting takes: a QEMU that loads plugins, and the plugin, compiled on this host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from edgequant.errors import DeviceError

NAME = "qemu-aarch64"
_SOURCE = Path(__file__).with_name("count.c")
_INSTALL = "Install it: apt-get install qemu-user (qemu-user-static loads no plugins), or name one with --qemu."


def qemu_with_plugins(given: str | None = None) -> str:
    """given: instead of what is on PATH.  Raises DeviceError (WORK_QEMU_MISSING)."""
    found = shutil.which(given or NAME)
    if found is None:
        raise DeviceError("WORK_QEMU_MISSING", f"there is no {given or NAME} on this host", hint=_INSTALL)
    try:
        told = subprocess.run([found, "-help"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("WORK_QEMU_MISSING", f"{found} cannot be started: {error}", hint=_INSTALL) from None
    if "-plugin" not in told.stdout:
        raise DeviceError("WORK_QEMU_MISSING", f"{found} loads no plugins", hint=_INSTALL)
    return found


def compiled(folder: Path, compiler: str | None = None) -> Path:
    """The plugin, in a folder.  compiler: None for the first of cc and gcc.  Raises DeviceError
    (WORK_COMPILER_MISSING)."""
    out = folder / "count.so"
    found = shutil.which(compiler) if compiler else shutil.which("cc") or shutil.which("gcc")
    hint = "Install one: apt-get install gcc libc6-dev."
    if found is None:
        raise DeviceError("WORK_COMPILER_MISSING", "there is no C compiler on this host", hint=hint)
    command = [found, "-shared", "-fPIC", "-O2", "-o", str(out), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise DeviceError("WORK_COMPILER_MISSING", f"{found} cannot compile the plugin: {said}", hint=hint)
    return out
