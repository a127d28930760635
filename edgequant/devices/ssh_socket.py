"""The TCP connection to an SSH server: told apart why there is none, and set up to notice when it dies."""

from __future__ import annotations

import socket
import threading
from typing import Any

from edgequant.deadline import Deadline
from edgequant.devices.ssh_config import SshHost
from edgequant.errors import DeviceError


def connect_tcp(target: SshHost, where: str, deadline: Deadline, keepalive: float) -> socket.socket:
    """Connect to a server directly; `keepalive` as for SshLink.  Raises DeviceError (HOST_UNREACHABLE)."""

    def unreachable(message: str, hint: str, *, transient: bool = True) -> DeviceError:
        return DeviceError("HOST_UNREACHABLE", message, where=where, hint=hint, transient=transient)

    place = f"{target.host}:{target.port}"
    found: list[Any] = []
    failed: list[Exception] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(target.host, target.port, target.address_family, socket.SOCK_STREAM))
        except (socket.gaierror, UnicodeError) as error:
            failed.append(error)

    # A resolver takes its own time and has no timeout to be told.
    resolver = threading.Thread(target=resolve, name="ssh-resolve", daemon=True)
    resolver.start()
    resolver.join(deadline.remaining)
    if resolver.is_alive():
        raise unreachable(f"the name {target.host} was not resolved in time", "Check DNS; an IP address works too.")
    for error in failed:
        raise unreachable(
            f"the name {target.host} cannot be resolved: {getattr(error, 'strerror', None) or error}",
            "Check the spelling, the Host aliases in ~/.ssh/config, and DNS; an IP address works too.",
            transient=getattr(error, "errno", None) == socket.EAI_AGAIN,
        ) from error
    limit = deadline if target.connect_timeout is None else deadline.shorter(target.connect_timeout)
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            left = limit.remaining
            sock.settimeout(max(left, 0.001) if left is not None else None)
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
            continue
        _tune(sock, keepalive)
        return sock
    if isinstance(last, TimeoutError):
        raise unreachable(
            f"{place} did not answer (timeout)", "Check that it is switched on and in this network, and the firewall."
        ) from last
    if isinstance(last, ConnectionRefusedError):
        raise unreachable(
            f"{place} refused the connection",
            "The machine is there, but no SSH server listens on this port: start sshd there, or name its port: "
            "ssh://user@host:2222",
        ) from last
    reason = last.strerror if last and last.strerror else "no address"
    raise unreachable(
        f"{place} cannot be reached: {reason}", "Check the network between here and the device."
    ) from last


def _tune(sock: socket.socket, keepalive: float) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(1, int(keepalive * 2)) if keepalive > 0 else 30
    for name, value in (
        ("TCP_KEEPIDLE", max(1, seconds // 2)),
        ("TCP_KEEPINTVL", max(1, seconds // 6)),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", seconds * 1000),
        # Little unsent data in the kernel: an answer to the keepalive would come after all of it on a slow link.
        ("TCP_NOTSENT_LOWAT", 256 << 10),
    ):
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
