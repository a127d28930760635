"""Python sources to bytecode that depends on the sources and the compiler's version alone.

Bytecode fits one minor version of Python.  So it is compiled by an interpreter of the host with the pack's minor
version; where there is none, by the pack's own under QEMU; where there is neither, the pack carries sources (it then
starts several times slower on the device).  Who compiled is recorded in the pack: a patch release may fix the compiler.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.pack.archives import write_zip

_TIMEOUT = 900.0
# marshal's version 2 has no references: with them the bytes would depend on what else the interpreter holds.
_WORKER = """
import importlib.util, io, marshal, sys, zipfile
sources = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))
buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
    for name in sources.namelist():
        source = sources.read(name)
        code = compile(source, name, "exec", dont_inherit=True)
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
        archive.writestr(name + "c", head + marshal.dumps(code, 2))
sys.stdout.buffer.write(buffer.getvalue())
"""
_VERSION = "import platform; print(platform.python_implementation(), platform.python_version())"


@dataclass(frozen=True)
class Compiler:
    """An interpreter that compiles: its command, and what goes into the pack's record."""

    command: tuple[str, ...]
    version: str


def find_host_compiler(python: str) -> Compiler | None:
    """An interpreter of this host with the minor version `python` ("3.11")."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if own == python and platform.python_implementation() == "CPython":
        return Compiler((sys.executable,), f"CPython {platform.python_version()}")
    found = shutil.which(f"python{python}")
    if found is None:
        return None
    try:
        said = subprocess.run([found, "-c", _VERSION], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # a shim without the version behind it, for example
    version = said.strip()
    return Compiler((found,), version) if version.startswith(f"CPython {python}.") else None


def compile_sources(sources: Mapping[str, bytes], compiler: Compiler) -> dict[str, bytes]:
    """Path.py -> bytes to path.pyc -> bytes (unchecked-hash).  Raises ToolError (PACK_COMPILE_FAILED)."""
    if not sources:
        return {}
    command: Sequence[str] = (*compiler.command, "-s", "-S", "-c", _WORKER)
    environment = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": os.defpath}
    with tempfile.TemporaryDirectory(prefix="edgequant-compile-") as empty:
        try:
            done = subprocess.run(
                command, input=write_zip(sources), capture_output=True, timeout=_TIMEOUT, env=environment, cwd=empty
            )
            said = done.stderr.decode("utf-8", "replace").splitlines()
        except subprocess.TimeoutExpired:
            raise ToolError(
                "PACK_COMPILE_FAILED", f"compiling the pack's Python did not finish in {_TIMEOUT:.0f} s"
            ) from None
        except OSError as error:
            raise ToolError(
                "PACK_COMPILE_FAILED", f"{command[0]} cannot be started: {error.strerror}", where=str(Path(command[0]))
            ) from None
    try:
        if done.returncode == 0:
            with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
                return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        said.append("its answer is damaged")
    raise ToolError(
        "PACK_COMPILE_FAILED",
        f"compiling the pack's Python failed: {said[-1] if said else f'exit status {done.returncode}'}",
        hint=f"Check that {compiler.command[0]} works.",
        evidence={"log": said[-20:], "exit_code": done.returncode},
    )
