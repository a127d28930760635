"""One edgequant at a time on a device.

The lock is a socket with a name of its own in the kernel (Linux's abstract namespace): whoever can bind it has the
device, whatever its user and work directory, and loses it when its process ends, however that comes.  Nothing is left
behind that could be stale after a power cut.  Who waits connects to it, is told who has it, and hears its end.

A runner that starts itself anew passes the socket on, so that nobody can take the device in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from typing import Callable, Optional

NAME = "\0edgequant-device"
SCOPE = "EDGEQUANT_LOCK_SCOPE"
"""Environment variable: a name behind the lock's, for several devices that share one kernel (containers, tests)."""
PASSED_ON = "EDGEQUANT_LOCK_PASSED_ON"
"""Environment variable: "descriptor:line in hex" of a lock that the program before this one in the process had."""
_LINE = 500
_WAITERS = 64
_ATTEMPTS = 10000


class Unsupported(Exception):
    """This system has no such sockets, or does not let us have one."""


class Lock:
    """The lock of this device; free until `acquire`, unless it was passed on to this program and `take_over` called."""

    def __init__(self) -> None:
        self._name = NAME + os.environ.get(SCOPE, "")[:60]
        self._line = b""
        self._socket = None  # type: Optional[socket.socket]
        self._waiters = []  # type: list[socket.socket]
        with contextlib.suppress(ValueError, OSError):  # what is no lock of ours is left alone
            descriptor, _, line = os.environ.pop(PASSED_ON, "").partition(":")
            passed = socket.socket(fileno=int(descriptor))
            if passed.getsockname() != os.fsencode(self._name):
                passed.detach()
                return
            passed.set_inheritable(False)
            self._socket, self._line = passed, bytes.fromhex(line)

    @property
    def descriptors(self) -> "list[int]":
        """Of the socket, where there is one."""
        return [] if self._socket is None else [self._socket.fileno()]

    def take_over(self) -> None:
        """Speak to those who wait, where the lock was passed on."""
        if self._socket is not None:
            self._speak(self._socket)

    def pass_on(self) -> None:
        """Leave it to the program that takes this one's place in the process."""
        if self._socket is not None:
            self._socket.set_inheritable(True)
            os.environ[PASSED_ON] = "%d:%s" % (self._socket.fileno(), self._line.hex())

    def acquire(self, who: str, seconds: float, waiting: Callable[[str], None]) -> Optional[str]:
        """Take it within `seconds`; `waiting` is called with every new holder's line.  Returns None, or who has it.

        Raises Unsupported.
        """
        if self._socket is not None:
            return None
        end = time.monotonic() + seconds
        told = holder = ""
        for _ in range(_ATTEMPTS):  # a holder that hangs up at once, again and again, must not keep us here for ever
            if self._bind(who):
                return None
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
                there.settimeout(max(0.1, min(5.0, end - time.monotonic())))
                try:
                    there.connect(self._name)
                except OSError as error:
                    if error.errno == errno.ECONNREFUSED:
                        continue  # it ended just now
                    return "another process (%s)" % error.strerror
                line, ended = _line(there)
                holder = line or "a process that says nothing"
                if holder != told and not ended:
                    told = holder
                    waiting(holder)
                if not ended and not _end(there, end):
                    return holder
            if time.monotonic() >= end:
                break
        return holder or "another process"

    def _bind(self, who: str) -> bool:
        try:
            taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise Unsupported(error.strerror or str(error)) from None
        try:
            taken.bind(self._name)
            taken.listen(_WAITERS)
        except OSError as error:
            taken.close()
            if error.errno == errno.EADDRINUSE:
                return False
            raise Unsupported(error.strerror or str(error)) from None
        self._socket = taken
        self._line = who.encode("utf-8", "replace")[:_LINE] + b"\n"
        self._speak(taken)
        return True

    def _speak(self, taken: socket.socket) -> None:
        threading.Thread(target=self._answer, args=(taken, self._line), daemon=True).start()

    def _answer(self, taken: socket.socket, line: bytes) -> None:
        while True:
            try:
                waiter = taken.accept()[0]
                waiter.settimeout(1)
                waiter.sendall(line)
            except OSError:
                continue  # that one has gone
            # Kept open: its closing, at the latest with this process, is what they wait for.
            self._waiters = [*self._waiters[1 - _WAITERS :], waiter]


def _line(there: socket.socket) -> "tuple[str, bool]":
    """The holder's line, and whether it has hung up."""
    data = b""
    try:
        while b"\n" not in data and len(data) <= _LINE:
            piece = there.recv(_LINE + 1)
            if not piece:
                return "", True
            data += piece
    except socket.timeout:
        return "", False  # it computes, and cannot speak meanwhile
    except OSError:
        return "", True
    return data.partition(b"\n")[0].decode("utf-8", "replace"), False


def _end(there: socket.socket, end: float) -> bool:
    """Wait for the holder to hang up; False when `end` came first."""
    poller = select.poll()
    poller.register(there, select.POLLIN)
    there.setblocking(False)
    while True:
        left = end - time.monotonic()
        if left <= 0 or not poller.poll(int(left * 1000) + 1):
            return False
        try:
            if not there.recv(4096):
                return True
        except BlockingIOError:
            continue
        except OSError:
            return True
