"""Devices reached through adb: Android phones and boards, by USB or TCP, nothing installed on them."""

from __future__ import annotations

import getpass
import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.adb_attached import choose, phones, reconnect
from edgequant.devices.adb_link import AdbLink, Guard
from edgequant.devices.adb_process import AdbProcess
from edgequant.devices.adb_push import push, write_error
from edgequant.devices.adb_server import AdbServer, is_network
from edgequant.devices.adb_wire import Address, Refused
from edgequant.devices.collect import collect
from edgequant.devices.protocol import CommandResult, Device, Kind, Process, Progress
from edgequant.errors import DeadlineExceeded, DeviceError, InputError

# adbd gives a new file at least the rights of its owner to everybody; `[ -f ]`: those of a device node are not ours.
_MAKE_PRIVATE = 'LC_ALL=C; export LC_ALL; [ ! -f "$1" ] || chmod 600 "$1"'


def parse_uri(uri: str) -> tuple[str | None, Address | None]:
    """Serial and server of `adb://[SERIAL][@host:port]`; None where it names none.

    Raises InputError (DEVICE_URI_INVALID).
    """
    rest = uri.removeprefix("adb://")
    serial, at, server = rest.rpartition("@") if "@" in rest else (rest, "", "")
    invalid = InputError(
        "DEVICE_URI_INVALID",
        f"device '{uri[:200]}': not adb://SERIAL, adb://host:port, adb:// or adb://SERIAL@host:port",
        hint="`edgequant devices list` shows the serials.",
    )
    if not uri.startswith("adb://") or not re.fullmatch(r"(?!-)[^\s/@\x00-\x1f\x7f]{0,200}", serial):
        raise invalid
    if not at:
        return serial or None, None
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)(:\d{1,5})?", server):
        raise invalid
    if not re.search(r":\d+$", server) or server.endswith("]"):
        server += ":5037"
    try:
        return serial or None, Address(f"tcp:{server}")
    except InputError:
        raise invalid from None


