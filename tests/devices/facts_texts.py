"""Texts as devices print them, for the tests that read facts from them."""

from __future__ import annotations

from collections.abc import Mapping

from edgequant.devices import facts_cpu
from edgequant.devices.facts_model import FACTS, DeviceFacts
from edgequant.devices.facts_parse import Section

CPU = facts_cpu.CPU
ARM_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


def arm_core(number: int, part: int, features: str = ARM_FEATURES, implementer: int = 0x41) -> str:
    return (
        f"processor\t: {number}\nBogoMIPS\t: 49.15\nFeatures\t: {features}\nCPU implementer\t: {implementer:#x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {part:#05x}\nCPU revision\t: 0\n\n"
    )


# A Pixel 6 (Google Tensor): four A55, two A76, two X1.
PIXEL_CPUINFO = "".join(arm_core(n, 0xD05 if n < 4 else 0xD0B if n < 6 else 0xD44) for n in range(8))
PIXEL_VALUES = {
    f"{CPU}present": "0-7",
    **{f"{CPU}cpu{n}/cpu_capacity": str(160 if n < 4 else 498 if n < 6 else 1024) for n in range(8)},
    **{
        f"{CPU}cpufreq/policy{first}/{name}": value
        for first, related, fastest in ((0, "0 1 2 3", 1803000), (4, "4 5", 2253000), (6, "6 7", 2802000))
        for name, value in {
            "related_cpus": related,
            "cpuinfo_max_freq": str(fastest),
            "scaling_max_freq": str(fastest if first != 6 else 1500000),
            "scaling_governor": "sched_pixel",
        }.items()
    },
    "/sys/class/thermal/thermal_zone0/type": "BIG",
    "/sys/class/thermal/thermal_zone0/temp": "41000",
    "/sys/class/thermal/thermal_zone1/type": "usbc-therm",
    "/sys/class/thermal/thermal_zone1/temp": "-274000",
    "/sys/class/power_supply/battery/type": "Battery",
    "/sys/class/power_supply/battery/capacity": "83",
    "/sys/class/power_supply/battery/status": "Discharging",
    "/sys/class/power_supply/battery/temp": "287",
    "/sys/class/power_supply/battery/voltage_now": "4123456",
    "/proc/uptime": "93784.55 600000.1",
    "/sys/fs/selinux/enforce": "1",
}
PIXEL_PROPERTIES = {
    "ro.product.model": "Pixel 6",
    "ro.product.manufacturer": "Google",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "google/oriole/oriole:14/UQ1A.240205.002/11224170:user/release-keys",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
}
MEMINFO = "MemTotal:        7734528 kB\nMemFree:          210044 kB\n"
ELF64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"
ELF32 = b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x03\x00\x28\x00"


def values(found: Mapping[str, str]) -> Section:
    return Section("".join(f"{path}\t{value}\n" for path, value in found.items()).encode())


def getprop(found: Mapping[str, str]) -> Section:
    return Section("".join(f"[{key}]: [{value}]\n" for key, value in found.items()).encode(), 0)


def said(**texts: str | bytes | Section) -> dict[str, Section]:
    sections = {}
    for name, text in texts.items():
        if not isinstance(text, Section):
            text = Section(text if isinstance(text, bytes) else text.encode(), 0)
        sections[name.replace("_", "-")] = text
    return sections


def pixel(**more: Section | str | bytes) -> dict[str, Section]:
    return said(
        **{
            "uname": "Linux localhost 5.10.157-android13-4 aarch64\n",
            "getprop": getprop(PIXEL_PROPERTIES),
            "cpuinfo": PIXEL_CPUINFO,
            "meminfo": MEMINFO,
            "page_size": "4096\n",
            "elf": ELF64,
            "values": values(PIXEL_VALUES),
            **more,
        }
    )


def complete(facts: DeviceFacts) -> None:
    """Every fact is there, or has its reason."""
    for name in FACTS:
        assert (getattr(facts, name) is None) == bool(facts.why_null.get(name)), name
