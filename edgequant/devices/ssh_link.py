"""The SSH connection itself: socket, jumps, host keys, login, and a watchdog that notices a dead link.

A dropped link shows nowhere by itself: transfers and commands then wait for good, whatever timeouts they were given.
So the socket has TCP_USER_TIMEOUT, and two threads ask the server for a sign of life and close the connection when
none came; everything that waits on it then wakes up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_REQUEST

from edgequant.deadline import Deadline
from edgequant.devices.ssh_auth import Login
from edgequant.devices.ssh_config import Endpoint, SshConfig, SshHost
from edgequant.devices.ssh_known_hosts import HostKeyCheck
from edgequant.devices.ssh_socket import connect_tcp
from edgequant.errors import DeviceError, InputError

# Without a handler Python prints the tracebacks paramiko logs for every lost link; they are reported as errors here.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_MAX_HOPS = 8
TICK = 0.25
"""Seconds between two looks of the watchdog, and between two looks at a deadline in a blocking channel call."""


class Movement:
    """Work that has to keep moving: `moved()` on every step; `stale` once nothing moved for `limit` seconds."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.last = time.monotonic()

    def moved(self) -> None:
        self.last = time.monotonic()

    @property
    def stale(self) -> bool:
        return time.monotonic() - self.last > self.limit


