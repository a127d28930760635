"""Devices that are known without connecting to any: this host, and the hosts of ~/.ssh/config."""

from __future__ import annotations

import os
from pathlib import Path

from edgequant.errors import InputError


def known_devices(config: Path | None = None) -> list[tuple[str, str]]:
    """(URI, what it is) of each.  `config` is an SSH configuration file; None for the user's own.

    Raises InputError (SSH_CONFIG_INVALID).
    """
    found = [("local:", f"this host ({os.uname().machine}, {os.cpu_count()} cores)")]
    path = config or Path("~/.ssh/config").expanduser()
    if not path.is_file():
        return found
    import paramiko

    from edgequant.devices.ssh_config import _read  # paramiko does not follow Include

    try:
        hosts = paramiko.SSHConfig.from_text("\n".join(_read(path, Path("~/.ssh").expanduser())))
    except (paramiko.SSHException, ValueError, KeyError) as error:
        raise InputError("SSH_CONFIG_INVALID", f"cannot be parsed ({type(error).__name__})", where=str(path)) from None
    for alias in sorted(hosts.get_hostnames()):
        # Patterns are no hosts; neither are names that could not stand in a URI.
        if not any(character in alias for character in "*?!/@: "):
            try:
                options = hosts.lookup(alias)
            except (paramiko.SSHException, ValueError, KeyError, ImportError):
                found.append((f"ssh://{alias}", f"its entry in {path} cannot be read"))
                continue
            user = f"{options['user']}@" if "user" in options else ""
            found.append((f"ssh://{alias}", f"{user}{options.get('hostname', alias)}, from {path}"))
    return found
