"""Devices that are known without connecting to any: this host, and the hosts of ~/.ssh/config."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.errors import DeviceError, InputError

EMULATED = ("emulated:cortex-a76", "an ARM64 CPU under QEMU on this host; also cortex-a53, max, ...")


def attached_phones() -> list[tuple[str, str]]:
    """What the adb server knows, which is started if none runs; a line with the reason where it cannot be asked."""
    from edgequant.devices.adb_attached import attached_devices

    try:
        attached = attached_devices(Deadline(10))
    except DeviceError as error:
        # Not everybody has adb, and who has not does not want to read about it.
        return [] if error.code == "ADB_MISSING" else [("adb://", error.message)]
    return [
        (phone.uri, phone.explanation or f"{phone.model or 'Android device'}, {phone.transport}") for phone in attached
    ]


def known_devices(config: Path | None = None) -> list[tuple[str, str]]:
    """(URI, what it is) of each.  `config` is an SSH configuration file; None for the user's own.

    Raises InputError (SSH_CONFIG_INVALID).
    """
    found = [("local:", f"this host ({os.uname().machine}, {os.cpu_count()} cores)")]
    path = config or Path("~/.ssh/config").expanduser()
    if not path.is_file():
        return found
    import paramiko

    from edgequant.devices.ssh_config import read_lines  # paramiko does not follow Include

    lines: list[str] = []
    aliases: set[str] = set()
    kept = True
    try:
        for line in read_lines(path, Path("~/.ssh").expanduser()):
            block = re.match(r"\s*(host|match)(?:\s*=\s*|\s+)(.+)", line, re.IGNORECASE)
            if block:
                # A Match names no hosts, and asking whether it applies can run a command.
                kept = block[1].lower() == "host"
                aliases.update(shlex.split(block[2]) if kept else ())
            if kept:
                lines.append(line)
        hosts = paramiko.SSHConfig.from_text("\n".join(lines))
    except (paramiko.SSHException, ValueError, KeyError) as error:
        raise InputError("SSH_CONFIG_INVALID", f"cannot be parsed ({type(error).__name__})", where=str(path)) from None
    for alias in sorted(aliases):
        # Patterns are no hosts; neither are names that could not stand in a URI.
        if not any(character in alias for character in "*?!/@: "):
            options = hosts.lookup(alias)
            user = f"{options['user']}@" if "user" in options else ""
            found.append((f"ssh://{alias}", f"{user}{options.get('hostname', alias)}, from {path}"))
    return found
