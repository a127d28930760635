"""Hosts in an ssh config of a test's own, and whether they can be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.ssh import SshDevice
from edgequant.errors import EdgequantError
from tests.beds.sshd import SshServer
from tests.devices.support import soon
from tests.waiting import LONG


def device(tmp_path: Path, text: str, host: str = "here", *, accept: bool = False) -> SshDevice:
    config = tmp_path / "config"
    config.write_text(text)
    return SshDevice(f"ssh://{host}", config_path=config, accept_new_host_key=accept)


def here(sshd: SshServer, **changes: object) -> str:
    """A config for the alias `here`."""
    options: dict[str, object] = {
        "HostName": sshd.host,
        "Port": sshd.port,
        "User": sshd.user,
        "IdentityFile": sshd.key,
        "IdentityAgent": "none",
        "UserKnownHostsFile": sshd.known_hosts,
        "GlobalKnownHostsFile": "none",
    }
    options.update(changes)
    return "Host here\n" + "".join(f"  {key} {value}\n" for key, value in options.items() if value is not None)


def opens(it: SshDevice) -> bool:
    with it:
        it.open(soon())
        return it.run(["echo", "works"], soon()).stdout == b"works\n"


def refused(it: SshDevice, seconds: float = LONG) -> EdgequantError:
    with pytest.raises(EdgequantError) as caught:
        it.open(Deadline(seconds))
    error = caught.value
    assert error.hint or error.code == "TIMEOUT"
    it.close()
    return error
