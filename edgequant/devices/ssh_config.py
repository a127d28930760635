"""`ssh://` URIs and ~/.ssh/config, read the way OpenSSH reads them.

paramiko parses the file; what it leaves out is done here: Include, the port and user of the URI winning over the
file (they count as ssh's command line), one pass of %-tokens and ${VARIABLES}, and "the first of ProxyJump and
ProxyCommand counts".
"""

from __future__ import annotations

import contextlib
import getpass
import glob
import hashlib
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

import paramiko

from edgequant.errors import InputError
from edgequant.files import read_bounded

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
MAX_BYTES = 16 << 20
"""Of a config, a list of known hosts, or a key."""
_MAX_INCLUDE_DEPTH = 16  # as in OpenSSH
# The host ends up in the shell line of a ProxyCommand, the user too: what OpenSSH refuses there is refused here.
_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]*")
_BAD_USER = re.compile(r"""^-|['`"$\\;&<>|(){}/\s]""")


@dataclass(frozen=True)
class Endpoint:
    """What a URI or a ProxyJump hop says, before the config is asked.  None: not said."""

    host: str
    user: str | None = None
    port: int | None = None


@dataclass(frozen=True)
class SshHost:
    """One server, fully resolved: where to connect, as whom, with which keys, through what."""

    alias: str
    host: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    """In the order to be tried; the usual defaults when the config names none."""
    identities_only: bool
    identity_agent: str | None
    """Path of the agent's socket, None where there is no agent to use."""
    proxy_jump: tuple[Endpoint, ...]
    proxy_command: str | None
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    host_key_alias: str | None
    hash_known_hosts: bool
    batch_mode: bool
    """BatchMode yes: never ask for a password or a passphrase."""
    connect_timeout: float | None
    """Seconds; None leaves it to the caller's deadline."""
    address_family: int

    @property
    def known_as(self) -> str:
        """The name under which known_hosts lists this server."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"


def _invalid(reason: str, where: str | None, hint: str | None = None) -> InputError:
    hint = hint or "Write ssh://[user@]host[:port]; host may be a Host alias of ~/.ssh/config, IPv6 goes in [brackets]."
    return InputError("DEVICE_URI_INVALID", reason, where=where, hint=hint)


def parse_endpoint(text: str, where: str) -> Endpoint:
    """Parse `[user@]host[:port]`.  Raises InputError (DEVICE_URI_INVALID)."""
    user_part, at, address = text.rpartition("@")
    user: str | None = None
    if at:
        if ":" in user_part:
            # `where` would repeat the password, so this message names no URI at all.
            raise _invalid(
                "an ssh:// URI must not hold a password: it would show in logs, reports and the process list",
                None,
                "Use a key or ssh-agent, or leave the password out and type it when asked on a terminal.",
            )
        user = unquote(user_part)
        if not user or _BAD_USER.search(user):
            raise _invalid("the user name is empty or has characters no user name has", where)
    match = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", address)
    if match is None:
        raise _invalid(f"{address!r} is not host or host:port", where)
    # A zone is written %25eth0 in a URI.
    host = unquote(match["six"]) if match["six"] is not None else match["host"]
    if not host:
        raise _invalid("the host is missing", where)
    if not _HOST.fullmatch(host):
        raise _invalid(f"{host!r} is not a host name", where)
    port: int | None = None
    if match["port"] is not None:
        if not re.fullmatch(r"[0-9]{1,5}", match["port"]) or not 1 <= int(match["port"]) <= 65535:
            # Not repeated: what stands there may be the password of a URI whose host was forgotten.
            raise _invalid("the port is not a number from 1 to 65535", None)
        port = int(match["port"])
    return Endpoint(host, user, port)


def parse_uri(uri: str) -> Endpoint:
    """Parse `ssh://[user@]host[:port]`.  Raises InputError (DEVICE_URI_INVALID); never repeats a password."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() != "ssh":
        raise _invalid("this is not an ssh:// URI", None if "@" in uri else uri)
    # The user part goes first: a slash or a question mark in a misplaced password must not become "a path".
    head, at, tail = rest.rpartition("@")
    address, slash, path = tail.partition("/")
    endpoint = parse_endpoint(head + at + address, uri)
    if (slash and path) or re.search(r"[?#]", tail):
        raise _invalid("an ssh:// device has no path, query or fragment", uri)
    return endpoint