class SshLink:
    """An authenticated connection, possibly through others.

    Args:
        where: the device URI for messages.
        keepalive: a sign of life is asked for every third of this many seconds, and the connection counts as dead
            when none came, and no data moved either, for four thirds of it (20 s for 15).  0 turns this off.
    """

    def __init__(self, where: str, *, keepalive: float) -> None:
        self.where = where
        self._keepalive = keepalive
        self._hops: list[paramiko.Transport] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        self._proxy_log: IO[bytes] | None = None
        self._alive = Movement(keepalive * 4 / 3)
        self._watched: set[Movement] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self.why_lost: str | None = None

    def connect(self, config: SshConfig, endpoint: Endpoint, *, accept_new_host_key: bool, deadline: Deadline) -> None:
        """Connect and log in.

        Raises DeviceError (HOST_UNREACHABLE, HANDSHAKE_FAILED, HOST_KEY_*, AUTH_FAILED), DeadlineExceeded, InputError.
        """
        try:
            for target, first in _route(config, endpoint, self.where):
                sock = self._first_socket(target, deadline) if first else self._through_hop(target, deadline)
                self._handshake(target, sock, accept_new_host_key, deadline)
        except BaseException:
            self.close()
            raise
        if self._keepalive > 0:
            self._alive.moved()
            threading.Thread(target=self._ask_for_life, name="ssh-keepalive", daemon=True).start()
        threading.Thread(target=self._watch, name="ssh-watchdog", daemon=True).start()

    @property
    def transport(self) -> paramiko.Transport:
        return self._hops[-1]

    @property
    def active(self) -> bool:
        return bool(self._hops) and not self._closed.is_set() and bool(self.transport.is_active())

    def moved(self) -> None:
        """Data moved in either direction, so the link is alive."""
        self._alive.moved()

    def lost(self, doing: str) -> DeviceError:
        """The error to raise when the link went away during something."""
        reason = f": {self.why_lost}" if self.why_lost else ""
        return DeviceError(
            "LINK_LOST",
            f"the connection was lost while {doing}{reason}",
            where=self.where,
            transient=True,
            hint="Check power and network of the device, then try again.",
        )

    @contextlib.contextmanager
    def watching(self, seconds: float | None) -> Iterator[Movement | None]:
        """Close the connection when the returned Movement gets stale.

        The only way out for a thread that is stuck inside paramiko, which waits for a full socket without a timeout.
        """
        if seconds is None:
            yield None
            return
        movement = Movement(seconds)
        self._watched.add(movement)
        try:
            yield movement
        finally:
            self._watched.discard(movement)

    def close(self) -> None:
        """Disconnect everything.  Never raises; may be called twice."""
        self._closed.set()
        with self._lock:
            hops, self._hops = list(self._hops), self._hops[-1:]
            proxy, self._proxy = self._proxy, None
            log, self._proxy_log = self._proxy_log, None
        for transport in reversed(hops):
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                transport.close()
        if proxy is not None:
            proxy.terminate()
            try:
                proxy.wait(2)
            except subprocess.TimeoutExpired:
                proxy.kill()
                proxy.wait()
        if log is not None:
            log.close()

    # --- connecting ---

    def _first_socket(self, target: SshHost, deadline: Deadline) -> Any:
        if target.proxy_command is None:
            return connect_tcp(target, self.where, deadline, self._keepalive)
        ours, theirs = socket.socketpair()
        self._proxy_log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        shell = os.environ.get("SHELL") or "/bin/sh"
        with theirs:
            # A real socket instead of paramiko.ProxyCommand: that one loses timeouts and never reaps its child.
            self._proxy = subprocess.Popen(
                [shell, "-c", f"exec {target.proxy_command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._proxy_log,
            )
        return ours

    def _through_hop(self, target: SshHost, deadline: Deadline) -> Any:
        deadline.check("connecting", self.where)
        try:
            return self.transport.open_channel(
                "direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=deadline.remaining
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            deadline.check("connecting through the jump host", self.where)
            reason = getattr(error, "text", None) or str(error) or type(error).__name__
            raise DeviceError(
                "HOST_UNREACHABLE",
                f"the jump host cannot connect to {target.host}:{target.port}: {reason}",
                where=self.where,
                transient=True,
                hint="Check that the jump host reaches it, and that its sshd allows TCP forwarding.",
            ) from error

    def _handshake(self, target: SshHost, sock: Any, accept_new: bool, deadline: Deadline) -> None:
        deadline.check("connecting", self.where)
        check = HostKeyCheck(target, self.where, accept_new=accept_new)
        transport = paramiko.Transport(sock)
        with self._lock:
            self._hops.append(transport)
        left = deadline.remaining
        transport.banner_timeout = transport.handshake_timeout = 60.0 if left is None else left
        options = transport.get_security_options()
        options.key_types = _first(check.preferred_kinds(), options.key_types)
        # On small cores and here alike, AES-128-GCM more than doubles the speed of a transfer.
        options.ciphers = _first(["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"], options.ciphers)
        _report_ends(transport)
        done = threading.Event()
        try:
            transport.start_client(event=done)
            finished = done.wait(deadline.remaining)
            error = transport.get_exception()
            if error is None and finished and transport.is_active():
                check.check(transport.get_remote_server_key())
                Login(transport, target, self.where).run(deadline)
                return
        except (paramiko.SSHException, EOFError, OSError) as failure:
            error = failure
        deadline.check(f"the SSH handshake with {target.host}:{target.port}", self.where)
        raise self._no_handshake(target, error) from error

    def _no_handshake(self, target: SshHost, error: BaseException | None) -> DeviceError:
        reason = str(error) or type(error).__name__ if error else "the connection was closed"
        if target.proxy_command is not None and len(self._hops) == 1:
            said = b""
            if self._proxy_log is not None:
                self._proxy_log.seek(0)
                said = self._proxy_log.read(4096)
            tail = said.decode(errors="replace").strip()[-500:]
            # The command itself stays out of the message: it may hold a secret.
            return DeviceError(
                "HOST_UNREACHABLE",
                f"the ProxyCommand gave no SSH server: {tail or reason}",
                where=self.where,
                transient=True,
                hint="Run the ProxyCommand of ~/.ssh/config by hand.",
            )
        incompatible = isinstance(error, paramiko.ssh_exception.IncompatiblePeer)
        return DeviceError(
            "HANDSHAKE_FAILED",
            f"no SSH handshake with {target.host}:{target.port}: {reason}",
            where=self.where,
            transient=not incompatible,
            hint="The server has no algorithm in common with us: update it."
            if incompatible
            else "Check that an SSH server listens there and is not overloaded (MaxStartups, fail2ban).",
        )

    # --- staying connected ---

    def _ask_for_life(self) -> None:
        transport = self.transport
        while not self._closed.wait(self._keepalive / 3) and transport.is_active():
            try:
                transport.global_request("keepalive@openssh.com", wait=True)
            except (paramiko.SSHException, EOFError, OSError):
                return
            # Any answer will do, also "no such request".
            if transport.is_active():
                self._alive.moved()

    def _watch(self) -> None:
        transport = self.transport
        while not self._closed.wait(TICK) and transport.is_active():
            if self._keepalive > 0 and self._alive.stale:
                self.why_lost = f"no sign of life for {self._alive.limit:.0f} s"
                self.close()
            elif any(movement.stale for movement in list(self._watched)):
                self.why_lost = "nothing moved"
                self.close()


def _route(config: SshConfig, endpoint: Endpoint, where: str) -> list[tuple[SshHost, bool]]:
    """Servers from the nearest to the device, and whether each is connected to directly."""
    target = config.resolve(endpoint)
    route = [target]
    while route[0].proxy_jump:
        # As `ssh -J a,b host`: the way to `a` is what the config says for it; b is reached from a, whatever it says.
        hops = [config.resolve(hop) for hop in route[0].proxy_jump]
        if len(route) + len(hops) > _MAX_HOPS or (len(route) > 1 and hops[0].alias == route[0].alias):
            raise InputError(
                "SSH_CONFIG_INVALID",
                f"more than {_MAX_HOPS} jumps: ProxyJump goes round in a circle",
                where=where,
                hint="See ssh -G for each hop; ProxyJump none ends the chain.",
            )
        route = hops + route
    return [(hop, index == 0) for index, hop in enumerate(route)]


def _first(wanted: list[str], available: tuple[str, ...]) -> tuple[str, ...]:
    head = [name for name in wanted if name in available]
    return (*head, *(name for name in available if name not in head))


def _report_ends(transport: paramiko.Transport) -> None:
    """Make channels remember how they ended: `exit_signal_name`, and `closed_by_server`.

    paramiko drops the "exit-signal" message and looks the same for a process that was killed and a link that was
    lost.  Where a paramiko without this table comes along, signals are reported without their number.
    """
    table = getattr(transport, "_channel_handler_table", None)
    if not isinstance(table, dict) or not {MSG_CHANNEL_REQUEST, MSG_CHANNEL_CLOSE} <= set(table):
        return
    on_request, on_close = table[MSG_CHANNEL_REQUEST], table[MSG_CHANNEL_CLOSE]

    def request(channel: Any, message: Any) -> None:
        peek = paramiko.Message(message.get_remainder())
        if peek.get_text() == "exit-signal":
            peek.get_boolean()
            channel.exit_signal_name = peek.get_text()
            # As paramiko does for "exit-status": who waits for the end need not wait for unread output as well.
            channel.status_event.set()
        on_request(channel, message)

    def closed(channel: Any, message: Any) -> None:
        channel.closed_by_server = True
        on_close(channel, message)

    transport._channel_handler_table = {**table, MSG_CHANNEL_REQUEST: request, MSG_CHANNEL_CLOSE: closed}
