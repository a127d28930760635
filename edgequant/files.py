"""Files that users name: written whole or not at all, read without end or bound never."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import selectors
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgequant.errors import EdgequantError, InputError

PIPE_SECONDS = 5.0
"""Seconds in which a pipe that is read has to come to its end."""


def safe_name(text: str, limit: int = 60) -> str:
    """`text` as a file name: readable, and never the same for two different texts."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"
    if plain == text and len(plain) <= limit:
        return plain
    return f"{plain[:limit]}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def require_utf8(path: Path) -> None:
    """Raise InputError (PATH_UNUSABLE) for what MNN and ONNX Runtime cannot open: they would say it of the model."""
    if any("\ud800" <= character <= "\udfff" for character in str(path.absolute())):
        raise InputError(
            "PATH_UNUSABLE",
            f"{path.absolute()}: this path is not UTF-8, and MNN takes no other",
            hint="Rename that file or folder.",
        )


def same_file(one: Path, other: Path) -> bool:
    """Whether both are there, and are one file or folder, by whatever name."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them is not there, or cannot be a name
        return False


def is_stream(path: Path) -> bool:
    """Whether `path` is there and is written to, never replaced: a pipe, a terminal or another character device."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under `path` only when the block ends without an exception.

    The bytes reach the disk before the name does, so that a power cut leaves the old file or the new one.  Only a
    regular file is ever replaced: links are followed, pipes and character devices (`is_stream`), and whatever stdout or
    stderr is, are written to, once the block has ended.

    Raises OSError, also for a folder, a socket, a block device, and a pipe that nobody reads.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None  # or a link to what is not there yet
    if found is None or (stat.S_ISREG(found.st_mode) and _standard(found) is None):
        with _replaced(Path(os.path.realpath(path))) as stream:
            yield stream
    elif not (stat.S_ISREG(found.st_mode) or is_stream(path)):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, "is neither a file nor a pipe", str(path))
    else:
        with open(_for_writing(path, found), "wb") as target, tempfile.TemporaryFile() as whole:
            yield whole
            whole.seek(0)
            shutil.copyfileobj(whole, target, 1 << 20)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
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


def _standard(found: os.stat_result) -> int | None:
    """1 or 2 where that is this process's stdout or stderr: replaced, what is printed would go where nobody looks."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it may be closed
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _for_writing(path: Path, found: os.stat_result) -> int:
    descriptor = _standard(found)
    if descriptor is not None:
        return os.dup(descriptor)
    try:
        # A pipe that nobody reads would keep us waiting for ever.
        opened = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads this pipe", str(path)) from None
        raise
    os.set_blocking(opened, True)
    return opened


def open_file(path: Path) -> IO[bytes]:
    """Open a regular file for reading.  Raises OSError, at once, for whatever else has that name: a FIFO would wait for
    a writer for ever, a device has no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bounded(path: Path, most: int, *, seconds: float = PIPE_SECONDS) -> bytes:
    """All of a small file that a user names; of a pipe or a device what comes to an end within `seconds`.

    Raises OSError: EFBIG where it has more than `most` bytes, ETIMEDOUT where it does not end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            data = file.read(most + 1)
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            data = _read_stream(descriptor, most + 1, time.monotonic() + seconds)
        else:
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "not a file", str(path))
    if len(data) > most:
        size = f"{most} bytes" if most % (1 << 20) else f"{most >> 20} MiB"
        raise OSError(errno.EFBIG, f"larger than {size}", str(path))
    return data


def _read_stream(descriptor: int, most: int, end: float) -> bytes:
    """What comes before the end of it, at most `most` bytes."""
    data = bytearray()
    with selectors.PollSelector() as selector:  # epoll takes no devices
        selector.register(descriptor, selectors.EVENT_READ)
        while len(data) < most:
            if (left := end - time.monotonic()) <= 0 or not selector.select(left):
                raise OSError(errno.ETIMEDOUT, "no end of it came in time")
            with contextlib.suppress(BlockingIOError):
                if not (part := os.read(descriptor, min(most - len(data), 1 << 20))):
                    break
                data += part
    return bytes(data)


def append(path: Path, data: bytes) -> None:
    """Add to a regular file, in one piece; it is made where it is not there.  Raises OSError."""
    with open_lock(path) as stream:
        stream.write(data)


def open_lock(path: Path) -> IO[bytes]:
    """Open a file that is there to be locked; it is made where it is not there.  Raises OSError, at once, for whatever
    else has that name: a FIFO would wait for a reader for ever."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    stream = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise OSError(errno.EINVAL, "not a file", str(path))


def disk_error(path: Path, error: OSError) -> EdgequantError:
    """What to say when this host cannot write a result."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full:
        hint = "Free some space on this host, or choose another --run-dir."
    else:
        hint = "Choose another --run-dir; of a run that is there, copy its folder to where you may write."
    return EdgequantError(
        "RUN_DIR_FULL" if full else "RUN_DIR_UNWRITABLE",
        f"{path} cannot be written: {error.strerror or error}",
        hint=hint,
    )


_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_NOT_UTF8 = ("surrogates not allowed", "unable to parse raw data as a unicode string")
_MORE = "End other programs, or raise the limit (`ulimit -a`)."


def host_error(error: BaseException) -> EdgequantError | None:
    """What to say of an exception by which this host, or a name given to it, stopped a command; None for a bug."""
    short = isinstance(error, ImportError) and ("failed to map" in str(error) or "allocate" in str(error))
    if isinstance(error, MemoryError) or short:
        return EdgequantError(
            "HOST_EXHAUSTED",
            "this host has no memory left for it",
            hint=_MORE,
        )
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # Path.resolve, before Python 3.13
        return InputError("PATH_UNUSABLE", str(error))
    if any(words in str(error) for words in _NOT_UTF8):  # of Python, and of pydantic
        why = "a path, or another text that was given, has bytes that are not UTF-8"
        return InputError("PATH_UNUSABLE", why, hint="Rename that file or folder.")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    why = f"{named}{error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space, or inodes (`df -i`); TMPDIR names another folder for what is passing."
        return EdgequantError("DISK_FULL", why, hint=hint)
    if error.errno in _NOTHING_LEFT:
        return EdgequantError("HOST_EXHAUSTED", why, hint=_MORE)
    if named and error.errno in _NAMES:
        return InputError("PATH_UNUSABLE", why)
    return EdgequantError("HOST_FILE_ERROR", why, hint="Look at that file or folder, its permissions, and its disk.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in pieces."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