@contextlib.contextmanager
def _stdin(stream: TextIO) -> Iterator[None]:
    before, sys.stdin = sys.stdin, stream
    try:
        yield
    finally:
        sys.stdin = before


def read_lines(path: Path, base: Path, depth: int = 0) -> list[str]:
    """Lines of a config with its Includes put in place.

    After an Include the surrounding Host or Match line is repeated, so what follows still belongs to its block.
    """
    if depth > _MAX_INCLUDE_DEPTH:
        raise InputError("SSH_CONFIG_INVALID", "Include is nested too deeply", where=str(path))
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise InputError("SSH_CONFIG_INVALID", f"cannot be read: {error.strerror}", where=str(path)) from error
    lines: list[str] = []
    block = "Host *"
    for line in text.splitlines():
        match = re.match(r"\s*(\w+)(?:\s*=\s*|\s+)(.+)", line)
        keyword = match[1].lower() if match else ""
        if match is None or keyword != "include":
            if keyword in ("host", "match"):
                block = line
            lines.append(line)
            continue
        for pattern in shlex.split(match[2]):
            full = os.path.expanduser(pattern)  # noqa: PTH111 - a glob pattern, not a path
            for found in sorted(glob.glob(str(base / full))):  # noqa: PTH207 - the pattern may be absolute
                lines += read_lines(Path(found), base, depth + 1)
        lines.append(block)
    return lines


