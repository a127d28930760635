"""The way to one device through an adb server, and its guard, which also tells whether that way still works.

Under a dropped link nothing ends by itself: the server goes on saying `device`, and a transfer or a command waits for
good.  So the guard, a little shell on the device that is there anyway to kill what was started, is asked for a sign of
life; when none came for too long every connection is shut, and who waits on one wakes up.
"""

from __future__ import annotations

import contextlib
import select
import struct
import threading
import time
import weakref

from edgequant.deadline import Deadline
from edgequant.devices.adb_server import AdbServer
from edgequant.devices.adb_wire import Refused, Wire, WireClosed
from edgequant.errors import DeadlineExceeded, DeviceError

# Packets of the shell protocol: one byte for what it is, four for the length.
HEADER = struct.Struct("<BI")
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)

_MAX_PACKET = 16 << 20
_MAX_SAID = 1 << 20
"""Bytes that a shell may print before it says that it is there."""
PATIENCE = 5.0
"""Seconds to wait for the device to confirm a kill."""
_FOREVER = Deadline(None)

# Plain POSIX sh in one line, for mksh, toybox and busybox too.  adbd sends it SIGHUP when the connection goes, and then
# it still has to clean up.  kill: the group; some shells know only one of the spellings; last the process alone.
_GUARD = (
    'trap "" HUP PIPE; all=" "; '
    'end() { kill -s "$1" -- "-$2" 2>/dev/null || kill "-$1" "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null; }; '
    "echo alive; while read -r verb pid; do case $verb in "
    "p) echo alive ;; "
    '+) all="$all$pid " ;; '
    '-) case $all in *" $pid "*) all=${all%%" $pid "*}" "${all#*" $pid "} ;; esac ;; '
    "k) end KILL $pid ;; "
    "q) for pid in $all; do end KILL $pid; done; exit 0 ;; "
    "esac; done; "
    'if [ "$all" != " " ]; then sleep 3; for pid in $all; do end TERM $pid; done; '
    "sleep 2; for pid in $all; do end KILL $pid; done; fi"
)


