"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgequant.errors import EdgequantError


def safe_name(text: str, limit: int = 60) -> str:
    """`text` as a file name: readable, and never the same for two different texts."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"
    if plain == text and len(plain) <= limit:
        return plain
    return f"{plain[:limit]}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def same_file(one: Path, other: Path) -> bool:
    """Whether both are there, and are one file or folder, by whatever name."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under `path` only when the block ends without an exception.

    The bytes reach the disk before the name does, so that a power cut leaves the old file or the new one.
    """
    # 40 characters are at most 160 bytes, of the 255 a name may have.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def disk_error(path: Path, error: OSError) -> EdgequantError:
    """What to say when this host cannot write a result."""
    return EdgequantError(
        "RUN_DIR_FULL" if error.errno == 28 else "RUN_DIR_UNWRITABLE",
        f"{path} cannot be written: {error.strerror or error}",
        hint="Free some space on this host, or choose another --run-dir.",
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
