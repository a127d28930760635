"""The adb server: found, started where it can be, and asked."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator

from edgequant.deadline import Deadline
from edgequant.devices.adb_wire import Address, Wire, WireClosed
from edgequant.errors import DeadlineExceeded, DeviceError

_QUERY_LIMIT = 15.0
"""Seconds; the server answers questions about itself at once, so one that takes longer hangs."""


class AdbServer:
    """One adb server.

    Args:
        address: where it listens.
        where: the device URI for messages.
    """

    def __init__(self, address: Address, where: str) -> None:
        self.address = address
        self.where = where

    def connect(self, deadline: Deadline, *, start: bool = True) -> Wire:
        """A new connection; with `start` a server that is local and does not run is started.

        Raises:
            DeviceError: ADB_SERVER_UNREACHABLE, ADB_MISSING, ADB_SERVER_NOT_STARTED.
            DeadlineExceeded: TIMEOUT.
        """
        deadline.check("connecting to the adb server", self.where)
        try:
            return Wire(self.address, deadline)
        except TimeoutError as error:
            raise self._unreachable("it did not answer in time") from error
        except OSError as error:
            if not start or not self.address.is_local:
                raise self._unreachable(error.strerror or str(error)) from error
        self._start(deadline)
        try:
            return Wire(self.address, deadline)
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from error

    def query(self, service: str, deadline: Deadline, *, limit: float | None = _QUERY_LIMIT, start: bool = True) -> str:
        """Ask and return the text.  Raises as `connect`, DeviceError (ADB_SERVER_LOST), Refused with a reason."""
        doing = f"asking the adb server for {service}"
        part = deadline if limit is None else deadline.shorter(limit)
        wire = self.connect(deadline, start=start)
        with contextlib.closing(wire), self.telling(doing):
            wire.request(service.encode(), part, doing)
            return wire.text(part, doing)

    @contextlib.contextmanager
    def telling(self, doing: str) -> Iterator[None]:
        """Errors of a Wire as errors for people."""
        try:
            yield
        except WireClosed as error:
            raise DeviceError(
                "ADB_SERVER_LOST",
                f"the adb server at {self.address} went away while {doing}: {error}",
                where=self.where,
                transient=True,
                hint="Try again; another program may have restarted the adb server.",
            ) from error
        except DeadlineExceeded as error:
            error.where = error.where or self.where
            raise

    def _unreachable(self, why: str) -> DeviceError:
        return DeviceError(
            "ADB_SERVER_UNREACHABLE",
            f"the adb server at {self.address} cannot be reached: {why}",
            where=self.where,
            transient=True,
            hint="Start it there (for one that other machines may use: `adb -a nodaemon server start`), and check the "
            "address, the firewall, ADB_SERVER_SOCKET and ANDROID_ADB_SERVER_PORT.",
        )

    def _start(self, deadline: Deadline) -> None:
        binary = find_adb(deadline, self.where)
        command = [binary, *self.address.arguments, "start-server"]
        # A file, no pipe: the server inherits it and lives on, so the end of a pipe would never come.
        with tempfile.TemporaryFile() as said:
            try:
                # Its own session: the server must survive an interrupt in this terminal.
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
                )
                code = child.wait(deadline.remaining)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise DeadlineExceeded(
                    f"starting the adb server did not finish within {deadline.seconds:g} s", where=self.where
                ) from None
            except OSError as error:
                raise _missing(self.where, f"{binary} cannot be started: {error.strerror}") from error
            if code == 0:
                return
            said.seek(0)
            text = said.read(1 << 16).decode("utf-8", "replace").strip()
        raise DeviceError(
            "ADB_SERVER_NOT_STARTED",
            f"{binary} cannot start the adb server at {self.address}: "
            f"{text.splitlines()[-1] if text else f'exit status {code}'}",
            where=self.where,
            hint=f"See what `{' '.join(command)}` says.",
            evidence={"output": text[-4000:], "exit_code": code},
        )


def find_adb(deadline: Deadline, where: str) -> str:
    """The adb command: on PATH, else the one adbutils brings.  Raises DeviceError (ADB_MISSING), DeadlineExceeded."""
    import adbutils

    found: list[str] = []
    failed: list[Exception] = []

    def look() -> None:
        try:
            found.append(adbutils.adb_path())
        except (adbutils.AdbError, OSError) as error:
            failed.append(error)

    # It runs each candidate to see whether it works, without a limit of time.
    thread = threading.Thread(target=look, name="adb-find", daemon=True)
    thread.start()
    thread.join(deadline.remaining)
    if found:
        return found[0]
    if thread.is_alive():
        deadline.check("looking for the adb command", where)
    raise _missing(where, "there is no adb command on PATH, and none that came with adbutils for this system")


def _missing(where: str, message: str) -> DeviceError:
    return DeviceError(
        "ADB_MISSING",
        message,
        where=where,
        hint="Install adb (Debian and Ubuntu: apt install adb; macOS: brew install android-platform-tools), or use the "
        "adb server of another machine: adb://SERIAL@host:port.",
    )


def is_network(serial: str) -> bool:
    """Whether it is the host:port of a device rather than a serial number."""
    return re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_.-]+):\d{1,5}", serial) is not None
