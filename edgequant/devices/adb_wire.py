"""Sockets to an adb server, with a deadline on every call.

adbutils sets no timeouts, loses the reasons of failures and is slow; the protocol is small, so it is spoken here:
a request is four hexadecimal digits of length and a text, the answer is OKAY, or FAIL with a text of its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import struct
import threading
from collections.abc import Sequence
from io import BufferedReader
from typing import Any, cast

from edgequant.deadline import Deadline
from edgequant.errors import DeadlineExceeded, InputError

TICK = 0.25
"""Seconds between two looks at whether another thread has closed the connection."""
MAX_REQUEST = 0xFFFF
"""Bytes; more cannot be said in four hexadecimal digits."""
_BUFFER = 1 << 20


class WireClosed(Exception):
    """The other end, or this one, closed the connection; the message is a reason, where the system gave one."""


class Refused(Exception):
    """The server answered FAIL; the message is its reason."""


class Address:
    """Where an adb server listens, as ADB_SERVER_SOCKET writes it.

    Args:
        spec: tcp:PORT, tcp:HOST:PORT, local:/PATH, localfilesystem:/PATH or localabstract:NAME.

    Raises:
        InputError: ADB_SERVER_INVALID.
    """

    def __init__(self, spec: str) -> None:
        kind, _, rest = spec.partition(":")
        self.spec = spec
        self.host: str | None = None
        self.port = 0
        self.path: str | None = None
        if kind == "tcp" and rest:
            host, _, port = rest.rpartition(":")
            host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
            if port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
                self.host, self.port = host, int(port)
                return
        elif kind in ("local", "localfilesystem") and rest:
            self.path = rest
            return
        elif kind == "localabstract" and rest:
            self.path = "\0" + rest
            return
        raise InputError(
            "ADB_SERVER_INVALID",
            f"adb server '{spec[:200]}': not an address",
            hint="Write host:port in the URI; tcp:host:port or localfilesystem:/path in ADB_SERVER_SOCKET; a number in "
            "ANDROID_ADB_SERVER_PORT.",
        )

    @classmethod
    def from_environment(cls) -> Address:
        """As the adb command finds it."""
        spec = os.environ.get("ADB_SERVER_SOCKET")
        if spec:
            return cls(spec)
        host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
        return cls(f"tcp:{host}:{os.environ.get('ANDROID_ADB_SERVER_PORT') or 5037}")

    @property
    def is_local(self) -> bool:
        """Whether a server could be started there."""
        return self.path is not None or self.host in ("localhost", "127.0.0.1", "::1")

    @property
    def arguments(self) -> list[str]:
        """Options with which the adb command uses this server.  A server started with a host name refuses to listen."""
        return ["-P", str(self.port)] if self.host is not None else ["-L", self.spec]

    def __str__(self) -> str:
        if self.host is None:
            return self.spec
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Wire:
    """One connection to an adb server.  One thread may read while others write; `close` may come from any.

    Args:
        address: of the server.
        deadline: for connecting.

    Raises:
        OSError: nobody listens there; TimeoutError when it did not answer within `deadline`.
    """

    def __init__(self, address: Address, deadline: Deadline) -> None:
        self._socket = _connect(address, deadline)
        self._lock = threading.Lock()
        self._closed = False

    # --- requests ---

    def request(self, text: bytes, deadline: Deadline, doing: str) -> None:
        """Send one request and take the answer.  Raises Refused, WireClosed, DeadlineExceeded."""
        assert len(text) <= MAX_REQUEST
        self.send(b"%04x" % len(text) + text, deadline, doing)
        self.answer(deadline, doing)

    def answer(self, deadline: Deadline, doing: str) -> None:
        status = self.exact(4, deadline, doing)
        if status == b"FAIL":
            raise Refused(self.text(deadline, doing).strip())
        if status != b"OKAY":
            raise WireClosed(f"the server answered nonsense: {status!r}")

    def text(self, deadline: Deadline, doing: str) -> str:
        """A text with its length in front."""
        digits = self.exact(4, deadline, doing)
        try:
            length = int(digits, 16)
        except ValueError:
            raise WireClosed(f"the server answered nonsense: {digits!r}") from None
        return self.exact(length, deadline, doing).decode("utf-8", "replace")

    # --- bytes ---

    def exact(self, count: int, deadline: Deadline, doing: str) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.receive(count - len(data), deadline, doing)
            if not piece:
                raise WireClosed("the adb server closed the connection")
            data += piece
        return bytes(data)

    def receive(self, limit: int, deadline: Deadline, doing: str) -> bytes:
        """What is there, at least one byte; b"" at the end."""
        while True:
            if deadline.expired:  # also while something comes: a drip has no end
                raise DeadlineExceeded(f"{doing} did not finish within {deadline.seconds:g} s")
            with self._lock:
                if self._closed:
                    return b""
                try:
                    return self._socket.recv(limit, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise WireClosed(error.strerror or str(error)) from error
            self.ready(select.POLLIN, deadline, doing)

    def send(self, data: bytes | memoryview, deadline: Deadline, doing: str) -> None:
        view = memoryview(data)
        while view:
            sent = self.send_some([view])
            view = view[sent:]
            if not sent:
                self.ready(select.POLLOUT, deadline, doing)

    def send_some(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Hand over as much as fits without waiting; the number of bytes.  Raises WireClosed."""
        with self._lock:
            if self._closed:
                raise WireClosed("the connection is closed")
            try:
                return self._socket.sendmsg(pieces, [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return 0
            except OSError as error:
                raise WireClosed(error.strerror or str(error)) from error

    def widen(self) -> None:
        """Let the kernel hold more of what is sent, for a transfer: the server need not wait while the next piece is
        read.  Never raises; TCP does this by itself."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket.family == socket.AF_UNIX:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def ready(self, events: int, deadline: Deadline, doing: str) -> int:
        """Wait for one of the events; which came, or 0 after a tick, so that a closed connection is noticed."""
        if deadline.expired:
            raise DeadlineExceeded(f"{doing} did not finish within {deadline.seconds:g} s")
        left = deadline.remaining
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise WireClosed("the connection is closed")
        # poll and not select, which fails for the descriptors of a host that has more than 1023 files open.  Should
        # the connection be closed meanwhile, it may wait for a descriptor of somebody else's: a tick of nothing.
        poller = select.poll()
        poller.register(descriptor, events)
        found = poller.poll(math.ceil(min(TICK, TICK if left is None else left) * 1000))
        return found[0][1] if found else 0

    def reader(self) -> BufferedReader:
        """A buffered file for the one thread that reads from here on; it ends when the connection is shut."""
        return cast(BufferedReader, self._socket.makefile("rb", buffering=_BUFFER))

    def shut(self) -> None:
        """End it in both directions; who waits wakes up.  Never raises."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Never raises; may be called twice."""
        self.shut()
        with self._lock:
            self._closed = True
            self._socket.close()


def _connect(address: Address, deadline: Deadline) -> socket.socket:
    last: OSError = OSError(f"{address}: no address")
    if address.path is not None:
        targets: list[tuple[int, Any]] = [(socket.AF_UNIX, address.path)]
    else:
        found = socket.getaddrinfo(address.host, address.port, 0, socket.SOCK_STREAM)
        targets = [(entry[0], entry[4]) for entry in found]
    for family, target in targets:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            left = deadline.remaining
            if family == socket.AF_UNIX:
                # With a Python timeout a busy server, whose queue is full, would be an error at once.
                _limit_sending(sock, left)
                sock.connect(target)
                _limit_sending(sock, None)
                return sock
            sock.settimeout(None if left is None else max(left, 0.001))
            sock.connect(target)
            sock.settimeout(None)  # from here on every wait is a poll
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A remote server may vanish without a word.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        except BlockingIOError as error:
            sock.close()
            raise TimeoutError(error.errno, "it is too busy to answer") from error
        except OSError as error:
            sock.close()
            last = error
    raise last


def _limit_sending(sock: socket.socket, seconds: float | None) -> None:
    """Let the kernel end a blocking connect; None: never."""
    micros = 0 if seconds is None else max(1000, int(seconds * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", *divmod(micros, 1_000_000)))
