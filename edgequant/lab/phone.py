"""What Android's services say of a phone: its screen, battery saver and battery.  Asked through its shell."""

from __future__ import annotations

import re

from edgequant.archive.timing import PhoneCapture
from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device
from edgequant.errors import DeadlineExceeded, DeviceError

SECONDS = 15.0
_MOST = 1 << 18
_LINES = "^ *(mWakefulness|mIsPowered|mLowPowerModeEnabled|mBatterySaver|.*Display Power: state)"
_ASK = r"""
command -v dumpsys >/dev/null 2>&1 || exit 0
dumpsys power 2>/dev/null | grep -iE "$1" | head -n 60
echo ===
settings get global low_power 2>/dev/null | head -n 1
echo ===
dumpsys battery 2>/dev/null | head -n 60
"""


def look(device: Device) -> PhoneCapture | None:
    """None where it is no Android, or its shell does not answer.  Raises DeviceError (LINK_LOST)."""
    try:
        said = device.run(["sh", "-c", _ASK, "edgequant", _LINES], Deadline(SECONDS), max_output=_MOST)
    except (DeviceError, DeadlineExceeded) as error:
        if error.code == "LINK_LOST":
            raise
        return None
    return parse(said.stdout.decode("utf-8", "replace"))


def parse(said: str) -> PhoneCapture | None:
    """What `dumpsys power`, the setting low_power and `dumpsys battery` say, with lines of === between them."""
    power, _, rest = said.partition("===")
    low_power, _, battery = rest.partition("===")
    told = dict(re.findall(r"^\s*([\w ]+):\s*(\S+)", battery, re.MULTILINE))
    level, status, tenths = (_number(told.get(name)) for name in ("level", "status", "temperature"))
    plugs = [told[name] == "true" for name in told if name.endswith("powered")]
    found = PhoneCapture(
        screen=_screen(power),
        power_save=_power_save(power, low_power.strip()),
        battery=level if level is not None and level <= 100 else None,
        plugged=any(plugs) if plugs else None,
        charging=None if status is None else status == 2,  # BatteryManager.BATTERY_STATUS_CHARGING
        celsius=None if tenths is None or not 0 < tenths < 1500 else tenths / 10,
    )
    return None if found == PhoneCapture() else found


def _screen(power: str) -> bool | None:
    """A phone that dreams or dozes has put its CPUs to rest, whatever its display shows."""
    if found := re.search(r"mWakefulness=(\w+)", power):
        return found[1] == "Awake"
    if found := re.search(r"Display Power: state=(\w+)", power):
        return found[1] == "ON"
    return None


def _power_save(power: str, setting: str) -> bool | None:
    found = re.findall(
        r"(?:mLowPowerModeEnabled|mBatterySaverEnabled|mIsBatterySaverEnabled)\w*\s*=\s*(true|false)", power
    )
    if found:
        return "true" in found
    return setting == "1" if setting in ("0", "1") else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None