class AdbLink:
    """Connections to one device, lost together.

    Args:
        server: that has it.
        serial: of the device.
        keepalive: a sign of life is asked for every third of this many seconds, and the link counts as lost when none
            came, and no data moved either, for four thirds of it.  0 turns this off.
    """

    def __init__(self, server: AdbServer, serial: str, *, keepalive: float) -> None:
        self.server = server
        self.serial = serial
        self.where = server.where
        self.keepalive = keepalive
        self._why: str | None = None
        self._last = time.monotonic()
        self._wires: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        return self._why is None

    @property
    def quiet(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._last

    def moved(self) -> None:
        """Data moved, so the link is alive."""
        self._last = time.monotonic()

    def end(self, why: str) -> None:
        """Count it as lost, and wake everybody who waits on it."""
        with self._lock:
            if self._why is None:
                self._why = why
            wires = list(self._wires)
        for wire in wires:
            wire.shut()

    def lost(self, doing: str) -> DeviceError:
        """The error to raise when the link went away during something."""
        return DeviceError(
            "LINK_LOST",
            f"the connection was lost while {doing}: {self._why or 'it was closed'}",
            where=self.where,
            transient=True,
            hint="Check cable, power and network of the device, then try again.",
        )

    def service(self, name: bytes, deadline: Deadline, doing: str) -> Wire:
        """A connection to a service of the device.  Raises DeviceError (LINK_LOST, SERVICE_REFUSED, ...)."""
        if not self.active:
            raise self.lost(doing)
        try:
            wire = self.server.connect(deadline, start=False)
        except DeadlineExceeded:
            raise
        except DeviceError as error:
            deadline.check(doing, self.where)
            # It was there a moment ago, and a new server would not have this device ready.
            self.end(error.message)
            raise self.lost(doing) from error
        try:
            with self._lock:
                self._wires.add(wire)
            found = False
            try:
                wire.request(f"host:transport:{self.serial}".encode(), deadline, doing)
                found = True
                wire.request(name, deadline, doing)
            except WireClosed as error:
                if self.active:
                    self.end(str(error))
                raise self.lost(doing) from error
            except Refused as error:
                if found and str(error).strip() in ("", "closed"):
                    raise DeviceError(
                        "SERVICE_REFUSED",
                        f"the device refused {doing}",
                        where=self.where,
                        hint="See `adb logcat` for what its adbd says; restarting the device may help.",
                    ) from error
                self.end(str(error).splitlines()[0] if str(error) else "the adb server does not know it any more")
                raise self.lost(doing) from error
            except DeadlineExceeded as error:
                error.where = self.where
                raise
            if not self.active:
                raise self.lost(doing)
        except BaseException:
            wire.close()
            raise
        return wire


class Guard:
    """The little shell on the device that kills what we started.

    Args:
        link: the way to it.
        deadline: for its first sign of life.

    Raises:
        DeviceError: LINK_LOST, NO_SHELL.
        DeadlineExceeded: TIMEOUT.
    """

    def __init__(self, link: AdbLink, deadline: Deadline) -> None:
        doing = "starting a shell on the device"
        self._link = link
        self._wire = link.service(b"shell,v2,raw:" + _GUARD.encode(), deadline, doing)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._held = b""
        said = b""
        try:
            while b"alive\n" not in said:
                kind, body = self._packet(deadline, doing)
                said += body
                if kind == EXIT or len(said) > _MAX_SAID:
                    raise no_shell(link, said)
        except WireClosed as error:
            self._wire.close()
            link.end(str(error))
            raise link.lost(doing) from error
        except BaseException as error:
            self._wire.close()
            if isinstance(error, DeadlineExceeded):
                error.where = link.where
            raise
        link.moved()
        threading.Thread(target=self._watch, name="adb-guard", daemon=True).start()

    def _packet(self, deadline: Deadline, doing: str) -> tuple[int, bytes]:
        kind, length = HEADER.unpack(self._wire.exact(HEADER.size, deadline, doing))
        if length > _MAX_PACKET:
            raise WireClosed("the device answered nonsense")
        return kind, self._wire.exact(length, deadline, doing)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def _watch(self) -> None:
        every = self._link.keepalive / 3
        asked = time.monotonic()
        try:
            while True:
                if self._wire.ready(select.POLLIN, _FOREVER, "watching the link"):
                    kind, _ = self._packet(_FOREVER, "watching the link")
                    self._link.moved()
                    if kind == EXIT:
                        return  # it was killed there: the link is fine
                if every and self._link.quiet > every * 4:
                    self._link.end(f"no sign of life for {every * 4:g} s")
                    return
                if every and self._link.quiet > every and time.monotonic() - asked > every:
                    asked = time.monotonic()
                    self._send(b"p\n")
        except WireClosed as error:
            self._link.end(str(error))
        finally:
            self._ended.set()
            self._wire.close()

    def tell(self, verb: str, pid: int = 0) -> None:
        """Send one order: + watch, - forget, k kill, q kill all and end.  Never raises, never blocks."""
        with contextlib.suppress(WireClosed):
            self._send(f"{verb} {pid}\n".encode())

    def _send(self, line: bytes) -> None:
        with self._lock:
            data = self._held + HEADER.pack(STDIN, len(line)) + line
            # What a full connection does not take goes first the next time; the watch sees to a link that is dead.
            self._held = data[self._wire.send_some([data]) :]

    def finish(self) -> bool:
        """Kill everything that is left, and wait until that is done; whether it was."""
        self.tell("q")
        done = self._ended.wait(PATIENCE)
        self._wire.shut()
        return done


def no_shell(link: AdbLink, said: bytes) -> DeviceError:
    text = said[-1000:].decode("utf-8", "replace").strip()
    return DeviceError(
        "NO_SHELL",
        "the device runs no commands" + (f"; it said: {text}" if text else ""),
        where=link.where,
        hint="It needs a POSIX sh that adb may use; `adb shell echo ok` has to work.",
        evidence={"said": text},
    )
