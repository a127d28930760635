"""From a device's URI to its driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgequant.devices.protocol import Device
from edgequant.errors import InputError
from edgequant.progress import Progress

if TYPE_CHECKING:
    from edgequant.pack import WantedPack

SCHEMES = ("local:", "ssh://[user@]host[:port]", "adb://[SERIAL][@host:port]", "emulated:CPU")


def make_device(
    uri: str,
    *,
    accept_new_host_key: bool = False,
    python: str | None = None,
    wanted: WantedPack | None = None,
    listener: Progress | None = None,
) -> Device:
    """The driver for `uri`, not yet connected.

    wanted: the pack of a device that brings one.  listener: told of what it fetches and builds on this host.

    Raises InputError: DEVICE_URI_INVALID, DEVICE_SCHEME_UNKNOWN.
    """
    if uri.startswith("local:"):
        from edgequant.devices.local import LocalDevice

        return LocalDevice(uri, python=python)
    if uri.startswith("ssh://"):
        # Paramiko takes a third of a second to import: only who uses it pays for it.
        from edgequant.devices.ssh import SshDevice

        return SshDevice(uri, accept_new_host_key=accept_new_host_key, python=python)
    if uri.startswith("adb://"):
        from edgequant.devices.adb import AdbDevice

        return AdbDevice(uri, python=python)
    if uri.startswith("emulated:"):
        from edgequant.devices.emulated import EmulatedDevice

        if python is not None:
            raise InputError("OPTION_INVALID", f"--python: {uri} brings its own Python")
        return EmulatedDevice(uri, wanted=wanted, listener=listener)
    scheme, colon, rest = uri[:200].partition(":")
    name = rest.strip("/") if scheme == "ssh" else scheme
    meant = "local:" if scheme == "local" else f"ssh://{name}" if scheme == "ssh" or not colon else ""
    raise InputError(
        "DEVICE_SCHEME_UNKNOWN",
        f"device '{uri[:200]}': not a device's URI"
        if meant
        else f"device '{uri[:200]}': there is no '{scheme}' device",
        hint=f"{f'Did you mean {meant}?  ' if meant else ''}Possible: {', '.join(SCHEMES)}.",
    )
