"""What is attached to an adb server, in which state, and what to do where a device cannot be used."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgequant.deadline import Deadline
from edgequant.devices.adb_server import AdbServer, find_adb, is_network
from edgequant.devices.adb_wire import Address, Refused
from edgequant.devices.protocol import Listed
from edgequant.errors import DeadlineExceeded, DeviceError

_PASSING = ("connecting", "authorizing")
"""States a device leaves by itself within moments."""
_AUTHORIZE = (
    "Unlock it, and accept the question 'Allow USB debugging?' there; without the question, choose 'Revoke USB "
    "debugging authorizations' in its developer options and connect it again."
)

# state: (code, what it means, what to do)
_STATES = {
    "unauthorized": ("ADB_UNAUTHORIZED", "the device has not allowed this computer to debug it", _AUTHORIZE),
    "authorizing": (
        "ADB_AUTHORIZING",
        "the device is still being asked whether this computer may debug it",
        _AUTHORIZE,
    ),
    "offline": (
        "ADB_OFFLINE",
        "the device is attached but does not answer",
        "Wake it up and connect it again; `adb reconnect offline` may help, and for TCP `adb disconnect` first.",
    ),
    "connecting": ("ADB_OFFLINE", "the connection to the device is still being made", "Try again in a moment."),
    "recovery": ("ADB_RECOVERY", "the device runs its recovery system", "Boot it into Android: adb reboot."),
    "rescue": ("ADB_RECOVERY", "the device runs its rescue system", "Boot it into Android: adb reboot."),
    "sideload": (
        "ADB_SIDELOAD",
        "the device waits for a package to be sideloaded",
        "Leave that on the device and boot it into Android.",
    ),
    "bootloader": ("ADB_BOOTLOADER", "the device is in its boot loader", "Boot it into Android: fastboot reboot."),
    "no permissions": (
        "ADB_NO_PERMISSIONS",
        "this user may not open the USB device",
        "On Linux install udev rules for it (Debian and Ubuntu: apt install android-sdk-platform-tools-common), join "
        "the group plugdev, log in again, and restart the adb server with `adb kill-server`.",
    ),
    "detached": (
        "ADB_DETACHED",
        "the adb server has let go of the device, so that other programs can use it",
        "Give it back: adb attach.",
    ),
}


@dataclass(frozen=True)
class Attached:
    """One line of `adb devices -l`; `explanation` says what a state other than `device` means, and what to do."""

    serial: str
    state: str
    model: str | None
    transport: Literal["usb", "tcp", "emulator"]
    explanation: str | None

    @property
    def uri(self) -> str:
        return f"adb://{self.serial}"

    @property
    def usable(self) -> bool:
        return self.state == "device"


def phones() -> list[Listed]:
    """What the user's adb server knows, where one runs: one that was started for this would stay.

    Raises DeviceError (ADB_SERVER_UNREACHABLE, ADB_SERVER_LOST), InputError (ADB_SERVER_INVALID), DeadlineExceeded.
    """
    server, deadline = AdbServer(Address.from_environment(), "adb:"), Deadline(10)
    try:
        attached = listed(server, deadline, start=False)
    except DeviceError as error:
        if not server.address.is_local or not isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError)):
            raise
        try:
            find_adb(deadline, server.where)
        except DeviceError:
            return []  # not everybody has adb, and who has not does not want to read about it
        why = f"no adb server is running at {server.address} to be asked; `edgequant devices doctor adb://` starts one"
        return [Listed("adb://", why)]
    return [
        Listed(phone.uri, phone.explanation or f"{phone.model or 'Android device'}, {phone.transport}")
        for phone in attached
    ]


def listed(server: AdbServer, deadline: Deadline, *, start: bool = True) -> list[Attached]:
    """The devices a server knows; with `start` one that is local and does not run is started.

    Raises:
        DeviceError: ADB_MISSING, ADB_SERVER_UNREACHABLE, ADB_SERVER_NOT_STARTED, ADB_SERVER_LOST.
        DeadlineExceeded: TIMEOUT.
    """
    try:
        text = server.query("host:devices-l", deadline, start=start)
    except Refused as error:
        raise DeviceError(
            "ADB_SERVER_UNREACHABLE",
            f"the server at {server.address} lists no devices: {error}",
            where=server.where,
            hint="Check that it is an adb server that listens there, and not something else.",
        ) from error
    return [_parsed(line) for line in text.splitlines() if line.strip()]


def _parsed(line: str) -> Attached:
    no_serial = "(no serial number)"
    if line.startswith(no_serial):
        serial, rest = no_serial, line[len(no_serial) :].strip()
    else:
        serial, _, rest = line.strip().partition(" ")
        if "\t" in serial:
            serial, _, first = serial.partition("\t")
            rest = f"{first} {rest}"
        rest = rest.strip()
    said = None
    if rest.startswith("no permissions"):
        state = "no permissions"
        # As it comes: no permissions (why); see [URL] usb:1-4
        said = rest.removeprefix(state).partition(";")[0].strip(" ()") or None
    else:
        state = rest.partition(" ")[0]
    details = dict(word.split(":", 1) for word in rest.split() if ":" in word)
    transport: Literal["usb", "tcp", "emulator"] = "usb"
    if serial.startswith("emulator-"):
        transport = "emulator"
    elif "usb" not in details and (is_network(serial) or "._adb" in serial):
        transport = "tcp"
    model = details.get("model")
    return Attached(serial, state, model.replace("_", " ") if model else None, transport, _explained(state, said))


def _explained(state: str, said: str | None = None) -> str | None:
    if state == "device":
        return None
    if state not in _STATES:
        return f"adb calls its state '{state}'"
    _, message, hint = _STATES[state]
    return f"{message}{f' ({said})' if said else ''}. {hint}"


def state_error(device: Attached, where: str) -> DeviceError:
    """The error for a device that is not in the state `device`."""
    code, message, hint = _STATES.get(
        device.state,
        ("ADB_NOT_READY", f"adb calls the state of the device '{device.state}'", "It has to be 'device'."),
    )
    return DeviceError(
        code,
        message if where.endswith(device.serial) else f"{device.serial}: {message}",
        where=where,
        hint=hint,
        transient=device.state in _PASSING,
        evidence={"serial": device.serial, "state": device.state, "explanation": device.explanation},
    )


def choose(server: AdbServer, serial: str | None, deadline: Deadline, *, settle: float) -> str:
    """The serial of the device meant, which is then ready for use.

    Args:
        server: to ask.
        serial: which; None for the only one.  A host:port the server does not know yet is connected.
        deadline: for everything.
        settle: seconds to wait for a device that is just being connected or asked for its permission.

    Raises:
        DeviceError: ADB_NONE_ATTACHED, ADB_SEVERAL_ATTACHED, ADB_UNKNOWN_SERIAL, ADB_CONNECT_FAILED, one of the codes
            of a state, and those of `listed`.
    """
    found = listed(server, deadline)
    known = _only(found, server.where) if serial is None else _named(found, serial)
    if serial is not None and is_network(serial) and (known is None or known.state == "offline"):
        device = reconnect(server, serial, deadline)
    elif known is not None:
        device = known
    else:
        raise _unknown(serial or "", found, server.where)
    if device.state in _PASSING:
        device = _settled(server, device, deadline.shorter(settle)) or device
    if not device.usable:
        deadline.check("waiting for the device to get ready", server.where)
        raise state_error(device, server.where)
    return device.serial


def _only(found: Sequence[Attached], where: str) -> Attached:
    if not found:
        raise DeviceError(
            "ADB_NONE_ATTACHED",
            "no device is attached",
            where=where,
            hint="Connect one by USB, switch on 'USB debugging' in its developer options, and use a cable that carries "
            "data; for TCP write adb://host:port.",
        )
    if len(found) > 1:
        raise DeviceError(
            "ADB_SEVERAL_ATTACHED",
            f"{len(found)} devices are attached: {_names(found)}",
            where=where,
            hint=f"Say which: adb://{found[0].serial}, or set ANDROID_SERIAL.",
            evidence={"attached": [device.serial for device in found]},
        )
    return found[0]


def _named(found: Sequence[Attached], serial: str) -> Attached | None:
    return next((device for device in found if device.serial == serial), None)


def _unknown(serial: str, found: Sequence[Attached], where: str) -> DeviceError:
    return DeviceError(
        "ADB_UNKNOWN_SERIAL",
        f"no device with the serial {serial} is attached (attached: {_names(found) or 'none'})",
        where=where,
        hint="Check the serial, the cable, and that USB debugging is on; `edgequant devices list` shows what is there.",
        evidence={"attached": [device.serial for device in found]},
    )


def _names(found: Sequence[Attached]) -> str:
    shown = [f"{device.serial} ({device.state})" for device in found[:8]]
    return ", ".join([*shown, "..."] if len(found) > len(shown) else shown)


def reconnect(server: AdbServer, serial: str, deadline: Deadline) -> Attached:
    """Connect a device by TCP, anew where the server knows it.  Raises DeviceError (ADB_CONNECT_FAILED)."""
    try:
        # One that is offline would only be "already connected".
        with contextlib.suppress(Refused):
            server.query(f"host:disconnect:{serial}", deadline)
        said = server.query(f"host:connect:{serial}", deadline, limit=None)
    except Refused as error:
        said = str(error)
    device = _named(listed(server, deadline), serial)
    # A device that refuses this computer is "failed to authenticate", but listed with its state.
    if device is None or ("connected to" not in said and device.state == "offline"):
        raise DeviceError(
            "ADB_CONNECT_FAILED",
            f"adb cannot connect to {serial}: {said.strip() or 'no reason given'}",
            where=server.where,
            transient=True,
            hint="Check that the device is in this network and listens: `adb tcpip 5555` with it on USB, or wireless "
            "debugging and `adb pair`.",
        )
    return device


def _settled(server: AdbServer, device: Attached, deadline: Deadline) -> Attached | None:
    """The device once its state is no passing one, or what it is at the deadline; None when it is gone."""
    doing = f"waiting for {device.serial}"
    with contextlib.closing(server.connect(deadline)) as wire, server.telling(doing):
        try:
            # The server tells every change by itself, and how things are at once.
            wire.request(b"host:track-devices", deadline, doing)
            while True:
                found = [_parsed(line) for line in wire.text(deadline, doing).splitlines() if line.strip()]
                now = _named(found, device.serial)
                if now is None or now.state not in _PASSING:
                    return now
        except (DeadlineExceeded, Refused):
            return None
