"""The hosts that an SSH configuration names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from edgequant.devices.protocol import Listed
from edgequant.devices.ssh_config import read_lines  # paramiko does not follow Include
from edgequant.errors import InputError


def ssh_hosts(config: Path | None = None) -> list[Listed]:
    """Each host of `config`, None for the user's own, sorted by alias.

    Raises InputError (SSH_CONFIG_INVALID).
    """
    path = config or Path("~/.ssh/config").expanduser()
    if not path.is_file():
        return []
    lines: list[str] = []
    aliases: set[str] = set()
    kept = True
    import paramiko

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
    found = []
    for alias in sorted(aliases):
        # Patterns are no hosts; neither are names that could not stand in a URI.
        if not any(character in alias for character in "*?!/@: "):
            options = hosts.lookup(alias)
            user = f"{options['user']}@" if "user" in options else ""
            found.append(Listed(f"ssh://{alias}", f"{user}{options.get('hostname', alias)}, from {path}"))
    return found
