"""Processes on the device over the shell protocol: exit code, stdout and stderr apart, byte-clean in both directions.

The command sent is `exec sh -c 'echo MARK $$; ...; exec "$@"' sh MARK ARGV...`: both exec leave the command itself as
adbd's child and the leader of its process group, and the mark brings its id, so that the guard can kill the group.
Closing the connection would end the first process at most.

adbd reports death by signal N as exit code 128+N, as a shell does, so the two cannot be told apart; 129 to 159 are
taken for signals, which is what they nearly always are.
"""

from __future__ import annotations

import logging
import secrets
import select
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence

from edgequant.deadline import Deadline
from edgequant.devices.adb_link import (
    CLOSE_STDIN,
    EXIT,
    HEADER,
    PATIENCE,
    STDERR,
    STDIN,
    STDOUT,
    AdbLink,
    Guard,
    no_shell,
)
from edgequant.devices.adb_wire import MAX_REQUEST, WireClosed
from edgequant.devices.collect import RemoteProcess, after_mark
from edgequant.devices.protocol import CommandResult
from edgequant.errors import DeadlineExceeded, DeviceError, InputError

_log = logging.getLogger(__name__)

_CHUNK = 64 << 10
_MAX_PACKET = 64 << 20
_MAX_CHATTER = 1 << 20
"""Most bytes that may come before our own command starts."""
_MAX_READY = 16 << 20
"""Bytes of stdout kept for a caller who does not read; then the device has to wait, with stderr too."""

# Where nobody reads any more, echo fails and nothing is started: a shell that comes late runs no orphan.  Not printf,
# which mksh, the shell of Android, does not have built in.
_START = 'echo "$1 $$" && shift && exec "$@"'
_SERVICE = b"shell,v2,raw:"


def command_line(argv: Sequence[str], mark: str, where: str) -> bytes:
    """What adbd is asked to run.  Raises InputError (COMMAND_INVALID, COMMAND_TOO_LONG)."""
    text = f"exec sh -c {shlex.quote(_START)} sh {mark} {shlex.join(argv)}"
    line = _SERVICE + text.encode("utf-8", "surrogateescape")
    if b"\0" in line:
        raise InputError("COMMAND_INVALID", f"an argument of {argv[0]!r} has a zero byte in it", where=where)
    if len(line) > MAX_REQUEST:
        raise InputError(
            "COMMAND_TOO_LONG",
            f"the command line of {argv[0]} has {len(line)} bytes, adb takes {MAX_REQUEST}",
            where=where,
            hint="Pass the data on standard input or in a file.",
        )
    return line


