"""Devices reached over SSH."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgequant.deadline import Deadline
from edgequant.devices.collect import Bounded, collect
from edgequant.devices.protocol import CommandResult, Device, Kind, Process, Progress, Settings
from edgequant.devices.ssh_config import SshConfig, parse_uri
from edgequant.devices.ssh_hosts import ssh_hosts
from edgequant.errors import DeviceError

if TYPE_CHECKING:  # paramiko takes a while to load: not where a URI is only read, and beside other work
    from edgequant.devices.ssh_link import SshLink
    from edgequant.devices.ssh_process import Guard, SshProcess


class SshDevice(Device):
    """A device with an SSH server and a POSIX sh.

    Args:
        uri: `ssh://[user@]host[:port]`; host may be a Host alias of ~/.ssh/config, which is honoured as OpenSSH does.
        accept_new_host_key: add an unknown host key to known_hosts.  A changed key is refused all the same.
        python: command that starts Python there; python3 by default.
        config_path: read this file instead of ~/.ssh/config and /etc/ssh/ssh_config.
        keepalive: seconds; a connection without a sign of life for four thirds of it counts as lost.  0: never.

    Raises:
        InputError: DEVICE_URI_INVALID.
    """

    idle_limit = 30.0
    """Seconds without a byte moving after which send_file gives up.  May be set on an instance."""

    def __init__(
        self,
        uri: str,
        *,
        accept_new_host_key: bool = False,
        python: str | None = None,
        config_path: Path | None = None,
        keepalive: float = 15.0,
    ) -> None:
        self._endpoint = parse_uri(uri)
        self.uri = uri
        self._accept_new_host_key = accept_new_host_key
        self._python = (python or "python3",)
        self._config_path = config_path
        self._keepalive = keepalive
        self._link: SshLink | None = None
        self._guard: Guard | None = None
        self._guard_wanted = True
        self._guard_lock = threading.Lock()
        self._processes: weakref.WeakSet[SshProcess] = weakref.WeakSet()

    def open(self, deadline: Deadline) -> None:
        """Connect; does nothing while connected, connects again after the link was lost.

        Raises:
            DeviceError: HOST_UNREACHABLE, HANDSHAKE_FAILED, HOST_KEY_UNKNOWN, HOST_KEY_MISMATCH, HOST_KEY_REVOKED,
                KNOWN_HOSTS_UNWRITABLE, AUTH_FAILED.
            InputError: SSH_CONFIG_INVALID.
            DeadlineExceeded: TIMEOUT.
        """
        if self._link is not None:
            if self._link.active:
                return
            self.close()
        from edgequant.devices.ssh_link import SshLink

        link = SshLink(self.uri, keepalive=self._keepalive)
        link.connect(
            SshConfig(self._config_path),
            self._endpoint,
            accept_new_host_key=self._accept_new_host_key,
            deadline=deadline,
        )
        self._link = link

    def close(self) -> None:
        link, self._link = self._link, None
        guard, self._guard = self._guard, None
        self._guard_wanted = True
        if link is None:
            return
        if link.active:
            if guard is not None:
                guard.finish()
            for process in list(self._processes):
                process.kill()
        link.close()

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        """As Device.run.  What a login shell prints by itself is cut off.

        Raises:
            DeviceError: LINK_LOST, OUTPUT_TOO_LARGE, SESSION_REFUSED, NO_SHELL, NOT_CONNECTED.
            DeadlineExceeded: TIMEOUT; the command has been killed.
        """
        return collect(
            lambda on_stderr: self._spawn(argv, deadline, on_stderr),
            deadline, stdin=stdin, max_output=max_output, where=self.uri,
        )  # fmt: skip

    def start(
        self, argv: Sequence[str], deadline: Deadline, *, on_stderr: Callable[[bytes], None] | None = None
    ) -> Process:
        """As Device.start.  Raises DeviceError (LINK_LOST, SESSION_REFUSED, NO_SHELL, NOT_CONNECTED)."""
        return self._spawn(argv, deadline, on_stderr)

    def send_file(
        self, source: Path, remote_path: str, deadline: Deadline, *, progress: Progress | None = None
    ) -> None:
        """As Device.send_file.

        Raises:
            DeviceError: NO_SPACE, READ_ONLY, PERMISSION_DENIED, IS_A_DIRECTORY, NO_SUCH_DIRECTORY, NAME_TOO_LONG,
                FILE_TOO_LARGE, DEVICE_IO, LINK_LOST, SESSION_REFUSED, NO_SHELL, NOT_CONNECTED.
            DeadlineExceeded: TIMEOUT, or STALLED after `idle_limit` seconds without movement.
            InputError: FILE_UNREADABLE.
        """
        from edgequant.devices.ssh_push import RECEIVE, push

        link = self._connected()
        stderr = Bounded(64 << 10)
        process = self._spawn(["sh", "-c", RECEIVE, "sh", remote_path], deadline, stderr.add)
        try:
            push(
                link,
                process,
                source,
                remote_path,
                lambda: bytes(stderr.data),
                deadline,
                idle_limit=self.idle_limit,
                progress=progress,
            )
        except BaseException:
            process.kill()
            raise

    @property
    def python(self) -> Sequence[str]:
        return self._python

    @property
    def is_host(self) -> bool:
        return False

    def _connected(self) -> SshLink:
        if self._link is None:
            raise DeviceError("NOT_CONNECTED", "not connected", where=self.uri, hint="Call open() first.")
        return self._link

    def _spawn(self, argv: Sequence[str], deadline: Deadline, on_stderr: Callable[[bytes], None] | None) -> SshProcess:
        link = self._connected()
        if not link.active:
            raise link.lost(f"starting {argv[0]}")
        from edgequant.devices.ssh_process import SshProcess

        process = SshProcess(link, self._guarded, argv, deadline, on_stderr)
        self._processes.add(process)
        return process

    def _guarded(self, deadline: Deadline) -> Guard | None:
        """The guard of this connection, started with the first command that needs it."""
        from edgequant.devices.ssh_process import Guard

        with self._guard_lock:
            if self._guard is not None and not self._guard.alive:
                self._guard = None  # killed by something else there: processes from now on get a new one
            if self._guard is None and self._guard_wanted:
                try:
                    self._guard = Guard(self._connected(), deadline)
                except DeviceError as error:
                    if error.code != "SESSION_REFUSED":
                        raise
                    # MaxSessions 1: better a command that cannot be killed than none.
                    self._guard_wanted = False
            return self._guard


def _make(uri: str, settings: Settings) -> SshDevice:
    return SshDevice(uri, accept_new_host_key=settings.accept_new_host_key, python=settings.python)


KIND = Kind("ssh://", "[user@]host[:port]", _make, ssh_hosts)