class SshConfig:
    """The user's OpenSSH client configuration.

    Args:
        path: the file to use instead of ~/.ssh/config and /etc/ssh/ssh_config, like `ssh -F`; must exist.
    """

    def __init__(self, path: Path | None = None) -> None:
        ssh_dir = Path.home() / ".ssh"
        if path is not None:
            self._files = [(path, ssh_dir)]
        else:
            candidates = [(ssh_dir / "config", ssh_dir), (SYSTEM_CONFIG, SYSTEM_CONFIG.parent)]
            self._files = [(file, base) for file, base in candidates if file.is_file()]
        self._lines: list[str] = []
        for file, base in self._files:
            # "Host *" ends the last block of the file before: each file starts outside any block.
            self._lines += ["Host *", *read_lines(file, base)]

    def resolve(self, endpoint: Endpoint) -> SshHost:
        """Everything known about one server.  Raises InputError (SSH_CONFIG_INVALID, DEVICE_URI_INVALID)."""
        options = self._lookup(endpoint)
        user = str(options.get("user") or getpass.getuser())
        alias = endpoint.host
        port = self._number(options, "port", 22, 65535)
        hostname = _expand(str(options.get("hostname") or alias), {"h": alias})
        if not _HOST.fullmatch(hostname):
            raise InputError("SSH_CONFIG_INVALID", f"HostName {hostname!r} is not a host name", where=alias)
        local = socket.gethostname()
        tokens = {
            "d": str(Path.home()), "h": hostname, "i": str(os.getuid()), "j": str(options.get("proxyjump") or ""),
            "k": str(options.get("hostkeyalias") or alias), "L": local.split(".")[0], "l": local, "n": alias,
            "p": str(port), "r": user, "u": getpass.getuser(),
        }  # fmt: skip
        joined = "".join(tokens[key] for key in "lhprj")
        tokens["C"] = hashlib.sha1(joined.encode(), usedforsecurity=False).hexdigest()

        def files(key: str, defaults: list[str]) -> tuple[Path, ...]:
            value = options.get(key)
            names = value if isinstance(value, list) else defaults if value is None else shlex.split(str(value))
            return tuple(Path(_expand(n, tokens)).expanduser() for n in names if n.lower() != "none")

        jump, command = self._proxy(options, tokens, alias)
        timeout = self._number(options, "connecttimeout", 0, 1 << 20, zero=True)
        family = str(options.get("addressfamily", "any")).lower()
        return SshHost(
            alias=alias,
            host=hostname,
            port=port,
            user=user,
            identity_files=files("identityfile", [f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]),
            identities_only=_yes(options, "identitiesonly"),
            identity_agent=_agent_socket(options.get("identityagent"), tokens),
            proxy_jump=jump,
            proxy_command=command,
            user_known_hosts=files("userknownhostsfile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]),
            global_known_hosts=files("globalknownhostsfile", ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]),
            host_key_alias=options.get("hostkeyalias"),
            hash_known_hosts=_yes(options, "hashknownhosts"),
            batch_mode=_yes(options, "batchmode"),
            connect_timeout=float(timeout) if timeout else None,
            address_family={"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(family, socket.AF_UNSPEC),
        )

    def _lookup(self, endpoint: Endpoint) -> Mapping[str, Any]:
        # First value wins, so what ssh would take from its command line stands at the top.
        given = ["Host *"]
        if endpoint.user is not None:
            given.append(f"User {endpoint.user}")
        if endpoint.port is not None:
            given.append(f"Port {endpoint.port}")
        where = ", ".join(str(file) for file, _ in self._files) or None
        try:
            config = paramiko.SSHConfig.from_text("\n".join([*given, *self._lines]))
            # Tokens are expanded here, in one pass; paramiko's own expansion knows fewer and no %%.
            config.TOKENS_BY_CONFIG_KEY = {"match-exec": config.TOKENS_BY_CONFIG_KEY.get("match-exec", [])}
            # A `Match exec` runs its command through a library that reads our stdin: it gets an empty one.
            with open(os.devnull) as nothing, _stdin(nothing):
                options: Mapping[str, Any] = config.lookup(endpoint.host)
        except (paramiko.SSHException, ValueError, KeyError, ImportError) as error:
            # The text of the error repeats the line, and a line can hold a secret (ProxyCommand).
            reason = f"cannot be parsed ({type(error).__name__})"
            raise InputError("SSH_CONFIG_INVALID", reason, where=where, hint="Check it with ssh -G HOST.") from None
        return options

    @staticmethod
    def _number(options: Mapping[str, Any], key: str, default: int, most: int, *, zero: bool = False) -> int:
        value = str(options.get(key, default))
        if value.isdecimal() and (0 if zero else 1) <= int(value) <= most:
            return int(value)
        if value.lower() == "none":
            return default
        raise InputError("SSH_CONFIG_INVALID", f"{key} {value!r} is not a usable number")

    @staticmethod
    def _proxy(
        options: Mapping[str, Any], tokens: Mapping[str, str], alias: str
    ) -> tuple[tuple[Endpoint, ...], str | None]:
        # A dict keeps its order, and the lookup fills it in the order of the file: the first of the two counts.
        for key in options:
            if key == "proxyjump":
                value = str(options[key])
                if value.lower() == "none":
                    return (), None
                hops = [_expand(hop.strip(), tokens) for hop in value.split(",")]
                where = f"ProxyJump of {alias}"
                return tuple(parse_uri(hop) if "://" in hop else parse_endpoint(hop, where) for hop in hops), None
            if key == "proxycommand":
                value = options[key]
                if value is None or str(value).lower() == "none":
                    return (), None
                return (), _expand(str(value), tokens)
        return (), None


def _yes(options: Mapping[str, Any], key: str) -> bool:
    return str(options.get(key, "no")).lower() in ("yes", "true")


def _expand(value: str, tokens: Mapping[str, str]) -> str:
    """Replace %x and ${VARIABLE} once, left to right; unknown tokens stay as they are."""

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return "%" if match[1] == "%" else tokens.get(match[1], match[0])
        return os.environ.get(match[2], match[0])

    return re.sub(r"%(.)|\$\{(\w+)\}", one, value)


def _agent_socket(value: str | None, tokens: Mapping[str, str]) -> str | None:
    if value is not None and value.lower() == "none":
        return None
    if value is None or value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if re.fullmatch(r"\$\w+", value):
        return os.environ.get(value[1:]) or None
    return str(Path(_expand(value, tokens)).expanduser())
