"""A command run to its end, with what it prints collected: the same over every transport."""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from collections.abc import Callable

from edgequant.deadline import Deadline
from edgequant.devices.protocol import CommandResult, Process
from edgequant.errors import DeadlineExceeded, DeviceError

_READ = 1 << 20


class RemoteProcess(Process):
    """A process at the end of a link, whose input can be ended by itself."""

    name: str
    """What was started, for messages."""

    @abstractmethod
    def close_stdin(self, deadline: Deadline) -> None:
        """End of input.  Never raises: a process that has ended needs none."""

    @abstractmethod
    def lost(self, doing: str) -> DeviceError:
        """The error (LINK_LOST) for a link that went while `doing`."""


_PID = re.compile(rb" ([0-9]{1,10})\n")


def after_mark(held: bytearray, mark: bytes, new: int) -> tuple[int, int] | None:
    """The process id behind our mark, and where what follows begins; None while it is not there.

    new: bytes at the end of `held` that were not looked at before: only there, and where the mark may have begun before
    them, is it looked for, so that a drip takes no more time than a flood.
    """
    at = held.find(mark, max(0, len(held) - new - len(mark) - 12))
    while at >= 0:  # a shell that says what it does shows it without an id too
        if found := _PID.match(held, at + len(mark)):
            return int(found[1]), found.end()
        at = held.find(mark, at + 1)
    return None


class Bounded:
    """Collects output up to `limit` bytes; beyond it says so once and drops the rest."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.full = False
        self._limit = limit
        self._call: Callable[[], None] | None = None

    def add(self, data: bytes) -> None:
        room = self._limit - len(self.data)
        self.data += data[:room]
        if len(data) > room and not self.full:
            self.full = True
            if self._call is not None:
                self._call()

    def when_full(self, call: Callable[[], None]) -> None:
        self._call = call
        if self.full:
            call()

    def tail(self) -> str:
        return bytes(self.data[-2000:]).decode(errors="replace")


def collect(
    start: Callable[[Callable[[bytes], None]], RemoteProcess],
    deadline: Deadline,
    *,
    stdin: bytes,
    max_output: int,
    where: str,
) -> CommandResult:
    """Start a command and wait for its end; it is dead when this returns or raises.

    start: starts it, given what is to get its stderr.  max_output: bytes of stdout, and of stderr, that it may print.
    where: the device's URI.

    Raises DeviceError (LINK_LOST, OUTPUT_TOO_LARGE, and what `start` raises), DeadlineExceeded.
    """
    stdout, stderr = Bounded(max_output), Bounded(max_output)
    process = start(stderr.add)
    # Not in the thread that calls back: it may have to go on receiving for the kill to be confirmed.
    stderr.when_full(lambda: threading.Thread(target=process.kill, daemon=True).start())
    try:
        if stdin:
            threading.Thread(target=_feed, args=(process, stdin, deadline), daemon=True).start()
        else:
            process.close_stdin(deadline)
        while not stdout.full and (data := process.read(_READ, deadline)):
            stdout.add(data)
        ended = None if stdout.full else process.wait(deadline)
        if ended is None or stderr.full:
            full, name = (stdout, "stdout") if stdout.full else (stderr, "stderr")
            raise DeviceError(
                "OUTPUT_TOO_LARGE",
                f"{process.name} wrote more than {max_output} bytes to {name}",
                where=where,
                evidence={"tail": full.tail()},
            )
    except DeadlineExceeded as error:
        process.kill()
        raise DeadlineExceeded(
            f"{process.name} did not finish within {deadline.seconds or 0:g} s and was killed",
            where=where,
            evidence={"stdout": stdout.tail(), "stderr": stderr.tail()},
        ) from error
    except BaseException:
        process.kill()
        raise
    if ended.lost:
        raise process.lost(f"running {process.name}")
    return CommandResult(ended.exit_code, bytes(stdout.data), bytes(stderr.data), signal=ended.signal)


def _feed(process: RemoteProcess, data: bytes, deadline: Deadline) -> None:
    try:
        process.write(data, deadline)
    except DeviceError:
        return  # it ended without reading all of it, or collect() is about to find out why by itself
    process.close_stdin(deadline)
