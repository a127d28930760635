"""Devices that are known without connecting to any: this host, and the hosts of ~/.ssh/config."""

from __future__ import annotations

import os
from pathlib import Path


def known_devices(config: Path | None = None) -> list[tuple[str, str]]:
    """(URI, what it is) of each.  `config` is an SSH configuration file; None for the user's own."""
    found = [("local:", f"this host ({os.uname().machine}, {os.cpu_count()} cores)")]
    path = config or Path("~/.ssh/config").expanduser()
    if not path.is_file():
        return found
    import paramiko

    hosts = paramiko.SSHConfig.from_path(str(path))
    for alias in sorted(hosts.get_hostnames()):
        # Patterns are no hosts; neither are names that could not stand in a URI.
        if not any(character in alias for character in "*?!/@: "):
            options = hosts.lookup(alias)
            user = f"{options['user']}@" if "user" in options else ""
            found.append((f"ssh://{alias}", f"{user}{options.get('hostname', alias)}, from {path}"))
    return found
