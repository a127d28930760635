"""What an Android device says about itself: its system properties, each read or not, with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device

_LINE = re.compile(r"^\[([^\]\n]+)\]: \[(.*?)\]$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class AndroidFacts:
    """Each fact, or None; `missing` then has the reason under the name of the field."""

    model: str | None = None
    manufacturer: str | None = None
    soc: str | None = None
    android: str | None = None
    sdk: int | None = None
    abis: tuple[str, ...] | None = None
    build: str | None = None
    missing: dict[str, str] = field(default_factory=dict)


def android_facts(device: Device, deadline: Deadline) -> AndroidFacts:
    """Read them from an open device.  Raises what Device.run raises."""
    result = device.run(["getprop"], deadline, max_output=4 << 20)
    names = [name for name in AndroidFacts.__dataclass_fields__ if name != "missing"]
    if result.exit_code in (126, 127):
        return AndroidFacts(missing=dict.fromkeys(names, "there is no getprop: this is not Android"))
    if not result.ok:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()
        why = f"getprop failed: {said[-1] if said else f'exit code {result.exit_code}'}"
        return AndroidFacts(missing=dict.fromkeys(names, why))
    return parsed(result.stdout.decode("utf-8", "replace"))


def parsed(text: str) -> AndroidFacts:
    """From what getprop prints."""
    properties: dict[str, str] = {key: value.strip() for key, value in _LINE.findall(text.replace("\r\n", "\n"))}
    missing: dict[str, str] = {}

    def first(name: str, *keys: str) -> str | None:
        for key in keys:
            if properties.get(key):
                return properties[key]
        missing[name] = f"the device does not set {' or '.join(keys)}"
        return None

    model = first("model", "ro.product.model", "ro.product.vendor.model")
    manufacturer = first("manufacturer", "ro.product.manufacturer", "ro.product.vendor.manufacturer")
    # Named properly since Android 12; before that there is only the platform's code name.
    soc = first("soc", "ro.soc.model", "ro.board.platform", "ro.hardware")
    maker = properties.get("ro.soc.manufacturer")
    if soc and maker and soc == properties.get("ro.soc.model"):
        soc = f"{maker} {soc}"
    android = first("android", "ro.build.version.release")
    sdk = first("sdk", "ro.build.version.sdk")
    if sdk is not None and not sdk.isdecimal():
        missing["sdk"] = f"ro.build.version.sdk is no number: {sdk[:40]}"
    abis = first("abis", "ro.product.cpu.abilist", "ro.product.cpu.abi")
    return AndroidFacts(
        model=model,
        manufacturer=manufacturer,
        soc=soc,
        android=android,
        sdk=int(sdk) if sdk is not None and sdk.isdecimal() else None,
        abis=tuple(part.strip() for part in abis.split(",") if part.strip()) if abis else None,
        build=first("build", "ro.build.fingerprint", "ro.build.display.id"),
        missing=missing,
    )
