"""From texts that devices print to facts: phones and boards as they are, and reasons for what is missing."""

from __future__ import annotations

import pytest

from edgequant.devices.facts import split
from edgequant.devices.facts_model import FACTS, DeviceFacts, unknown
from edgequant.devices.facts_parse import Section, android_properties, parsed
from edgequant.devices.places import places_in
from tests.devices.facts_texts import (
    CPU,
    ELF32,
    ELF64,
    PIXEL_VALUES,
    arm_core,
    complete,
    getprop,
    pixel,
    said,
    values,
)


def test_a_phone_with_three_kinds_of_core() -> None:
    facts = parsed(pixel())
    complete(facts)
    assert (facts.model, facts.manufacturer, facts.soc) == ("Pixel 6", "Google", "Google Tensor")
    assert (facts.os, facts.android, facts.sdk) == ("Android 14 (SDK 34)", "14", 34)
    assert (facts.kernel, facts.arch) == ("Linux 5.10.157-android13-4", "aarch64")
    assert facts.abis == ["arm64-v8a", "armeabi-v7a", "armeabi"]
    assert facts.cpu == "2x Cortex-X1 + 2x Cortex-A76 + 4x Cortex-A55"
    assert facts.clusters is not None
    shown = [(each.cores, each.name, each.max_mhz, each.limit_mhz, each.capacity) for each in facts.clusters]
    assert shown == [
        ([0, 1, 2, 3], "Cortex-A55", 1803, 1803, 160),
        ([4, 5], "Cortex-A76", 2253, 2253, 498),
        ([6, 7], "Cortex-X1", 2802, 1500, 1024),
    ]
    assert (facts.cores, facts.max_mhz, facts.governor) == (8, 2802, "sched_pixel")
    assert facts.features == ["asimd", "asimdhp", "asimddp", "fphp"]
    assert (facts.ram_mb, facts.page_size, facts.userland_bits) == (7553, 4096, 64)
    assert facts.thermal is not None
    assert [(zone.zone, zone.celsius) for zone in facts.thermal] == [("BIG", 41.0)]  # -274 C is a sensor that is off
    assert facts.battery is not None
    assert facts.battery.model_dump() == {"level": 83, "status": "Discharging", "celsius": 28.7, "volts": 4.123}
    assert (facts.uptime_s, facts.selinux) == (93784.55, "enforcing")
    assert set(facts.why_null) == {"work_dir", "free_mb", "storage_mb"}


def test_battery_and_heat_from_dumpsys() -> None:
    """Where the shell's user may not look into /sys."""
    battery = (
        "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  status: 2\n  health: 2\n"
        "  present: true\n  level: 42\n  scale: 50\n  voltage: 3987\n  temperature: 305\n  technology: Li-ion\n"
    )
    thermal = (
        "IsStatusOverride: false\nCurrent temperatures from HAL:\n"
        "\tTemperature{mValue=38.299, mType=0, mName=BIG, mStatus=0}\n"
        "\tTemperature{mValue=NaN, mType=3, mName=skin, mStatus=0}\n"
    )
    closed = Section(b"/sys/class/thermal closed\n/sys/class/power_supply closed\n")
    hidden = {key: text for key, text in PIXEL_VALUES.items() if "/class/" not in key}
    facts = parsed(pixel(values=values(hidden), folders=closed, dumpsys_battery=battery, dumpsys_thermal=thermal))
    assert facts.battery is not None
    assert facts.battery.model_dump() == {"level": 84, "status": "Charging", "celsius": 30.5, "volts": 3.987}
    assert facts.thermal is not None
    assert [(zone.zone, zone.celsius) for zone in facts.thermal] == [("BIG", 38.3)]
    facts = parsed(pixel(values=values(hidden), folders=closed))
    complete(facts)
    assert facts.why_null["thermal"] == "the device hides /sys/class/thermal (permission denied)"
    assert facts.why_null["battery"] == "the device hides /sys/class/power_supply (permission denied)"
    assert parsed(pixel(values=values(hidden), dumpsys_battery="present: false")).why_null["battery"] == (
        "dumpsys battery: it has none"
    )


def test_a_battery_that_is_a_mouse_is_none() -> None:
    found = {
        "/sys/class/power_supply/hid-1/type": "Battery",
        "/sys/class/power_supply/hid-1/scope": "Device",
        "/sys/class/power_supply/hid-1/capacity": "50",
        "/sys/class/power_supply/ac/type": "Mains",
    }
    assert parsed(pixel(values=values(found))).battery is None


def test_reasons_are_concrete() -> None:
    denied = Section(f"{CPU}cpufreq/policy0/scaling_governor\n{CPU}cpufreq/policy0/cpuinfo_max_freq\t\n".encode())
    facts = parsed(pixel(values=denied, meminfo=Section(b"cat: /proc/meminfo: Permission denied\n", 1), elf=b""))
    complete(facts)
    assert facts.why_null["governor"] == f"the device hides {CPU}cpu*/cpufreq (permission denied)"
    assert facts.why_null["max_mhz"] == f"{CPU}cpu*/cpufreq gives no value"
    assert facts.why_null["ram_mb"] == "the device hides /proc/meminfo (permission denied)"
    assert "no program there could be looked at" in facts.why_null["userland_bits"]
    assert facts.why_null["uptime_s"] == "there is no /proc/uptime"


