"""Logging in over SSH: agent, key files, then questions to a person, if there is one.

What was tried is collected in words for the error message: names and paths, never contents.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import io
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
import paramiko.agent

from edgequant.deadline import Deadline
from edgequant.devices.ssh_config import MAX_BYTES, SshHost
from edgequant.devices.ssh_known_hosts import fingerprint
from edgequant.errors import DeviceError
from edgequant.files import read_bounded

_PROMPTS = 3  # as in OpenSSH


def somebody_there() -> bool:
    """Whether there is a person to ask: a terminal to read from and one to write to."""
    return bool(sys.stdin and sys.stderr and sys.stdin.isatty() and sys.stderr.isatty())


def ask(prompt: str) -> str | None:
    """Ask a person for a secret; None where the answer is the end of input."""
    try:
        return getpass.getpass(prompt, stream=sys.stderr)
    except EOFError:
        return None


def public_blob(path: Path) -> bytes | None:
    """Public part of a key file without its passphrase: from PATH.pub, a public key in PATH, or the key's header."""
    for candidate in (path.with_name(path.name + ".pub"), path):
        try:
            text = read_bounded(candidate, MAX_BYTES).decode("ascii", "replace")
        except OSError:
            continue
        try:
            if "-----BEGIN OPENSSH PRIVATE KEY-----" in text:
                body = "".join(line for line in text.splitlines() if not line.startswith("-"))
                return _blob_of_private(base64.b64decode(body))
            fields = text.split()
            if len(fields) >= 2 and not text.startswith("-"):
                return base64.b64decode(fields[1], validate=True)
        except (binascii.Error, struct.error):
            continue
    return None


def _blob_of_private(raw: bytes) -> bytes | None:
    # openssh-key-v1: magic, cipher, kdf, kdf options, number of keys, then the public key: all of it in the clear.
    position = len(b"openssh-key-v1\0")

    def string() -> bytes:
        nonlocal position
        (length,) = struct.unpack_from(">I", raw, position)
        start = position + 4
        position = start + length
        return raw[start:position]

    for _ in range(3):
        string()
    position += 4
    return string() or None


def load_key(path: Path, passphrase: str | None) -> paramiko.PKey:
    """A private key of whatever type.  Raises paramiko.PasswordRequiredException or SSHException, OSError."""
    text = read_bounded(path, MAX_BYTES).decode("utf-8", "replace")
    error: paramiko.SSHException | None = None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text), password=passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError, IndexError, UnicodeDecodeError) as failure:
            error = error or paramiko.SSHException(type(failure).__name__)
    assert error is not None
    raise error


