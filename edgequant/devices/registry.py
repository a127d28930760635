"""The kinds of devices there are, and from a device's URI to its driver.

A kind is an entry point of the group `edgequant.devices`: its name is what stands before the colon of a URI, its value
a `protocol.Kind`.  Other packages bring kinds the same way; one that cannot be loaded costs only who names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from edgequant.devices.protocol import Device, Kind, Listed, Settings
from edgequant.errors import DeviceError, EdgequantError, InputError
from edgequant.progress import Progress

if TYPE_CHECKING:
    from edgequant.pack import WantedPack

GROUP = "edgequant.devices"
OWN = {
    "local": "edgequant.devices.local:KIND",
    "ssh": "edgequant.devices.ssh:KIND",
    "adb": "edgequant.devices.adb:KIND",
    "emulated": "edgequant.devices.emulated:KIND",
}
"""As pyproject.toml declares them, and known without it: in a source tree the metadata may be of another version, or
there are none.  Nobody else can have these names."""


def make_device(
    uri: str,
    *,
    accept_new_host_key: bool = False,
    python: str | None = None,
    wanted: WantedPack | None = None,
    listener: Progress | None = None,
) -> Device:
    """The driver for `uri`, not yet connected.  For the rest see `protocol.Settings`.

    Raises InputError (DEVICE_URI_INVALID, DEVICE_SCHEME_UNKNOWN, and those of the kind), DeviceError
    (DEVICE_KIND_BROKEN).
    """
    name = uri[:200].partition(":")[0]
    kind = load(name) if name in OWN or name in _others() else None
    if kind is not None and uri.startswith(kind.prefix):
        return kind.make(uri, Settings(accept_new_host_key, python, wanted, listener))
    raise _unknown(uri[:200], name, kind)


def load(name: str) -> Kind:
    """The kind of this name, which there has to be.  Raises DeviceError (DEVICE_KIND_BROKEN)."""
    points = [EntryPoint(name, OWN[name], GROUP)] if name in OWN else _others()[name]
    if len(points) > 1:
        raise _broken(name, points, "several packages have one of this name")
    try:
        kind = points[0].load()
    except Exception as error:
        raise _broken(name, points, f"{type(error).__name__}: {error}") from error
    if not isinstance(kind, Kind):
        raise _broken(name, points, f"it is a {type(kind).__name__} and no Kind")
    return kind


def list_devices() -> Iterator[Listed]:
    """What each kind can name without connecting to it; of a kind that cannot, the reason.

    Raises InputError where a file of the user's own is at fault (SSH_CONFIG_INVALID).
    """
    for name in (*OWN, *_others()):
        prefix = f"{name}:"
        try:
            kind = load(name)
            prefix = kind.prefix
            yield from kind.listed()
        except Exception as error:
            if name in OWN and not isinstance(error, DeviceError):
                raise
            why = f"{error.code}: {error.message}" if isinstance(error, EdgequantError) else repr(error)[:500]
            yield Listed(prefix, why)


def _others() -> dict[str, list[EntryPoint]]:
    """What other packages declare, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name not in OWN:
            found.setdefault(point.name, []).append(point)
    return found


def _broken(name: str, points: list[EntryPoint], why: str) -> DeviceError:
    packages = ", ".join(sorted({point.dist.name if point.dist else point.value for point in points}))
    return DeviceError(
        "DEVICE_KIND_BROKEN",
        f"the '{name}' devices of {packages} cannot be used: {why[:500]}",
        hint="Install that package again, or another version of it; all other kinds of devices work without it.",
    )


def _unknown(uri: str, name: str, kind: Kind | None) -> InputError:
    rest = uri.partition(":")[2].strip("/")
    meant = f"{kind.prefix}{rest}" if kind else "" if ":" in uri else f"ssh://{uri}"
    return InputError(
        "DEVICE_SCHEME_UNKNOWN",
        f"device '{uri}': not a device's URI" if meant else f"device '{uri}': there is no '{name}' device",
        hint=f"{f'Did you mean {meant}?  ' if meant else ''}Possible: {', '.join(_forms())}.",
    )


def _forms() -> Iterator[str]:
    for name in (*OWN, *_others()):
        try:
            yield load(name).form
        except DeviceError:
            continue  # it helps nobody who looks for another one