RASPBERRY = said(
    uname="Linux raspberrypi 6.6.20+rpt-rpi-v8 aarch64\n",
    os_release='PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    cpuinfo="".join(arm_core(n, 0xD08, "fp asimd evtstrm crc32 cpuid") for n in range(4))
    + "Revision\t: c03114\nSerial\t\t: 10000000abcdef01\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    meminfo="MemTotal:        3885396 kB\n",
    page_size="4096\n",
    dt_compatible=b"raspberrypi,4-model-b\0brcm,bcm2711\0",
    dt_model=b"Raspberry Pi 4 Model B Rev 1.4\0",
    elf=ELF64,
    values=values(
        {
            f"{CPU}present": "0-3",
            f"{CPU}cpufreq/policy0/related_cpus": "0 1 2 3",
            f"{CPU}cpufreq/policy0/cpuinfo_max_freq": "1800000",
            f"{CPU}cpufreq/policy0/scaling_max_freq": "1800000",
            f"{CPU}cpufreq/policy0/scaling_governor": "ondemand",
            "/sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "/sys/class/thermal/thermal_zone0/temp": "52582",
            "/proc/uptime": "3600.00 14000.00",
        }
    ),
)


def test_a_raspberry_pi() -> None:
    facts = parsed(RASPBERRY)
    complete(facts)
    assert (facts.model, facts.soc) == ("Raspberry Pi 4 Model B Rev 1.4", "brcm,bcm2711")
    assert facts.manufacturer == "raspberrypi"
    assert facts.os == "Debian GNU/Linux 12 (bookworm)"
    assert (facts.cpu, facts.governor, facts.max_mhz) == ("4x Cortex-A72", "ondemand", 1800)
    assert facts.features == ["asimd"]
    assert facts.thermal is not None
    assert facts.thermal[0].celsius == 52.6
    assert facts.android is None
    assert facts.why_null["android"] == "there is no getprop: this is not Android"
    assert "serial" not in facts.model_dump_json().lower()


def test_a_32_bit_system_on_a_64_bit_kernel() -> None:
    facts = parsed({**RASPBERRY, "elf": Section(ELF32)})
    assert (facts.arch, facts.userland_bits, facts.abis) == ("aarch64", 32, ["arm"])


def test_32_bit_arm_of_old_kernels() -> None:
    """One block for all cores, and the machine's name in it; cpufreq in each core's own directory."""
    text = (
        "Processor\t: ARMv7 Processor rev 10 (v7l)\nprocessor\t: 0\nBogoMIPS\t: 790.52\n\nprocessor\t: 1\n"
        "BogoMIPS\t: 790.52\n\nFeatures\t: swp half thumb fastmult vfp edsp neon vfpv3 \nCPU implementer\t: 0x41\n"
        "CPU architecture: 7\nCPU variant\t: 0x2\nCPU part\t: 0xc09\nCPU revision\t: 10\n\n"
        "Hardware\t: Freescale i.MX 6Quad/DualLite (Device Tree)\nRevision\t: 0000\nSerial\t\t: 0000000000000000\n"
    )
    found = {
        f"{CPU}cpu{n}/cpufreq/{name}": value
        for n in (0, 1)
        for name, value in {"related_cpus": "0 1", "cpuinfo_max_freq": "996000", "scaling_governor": "ondemand"}.items()
    }
    facts = parsed(said(uname="Linux imx 3.0.35 armv7l\n", cpuinfo=text, values=values(found)))
    complete(facts)
    assert (facts.cpu, facts.cores, facts.arch) == ("2x Cortex-A9", 2, "armv7l")
    assert facts.soc == "Freescale i.MX 6Quad/DualLite (Device Tree)"
    assert facts.features == ["neon"]
    assert (facts.max_mhz, facts.governor) == (996, "ondemand")


def test_properties_with_several_lines_and_carriage_returns() -> None:
    found = android_properties("[ro.board.platform]: [kona]\r\n[x]: [a\n[b]: c]\r\n")
    assert found == {"ro.board.platform": "kona", "x": "a\n[b]: c"}
    facts = parsed(said(getprop=getprop({"ro.board.platform": "kona", "ro.build.version.sdk": "many"})))
    complete(facts)
    assert facts.soc == "kona"
    assert "many" in facts.why_null["sdk"]
    assert parsed(said(getprop=Section(b"", 0))).why_null.keys() >= {"model", "soc", "android", "sdk", "abis"}


def test_the_longest_mount_that_comes_last_counts() -> None:
    mounts = (
        b"/dev/a / ext4 rw,noexec 0 0\n/dev/b /data ext4 rw 0 0\n/dev/c /data ext4 ro,noexec 0 0\n"
        b"/dev/d /with\\040blank vfat rw,nosuid 0 0\nnonsense\n"
    )

    def found(near: bytes) -> tuple[str, bool, bool]:
        (place,) = places_in(b"root=/x\0near=" + near + b"\0state=new\0df=\0packs=\0\0", mounts)
        return place.mount, place.noexec, place.read_only

    assert found(b"/data/local") == ("/data", True, True)
    assert found(b"/database") == ("/", True, False)
    assert found(b"/with blank/x") == ("/with blank", False, False)


def test_a_fact_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="no reason is given"):
        DeviceFacts(model="x")
    assert unknown("why").known(model="x").why_null.keys() == set(FACTS) - {"model"}
    assert unknown("why").without("because", "model").why_null["model"] == "because"


def test_sections() -> None:
    text = b"a login banner\n\nm uname\nLinux\n\nm = 0\n\nm cpuinfo\nno\n\nm = 1\n\nm elf\n\x7f\n\nm end\n"
    found = split(text, "m")
    assert found["uname"] == Section(b"Linux\n", 0)
    assert found["cpuinfo"] == Section(b"no\n", 1)
    assert found["elf"].code is None
    assert split(b"", "m") == {}