class Login:
    """One attempt to log in on a transport whose host key has been checked.

    Args:
        transport: connected, not authenticated.
        target: as whom, and with what.
        where: the device URI for messages.
    """

    def __init__(self, transport: paramiko.Transport, target: SshHost, where: str) -> None:
        self._transport = transport
        self._target = target
        self._where = where
        self._may_ask = somebody_there() and not target.batch_mode
        self._tried: list[str] = []
        self._locked: list[Path] = []
        self._agent: Any = None

    def run(self, deadline: Deadline) -> None:
        """Log in.  Raises DeviceError (AUTH_FAILED; LINK_LOST where the server went away), DeadlineExceeded."""
        self._deadline = deadline
        try:
            allowed = self._methods()
            # Some servers want two methods one after the other; each success then names what is still missing.
            while allowed:
                allowed = self._next_step(allowed)
        except (EOFError, OSError, paramiko.SSHException) as error:
            deadline.check("logging in", self._where)
            raise self._failed([], f"the server ended the connection ({type(error).__name__})") from error
        finally:
            if self._agent is not None:
                self._agent._close()

    def _methods(self) -> list[str]:
        """What the server accepts; empty when it wanted nothing at all."""
        self._limit_time()
        try:
            return list(self._transport.auth_none(self._target.user))
        except paramiko.BadAuthenticationType as refusal:
            return list(refusal.allowed_types)

    def _next_step(self, allowed: list[str]) -> list[str]:
        for method, attempts in (
            ("publickey", self._keys),
            ("keyboard-interactive", self._questions),
            ("password", self._passwords),
        ):
            if method not in allowed:
                continue
            for attempt in attempts():
                self._limit_time()
                try:
                    return list(attempt())
                except paramiko.BadAuthenticationType as refusal:
                    allowed = list(refusal.allowed_types)
                    break
                except paramiko.AuthenticationException:
                    if not self._transport.is_active():
                        raise
        raise self._failed(allowed, None)

    def _limit_time(self) -> None:
        self._deadline.check("logging in", self._where)
        left = self._deadline.remaining
        self._transport.auth_timeout = 60.0 if left is None else left

    def _keys(self) -> Iterator[Callable[[], Sequence[str]]]:
        user, transport, target = self._target.user, self._transport, self._target
        wanted = [blob for blob in map(public_blob, target.identity_files) if blob]
        in_agent = self._agent_keys()
        # Keys the config names come first: a server counts attempts, and an agent may hold many.
        in_agent.sort(key=lambda key: wanted.index(key.asbytes()) if key.asbytes() in wanted else len(wanted))
        offered = set()
        for key in in_agent:
            if target.identities_only and key.asbytes() not in wanted:
                continue
            offered.add(key.asbytes())
            self._tried.append(f"agent key {fingerprint(key.asbytes())}")
            yield partial(transport.auth_publickey, user, key)
        for path in target.identity_files:
            if not path.is_file() or public_blob(path) in offered:
                continue
            loaded = self._key_file(path)
            if loaded is not None:
                self._tried.append(f"key {path}")
                yield partial(transport.auth_publickey, user, loaded)

    def _agent_keys(self) -> list[Any]:
        path = self._target.identity_agent
        if path is None:
            return []
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # An agent that asks its owner to confirm each use may take its time, but not longer than we have.
            connection.settimeout(self._deadline.remaining)
            connection.connect(path)
            # paramiko.Agent only knows SSH_AUTH_SOCK; its base class takes any socket.
            self._agent = paramiko.agent.AgentSSH()
            self._agent._connect(connection)
            return list(self._agent.get_keys())
        except (OSError, paramiko.SSHException):
            connection.close()
            self._tried.append("agent (not reachable)")
            return []

    def _key_file(self, path: Path) -> paramiko.PKey | None:
        try:
            try:
                key = load_key(path, None)
            except paramiko.PasswordRequiredException:
                passphrase = ask(f"Passphrase for {path}: ") if self._may_ask else None
                if not passphrase:
                    self._locked.append(path)
                    self._tried.append(f"key {path} (not used: it has a passphrase and nobody could be asked)")
                    return None
                key = load_key(path, passphrase)
        except OSError as error:
            self._tried.append(f"key {path} (cannot be read: {error.strerror})")
            return None
        except paramiko.SSHException:
            if b"PRIVATE KEY" in read_bounded(path, MAX_BYTES):
                self._tried.append(f"key {path} (not a usable private key, or a wrong passphrase)")
            return None  # a public key alone only says which agent key is meant
        certificate = path.with_name(path.name + "-cert.pub")
        if certificate.is_file():
            key.load_certificate(str(certificate))
        return key

    def _questions(self) -> Iterator[Callable[[], Sequence[str]]]:
        answered = True

        def handler(title: str, instructions: str, questions: list[tuple[str, bool]]) -> list[str]:
            nonlocal answered
            head = " ".join(part for part in (title, instructions) if part)
            answers = [ask(f"{head} {question}".strip() + " ") for question, _ in questions]
            answered = None not in answers
            return [answer or "" for answer in answers]

        for _ in range(_PROMPTS):
            if self._nobody_to_ask("keyboard-interactive"):
                return
            yield lambda: self._transport.auth_interactive(self._target.user, handler)
            if not answered:
                return

    def _passwords(self) -> Iterator[Callable[[], Sequence[str]]]:
        for _ in range(_PROMPTS):
            if self._nobody_to_ask("password"):
                return
            password = ask(f"Password of {self._target.user} at {self._target.host}: ")
            if not password:
                return
            yield partial(self._transport.auth_password, self._target.user, password, fallback=False)

    def _nobody_to_ask(self, method: str) -> bool:
        if not self._may_ask:
            self._tried.append(f"{method} (not used: no terminal to ask on)")
            return True
        if method not in self._tried:
            self._tried.append(method)
        return False

    def _failed(self, allowed: list[str], ended: str | None) -> DeviceError:
        target = self._target
        tried = "; ".join(self._tried) or "nothing: no agent and no key file"
        message = f"{target.user} could not log in at {target.host}:{target.port}. Tried: {tried}"
        if allowed:
            message += f". The server accepts: {', '.join(allowed)}"
        if ended:
            message += f". Then {ended}"
        if self._locked:
            hint = f"Unlock the key first, with a running ssh-agent: ssh-add {self._locked[0]}; then try again."
        elif ended and len(self._tried) > 1:
            hint = "A server that hangs up has often seen too many keys: set IdentityFile and IdentitiesOnly yes."
        elif "publickey" in allowed or ended:
            hint = (
                f"Check with: ssh -v {target.user}@{target.host} -p {target.port}; ssh-copy-id installs your key there."
            )
        else:
            hint = "This server wants a password: run edgequant on a terminal, or let the server accept a key."
        return DeviceError(
            "AUTH_FAILED",
            message,
            hint=hint,
            where=self._where,
            evidence={"user": target.user, "tried": list(self._tried), "accepted_methods": allowed},
        )