class AdbDevice(Device):
    """A device an adb server knows, with Android 7 or newer.

    Args:
        uri: `adb://SERIAL`; `adb://host:port` for one on the network, which is connected where it is not yet; `adb://`
            for ANDROID_SERIAL, or else the only one.  `@host:port` at the end names another adb server than the one
            of ADB_SERVER_SOCKET, ANDROID_ADB_SERVER_ADDRESS and ANDROID_ADB_SERVER_PORT.
        python: command that starts Python there; python3 by default.
        keepalive: seconds; a link without a sign of life for four thirds of it counts as lost.  0: never.

    Raises:
        InputError: DEVICE_URI_INVALID, ADB_SERVER_INVALID.
    """

    idle_limit = 30.0
    """Seconds without a byte moving after which send_file gives up.  May be set on an instance."""

    settle = 5.0
    """Seconds `open` waits for a device that is just being connected or asks its user."""

    answer = 10.0
    """Seconds `open` waits for a first answer of the device, before it connects one on the network anew."""

    def __init__(self, uri: str, *, python: str | None = None, keepalive: float = 15.0) -> None:
        self._serial, address = parse_uri(uri)
        self.uri = uri
        self._python = (python or "python3",)
        self._keepalive = keepalive
        self._server = AdbServer(address or Address.from_environment(), uri)
        self._link: AdbLink | None = None
        self._guard: Guard | None = None
        self._guard_lock = threading.Lock()
        self._processes: weakref.WeakSet[AdbProcess] = weakref.WeakSet()

    def open(self, deadline: Deadline) -> None:
        """Find the device and make sure that it answers; again after the link was lost.

        Raises:
            DeviceError: ADB_MISSING, ADB_SERVER_UNREACHABLE, ADB_SERVER_NOT_STARTED, ADB_SERVER_LOST,
                ADB_NONE_ATTACHED, ADB_SEVERAL_ATTACHED, ADB_UNKNOWN_SERIAL, ADB_CONNECT_FAILED, ADB_UNAUTHORIZED,
                ADB_AUTHORIZING, ADB_OFFLINE, ADB_RECOVERY, ADB_SIDELOAD, ADB_BOOTLOADER, ADB_NO_PERMISSIONS,
                ADB_DETACHED, ADB_NOT_READY, ADB_TOO_OLD, NO_SHELL, LINK_LOST.
            DeadlineExceeded: TIMEOUT.
        """
        if self._link is not None:
            if self._link.active:
                return
            self.close()
        wanted = self._serial or os.environ.get("ANDROID_SERIAL") or None
        serial = choose(self._server, wanted, deadline, settle=self.settle)
        try:
            self._greet(serial, deadline.shorter(self.answer))
        except DeadlineExceeded as error:
            if deadline.expired or not is_network(serial):
                error.hint = error.hint or "Wake the device up, connect it again, or try `adb reconnect`."
                raise
            # Off and on again, maybe: the server would believe in the old connection for minutes.
            reconnect(self._server, serial, deadline)
            serial = choose(self._server, serial, deadline, settle=self.settle)
            self._greet(serial, deadline)

    def _greet(self, serial: str, deadline: Deadline) -> None:
        link = AdbLink(self._server, serial, keepalive=self._keepalive)
        self._refuse_old(link, deadline)
        # The server may say `device` about one that is gone: only an answer counts.
        self._guard = Guard(link, deadline)
        self._link = link

    def _refuse_old(self, link: AdbLink, deadline: Deadline) -> None:
        try:
            features = self._server.query(f"host-serial:{link.serial}:features", deadline)
        except Refused as error:
            link.end(str(error))
            raise link.lost("asking for its features") from error
        if "shell_v2" in re.split(r"[,\s]+", features):
            return
        release = _release(link, deadline)
        raise DeviceError(
            "ADB_TOO_OLD",
            f"{f'Android {release}' if release else 'the Android there'} is too old: its adb has no shell v2 protocol, "
            "so no exit codes and no stream that leaves bytes as they are",
            where=self.uri,
            hint="Android 7.0 is the oldest that can be used; so is an adb server of platform tools 24.  A device of "
            "that age can be used over SSH, with an SSH server on it.",
            evidence={"features": features, "android": release},
        )

    def close(self) -> None:
        link, self._link = self._link, None
        guard, self._guard = self._guard, None
        if link is None:
            return
        if link.active:
            if guard is not None and not guard.finish():
                link.end("the device does not answer")  # or each process would wait for it again
            for process in list(self._processes):
                process.kill()
        link.end("the device was closed")

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        """As Device.run.

        Raises:
            DeviceError: LINK_LOST, OUTPUT_TOO_LARGE, SERVICE_REFUSED, NO_SHELL, NOT_CONNECTED.
            InputError: COMMAND_TOO_LONG, COMMAND_INVALID.
            DeadlineExceeded: TIMEOUT; the command has been killed.
        """
        return collect(
            lambda on_stderr: self._spawn(argv, deadline, on_stderr),
            deadline, stdin=stdin, max_output=max_output, where=self.uri,
        )  # fmt: skip

    def start(
        self, argv: Sequence[str], deadline: Deadline, *, on_stderr: Callable[[bytes], None] | None = None
    ) -> Process:
        """As Device.start.  Raises as `run`."""
        return self._spawn(argv, deadline, on_stderr)

    def send_file(
        self, source: Path, remote_path: str, deadline: Deadline, *, progress: Progress | None = None
    ) -> None:
        """As Device.send_file; missing directories on the way are created, as adb does.

        Raises:
            DeviceError: NO_SPACE, READ_ONLY, PERMISSION_DENIED, IS_A_DIRECTORY, NO_SUCH_DIRECTORY, NAME_TOO_LONG,
                FILE_TOO_LARGE, DEVICE_IO, LINK_LOST, SERVICE_REFUSED, NOT_CONNECTED.
            DeadlineExceeded: TIMEOUT, or STALLED after `idle_limit` seconds without movement.
            InputError: FILE_UNREADABLE.
        """
        link = self._connected()
        push(link, source, remote_path, deadline, idle_limit=self.idle_limit, progress=progress)
        path = f"./{remote_path}" if remote_path.startswith("-") else remote_path
        result = self.run(["sh", "-c", _MAKE_PRIVATE, "sh", path], deadline, max_output=1 << 16)
        if not result.ok:
            said = result.stderr.decode("utf-8", "replace").strip().splitlines()
            raise write_error(remote_path, said[-1] if said else "", self.uri)

    @property
    def python(self) -> Sequence[str]:
        return self._python

    @property
    def is_host(self) -> bool:
        return False

    @property
    def needs_pack(self) -> bool:
        return True

    @property
    def work_dirs(self) -> Sequence[str]:
        """Where to work there, best first: the one place of Android where this user may write and run files."""
        user = re.sub(r"[^A-Za-z0-9_.-]", "_", getpass.getuser())
        return (f"/data/local/tmp/edgequant-{user}", "@home", "@tmp")

    def _connected(self) -> AdbLink:
        if self._link is None:
            raise DeviceError("NOT_CONNECTED", "not connected", where=self.uri, hint="Call open() first.")
        return self._link

    def _spawn(self, argv: Sequence[str], deadline: Deadline, on_stderr: Callable[[bytes], None] | None) -> AdbProcess:
        link = self._connected()
        if not link.active:
            raise link.lost(f"starting {argv[0]}")
        process = AdbProcess(link, self._guarded(link, deadline), argv, deadline, on_stderr)
        self._processes.add(process)
        return process

    def _guarded(self, link: AdbLink, deadline: Deadline) -> Guard:
        with self._guard_lock:
            if self._guard is None or not self._guard.alive:
                self._guard = Guard(link, deadline)  # something there killed it
            return self._guard


def _release(link: AdbLink, deadline: Deadline) -> str | None:
    """The Android version of a device without shell v2, where it tells."""
    doing = "asking for its version"
    try:
        wire = link.service(b"shell:getprop ro.build.version.release", deadline.shorter(5), doing)
        said = b""
        try:
            while len(said) < 4096 and (data := wire.receive(4096, deadline.shorter(5), doing)):
                said += data
        finally:
            wire.close()
    except DeviceError:
        return None  # it is refused all the same, only without the number
    found = re.search(rb"^\s*(\d[\w.]*)\s*$", said)
    return found[1].decode() if found else None


KIND = Kind("adb://", "[SERIAL][@host:port]", lambda uri, settings: AdbDevice(uri, python=settings.python), phones)
