"""known_hosts: is this server who it was last time?  Unknown is refused unless asked for; changed is always refused."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from edgequant.devices.ssh_config import MAX_BYTES, SshHost
from edgequant.errors import DeviceError
from edgequant.files import read_bounded


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file that is about the host in question."""

    file: Path
    line: int
    marker: str
    """"", "@revoked" or "@cert-authority"."""
    kind: str
    blob: bytes

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def fingerprint(blob: bytes) -> str:
    """Fingerprint of a public key blob, as `ssh-keygen -lf` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def find_keys(files: Iterable[Path], name: str) -> list[KnownKey]:
    """All lines about `name` ("host" or "[host]:port"), markers included.  Missing files and odd lines are skipped."""
    found = []
    for file in files:
        try:
            text = read_bounded(file, MAX_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            marker = fields.pop(0) if fields[0].startswith("@") else ""
            if len(fields) < 3 or not _names_match(fields[0], name):
                continue
            try:
                blob = base64.b64decode(fields[2], validate=True)
            except binascii.Error:
                continue
            found.append(KnownKey(file, number, marker, fields[1], blob))
    return found


def _names_match(field: str, name: str) -> bool:
    if field.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in field[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)
    matched = False
    for raw in field.lower().split(","):
        pattern = raw.removeprefix("!")
        # In known_hosts a [ is a bracket of [host]:port, not a character class; only * and ? are wild.
        if fnmatch.fnmatchcase(name.lower(), pattern.replace("[", "[[]")):
            if raw.startswith("!"):
                return False
            matched = True
    return matched


class HostKeyCheck:
    """Decides about the key one server shows.

    Args:
        target: the server.
        where: the device URI for messages.
        accept_new: write an unknown key into the first UserKnownHostsFile instead of refusing it.
    """

    def __init__(self, target: SshHost, where: str, *, accept_new: bool) -> None:
        self._target = target
        self._where = where
        self._accept_new = accept_new
        self._files = (*target.user_known_hosts, *target.global_known_hosts)
        self._known = find_keys(self._files, target.known_as)

    def preferred_kinds(self) -> list[str]:
        """Key types known for this server, first to be asked for: a server with several keys then shows a known one."""
        kinds: list[str] = []
        for known in self._known:
            if not known.marker:
                same = ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] if known.kind == "ssh-rsa" else [known.kind]
                kinds += [kind for kind in same if kind not in kinds]
        return kinds

    def check(self, key: paramiko.PKey) -> None:
        """Accept the server's key, or raise DeviceError HOST_KEY_UNKNOWN, HOST_KEY_MISMATCH or HOST_KEY_REVOKED."""
        blob = key.asbytes()
        shown = fingerprint(blob)
        name = self._target.known_as
        evidence = {"host": name, "key_type": key.get_name(), "fingerprint": shown}
        revoked = next((k for k in self._known if k.marker == "@revoked" and k.blob == blob), None)
        if revoked:
            raise DeviceError(
                "HOST_KEY_REVOKED",
                f"{name} shows the {key.get_name()} key {shown}, which {revoked.place} marks as revoked",
                hint="Do not connect; ask whoever runs the device for its new key.",
                where=self._where,
                evidence={**evidence, "known_hosts": revoked.place},
            )
        plain = [k for k in self._known if not k.marker]
        if any(k.blob == blob for k in plain):
            return
        if plain:
            # A key of another type counts as a change too: known types were asked for first, so the server no
            # longer has the one we know, and that is just what an impostor looks like.
            old = next((k for k in plain if k.kind == key.get_name()), plain[0])
            raise DeviceError(
                "HOST_KEY_MISMATCH",
                f"{name} shows the {key.get_name()} key {shown}, but {old.place} expects the {old.kind} key "
                f"{fingerprint(old.blob)}: another machine answers there, or its key was replaced",
                hint="Ask whoever runs the device; if its key really changed, remove the old one with "
                f"ssh-keygen -R '{name}' -f {old.file} and connect again.",
                where=self._where,
                evidence={**evidence, "expected_fingerprint": fingerprint(old.blob), "known_hosts": old.place},
            )
        if self._known_without_port(blob):
            return
        if not self._accept_new:
            hint = f"Compare {shown} with `ssh-keygen -lf` of the key on the device, then pass --accept-new-host-key."
            if any(k.marker == "@cert-authority" for k in self._known):
                hint += " The @cert-authority line for it cannot help: host certificates are not supported."
            raise DeviceError(
                "HOST_KEY_UNKNOWN",
                f"the host key of {name} is not known: {key.get_name()} {shown}",
                hint=hint,
                where=self._where,
                evidence=evidence,
            )
        self._remember(key)

    def _known_without_port(self, blob: bytes) -> bool:
        # OpenSSH does the same: an entry for the bare host vouches for its other ports, if the key is the same.
        target = self._target
        if target.host_key_alias or target.port == 22:
            return False
        known = find_keys(self._files, target.host.lower())
        if any(k.marker == "@revoked" and k.blob == blob for k in known):
            return False
        return any(not k.marker and k.blob == blob for k in known)

    def _remember(self, key: paramiko.PKey) -> None:
        if not self._target.user_known_hosts:
            return  # "UserKnownHostsFile none": there is nowhere to write, and that is what was asked for
        file = self._target.user_known_hosts[0]
        name = self._target.known_as
        if self._target.hash_known_hosts:
            salt = os.urandom(20)
            digest = hmac.new(salt, name.encode(), "sha1").digest()
            name = "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))
        line = f"{name} {key.get_name()} {key.get_base64()}\n"
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = "\n" + line
                os.write(descriptor, line.encode())  # one append: two of us at once cannot mix their lines
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeviceError(
                "KNOWN_HOSTS_UNWRITABLE",
                f"the new host key cannot be written to {file}: {error.strerror}",
                hint="Make the file writable, or name another one with UserKnownHostsFile in ~/.ssh/config.",
                where=self._where,
            ) from error
