"""Sending a file with adb's sync protocol, about as fast as the adb command does.

Chunks are 64 KB, the most a device takes; many of them go into one system call, which is where the speed comes from.
"""

from __future__ import annotations

import contextlib
import select
import stat
import struct
import time
from io import FileIO
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.adb_link import AdbLink
from edgequant.devices.adb_wire import TICK, Wire, WireClosed
from edgequant.devices.protocol import Progress
from edgequant.devices.reasons import reason
from edgequant.errors import DeadlineExceeded, DeviceError, InputError

_CHUNK = 64 << 10
_CHUNKS = 16
"""Chunks that go into one call."""
_WORD = struct.Struct("<4sI")
_MAX_REASON = 64 << 10
_MODE = stat.S_IFREG | 0o600

# What only happens to files; the rest every transport shares.
_REASONS = (
    ("Is a directory", "IS_A_DIRECTORY", "Name a file."),
    ("No such file or directory", "NO_SUCH_DIRECTORY", "Create the directory first."),
    ("Not a directory", "NO_SUCH_DIRECTORY", "Create the directory first."),
    ("File name too long", "NAME_TOO_LONG", "Choose a shorter name."),
    ("path too long", "NAME_TOO_LONG", "Choose a shorter name."),
    ("File too large", "FILE_TOO_LARGE", "The file system there allows no file that big."),
)


def write_error(remote_path: str, said: str, where: str) -> DeviceError:
    """The error for a write that failed on the device, with the device's own reason."""
    doing = f"{remote_path} could not be written"
    error = reason(said or "no reason given", doing, where)
    for words, code, hint in _REASONS:
        if words in said:
            error = DeviceError(code, f"{doing}: {said}", where=where, hint=hint)
    error.evidence["said"] = said
    return error


def push(
    link: AdbLink, source: Path, remote_path: str, deadline: Deadline, *, idle_limit: float, progress: Progress | None
) -> None:
    """Write `source` there.  Raises as Device.send_file; `idle_limit` in seconds."""
    doing = f"sending {source.name}"
    with _opened(source) as stream:
        wire = link.service(b"sync:", deadline, doing)
        with contextlib.closing(wire):
            wire.widen()
            _Push(link, wire, remote_path, doing, deadline, idle_limit, progress).run(stream, source)


class _Push:
    """One transfer; `run` once."""

    def __init__(
        self,
        link: AdbLink,
        wire: Wire,
        remote_path: str,
        doing: str,
        deadline: Deadline,
        idle_limit: float,
        progress: Progress | None,
    ) -> None:
        self._link = link
        self._wire = wire
        self._remote_path = remote_path
        self._doing = doing
        self._deadline = deadline
        self._idle_limit = idle_limit
        self._progress = progress
        self._moved = time.monotonic()

    def run(self, stream: FileIO, source: Path) -> None:
        path = f"{self._remote_path},{_MODE}".encode("utf-8", "surrogateescape")
        buffer = memoryview(bytearray(_CHUNK * _CHUNKS))
        try:
            self._send([_WORD.pack(b"SEND", len(path)) + path])
            while filled := _filled(stream, buffer, source):
                pieces: list[bytes | memoryview] = []
                for start in range(0, filled, _CHUNK):
                    piece = buffer[start : min(start + _CHUNK, filled)]
                    pieces += [_WORD.pack(b"DATA", piece.nbytes), piece]
                self._send(pieces)
                if self._progress is not None:
                    self._progress(filled)
            self._send([_WORD.pack(b"DONE", int(time.time()))])
            self._answer()
        except WireClosed as error:
            # The reason may have come before the end did.
            with contextlib.suppress(WireClosed):
                self._answer()
            self._link.end(str(error))
            raise self._link.lost(self._doing) from error

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        while pieces:
            sent = self._wire.send_some(pieces)
            if sent:
                self._still_moving()
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = memoryview(pieces[0])[sent:]
            if pieces:
                found = self._ready(select.POLLIN | select.POLLOUT)
                if found & select.POLLIN:
                    self._answer()

    def _answer(self) -> None:
        """Take the device's verdict: nothing for OKAY, its reason for FAIL."""
        word, length = _WORD.unpack(self._exact(_WORD.size))
        if word == b"OKAY":
            return
        if word == b"FAIL" and length <= _MAX_REASON:
            said = self._exact(length).decode("utf-8", "replace").strip()
            raise write_error(self._remote_path, said, self._link.where)
        raise WireClosed(f"the device answered nonsense: {word!r}")

    def _exact(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            if self._ready(select.POLLIN):
                piece = self._wire.receive(count - len(data), self._deadline, self._doing)
                if not piece:
                    raise WireClosed("the adb server closed the connection")
                data += piece
                self._still_moving()
        return bytes(data)

    def _still_moving(self) -> None:
        self._moved = time.monotonic()
        self._link.moved()

    def _ready(self, events: int) -> int:
        try:
            found = self._wire.ready(events, self._deadline, self._doing)
        except DeadlineExceeded as error:
            error.where = self._link.where
            raise
        # At least two looks, so that a limit of next to nothing does not call every wait a stall.
        if not found and time.monotonic() - self._moved > max(self._idle_limit, 2 * TICK):
            raise DeadlineExceeded(
                f"{self._doing} stalled: the device took no byte for {self._idle_limit:g} s",
                code="STALLED",
                where=self._link.where,
                hint="Check the link to the device and its storage, then try again.",
            )
        return found


def _opened(source: Path) -> FileIO:
    try:
        return source.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(source, error) from error


def _filled(stream: FileIO, buffer: memoryview, source: Path) -> int:
    try:
        return stream.readinto(buffer) or 0
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: OSError) -> InputError:
    return InputError("FILE_UNREADABLE", f"cannot be read: {error.strerror}", where=str(source))