class AdbProcess(RemoteProcess):
    """One command on the device.

    Args:
        link: the way to it.
        guard: kills it.
        argv: the command; quoted here.
        deadline: for starting it.
        on_stderr: gets the command's stderr as it comes, in a thread of this process.

    Raises:
        DeviceError: LINK_LOST, SERVICE_REFUSED, NO_SHELL.
        InputError: COMMAND_TOO_LONG, COMMAND_INVALID.
        DeadlineExceeded: TIMEOUT.
    """

    def __init__(
        self,
        link: AdbLink,
        guard: Guard,
        argv: Sequence[str],
        deadline: Deadline,
        on_stderr: Callable[[bytes], None] | None,
    ) -> None:
        mark = f"edgequant-{secrets.token_hex(8)}"
        line = command_line(argv, mark, link.where)
        self.name = argv[0]
        self.pid: int | None = None
        self._link = link
        self._guard = guard
        self._on_stderr = on_stderr
        self._mark = mark.encode()
        self._chatter = bytearray()
        self._complaint = b""
        self._chunks: deque[bytes] = deque()
        self._ready_bytes = 0
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._code: int | None = None
        self._killed = False
        self._forgotten = False
        self._kill_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._unsent = b""
        self._input_closed = False
        doing = f"starting {self.name}"
        self._wire = link.service(line, deadline, doing)
        self._pump = threading.Thread(target=self._receive, name=f"adb {self.name}", daemon=True)
        self._pump.start()
        try:
            self._await(lambda: self.pid is not None, deadline, doing)
            if self.pid is None:
                if self._is_lost():
                    raise link.lost(doing)
                raise no_shell(link, bytes(self._chatter) + self._complaint)
        except BaseException:
            self.kill()
            raise
        guard.tell("+", self.pid)

    # --- what comes from the device ---

    def _receive(self) -> None:
        """In a thread: take the stream apart until the exit code comes, or the link goes."""
        try:
            with self._wire.reader() as stream:
                while True:
                    header = stream.read(HEADER.size)
                    if len(header) < HEADER.size:
                        break
                    kind, length = HEADER.unpack(header)
                    if length > _MAX_PACKET:
                        self._link.end("the device answered nonsense")
                        break
                    body = stream.read(length)
                    if len(body) < length:
                        break
                    self._link.moved()
                    if kind == STDOUT:
                        self._add(body)
                    elif kind == STDERR:
                        self._tell(body)
                    elif kind == EXIT:
                        self._code = body[0] if body else 0
                        break
        except (OSError, ValueError) as error:
            _log.debug("%s: the stream of %s broke: %s", self._link.where, self.name, error)
        finally:
            if self._code is None and not self._killed:
                self._link.end("the adb server closed the connection")
            with self._changed:
                self._ended.set()
                self._changed.notify_all()
            if self.pid is not None and not self._killed:
                self._forget()
            self._wire.close()

    def _add(self, data: bytes) -> None:
        with self._changed:
            if self.pid is None:
                self._chatter += data
                found = after_mark(self._chatter, self._mark, len(data))
                if found is None:
                    if len(self._chatter) > _MAX_CHATTER:
                        self._killed = True
                        self._wire.shut()
                    return
                self.pid, at = found
                data, self._chatter = bytes(self._chatter[at:]), bytearray()
            if data and not self._killed:
                self._chunks.append(data)
                self._ready_bytes += len(data)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ready_bytes < _MAX_READY or self._killed or not self._link.active)

    def _tell(self, data: bytes) -> None:
        if self.pid is None:
            self._complaint = (self._complaint + data)[-_MAX_CHATTER:]
        if self._on_stderr is None:
            return
        try:
            self._on_stderr(data)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged
            # The caller's fault must not stop the draining: the process would block on a full pipe.
            _log.exception("the stderr callback of %s failed", self.name)
            self._on_stderr = None

    def _await(self, done: Callable[[], bool], deadline: Deadline, doing: str) -> None:
        """Wait for something the receiving thread does, or for its end."""
        with self._changed:
            if not self._changed.wait_for(lambda: done() or self._ended.is_set(), deadline.remaining):
                raise DeadlineExceeded(f"{doing} did not finish within {deadline.seconds:g} s", where=self._link.where)

    def read(self, limit: int, deadline: Deadline) -> bytes:
        doing = f"reading from {self.name}"
        deadline.check(doing, self._link.where)  # also while something comes: a drip has no end
        self._await(lambda: bool(self._chunks) or self._killed, deadline, doing)
        with self._changed:
            if not self._chunks:
                if self._is_lost():
                    raise self._link.lost(doing)
                return b""
            data = self._chunks.popleft()
            if len(data) > limit:
                self._chunks.appendleft(data[limit:])
                data = data[:limit]
            self._ready_bytes -= len(data)
            self._changed.notify_all()
            return data

    # --- what goes to the device ---

    def write(self, data: bytes | memoryview, deadline: Deadline) -> None:
        view = memoryview(data).cast("B")
        doing = f"writing to {self.name}"
        with self._write_lock:
            self._send_unsent(deadline, doing)
            while view.nbytes:
                piece, view = view[:_CHUNK], view[_CHUNK:]
                self._unsent = HEADER.pack(STDIN, len(piece)) + bytes(piece)
                self._send_unsent(deadline, doing)

    def _send_unsent(self, deadline: Deadline, doing: str) -> None:
        # A packet that was begun has to be finished, also after a deadline: half of one would break the stream.
        while self._unsent:
            if self._ended.is_set() or self._input_closed:
                raise self._cannot_write(doing)
            try:
                sent = self._wire.send_some([self._unsent])
                self._unsent = self._unsent[sent:]
                if self._unsent:
                    self._wire.ready(select.POLLOUT, deadline, doing)
            except WireClosed as error:
                # Whether it was the process that went or the link, the receiving thread knows in a moment.
                self._ended.wait(PATIENCE)
                raise self._cannot_write(doing) from error
            except DeadlineExceeded as error:
                error.where = self._link.where
                raise

    def _cannot_write(self, doing: str) -> DeviceError:
        self._unsent = b""
        if self._is_lost():
            return self._link.lost(doing)
        return DeviceError("PROCESS_ENDED", f"{self.name} has ended and takes no input", where=self._link.where)

    def close_stdin(self, deadline: Deadline) -> None:
        with self._write_lock:
            try:
                if not self._input_closed:
                    self._send_unsent(deadline, "closing stdin")
                    self._unsent = HEADER.pack(CLOSE_STDIN, 0)
                    self._send_unsent(deadline, "closing stdin")
            except DeviceError as error:
                _log.debug("%s: stdin of %s not closed: %s", self._link.where, self.name, error)
            self._input_closed = True

    # --- the end ---

    def wait(self, deadline: Deadline) -> CommandResult:
        self._await(lambda: False, deadline, f"waiting for {self.name}")
        if self._code is None:
            if self._is_lost():
                return CommandResult(None, b"", b"", lost=True)
            return CommandResult(None, b"", b"", signal=int(signal.SIGKILL))
        number = self._code - 128
        if 0 < number < 32:
            return CommandResult(None, b"", b"", signal=number)
        return CommandResult(self._code, b"", b"")

    def _is_lost(self) -> bool:
        """Whether the link, not the process, went away."""
        return self._ended.is_set() and self._code is None and not self._killed

    def _forget(self) -> None:
        if not self._forgotten and self.pid is not None:
            self._forgotten = True
            self._guard.tell("-", self.pid)

    def lost(self, doing: str) -> DeviceError:
        return self._link.lost(doing)

    def kill(self) -> None:
        with self._kill_lock:
            if self._killed or self._ended.is_set():
                return
            with self._changed:
                self._killed = True
                self._chunks.clear()
                self._ready_bytes = 0
                self._changed.notify_all()
            if self.pid is not None and self._link.active and self._guard.alive:
                self._guard.tell("k", self.pid)
                self._ended.wait(PATIENCE)
                self._forget()
            self._wire.shut()
