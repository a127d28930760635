"""From texts that devices print to facts: real ones of many kinds, and some that nobody would believe."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgequant.devices import facts_cpu
from edgequant.devices.facts import split
from edgequant.devices.facts_model import FACTS, DeviceFacts, unknown
from edgequant.devices.facts_parse import Section, android_properties, parsed
from edgequant.devices.places import places_in

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


def test_governors_that_differ_are_all_told() -> None:
    found = {**PIXEL_VALUES, f"{CPU}cpufreq/policy6/scaling_governor": "performance"}
    facts = parsed(pixel(values=values(found)))
    assert facts.governor == "sched_pixel (cores 0-5), performance (cores 6-7)"


def test_sleeping_cores_count() -> None:
    """/proc/cpuinfo leaves them out; what shares a frequency is of one kind."""
    awake = "".join(arm_core(n, 0xD05) for n in range(4)) + arm_core(6, 0xD44)
    facts = parsed(pixel(cpuinfo=awake))
    assert facts.cores == 8
    assert facts.clusters is not None
    assert [(each.cores, each.name) for each in facts.clusters] == [
        ([0, 1, 2, 3], "Cortex-A55"),
        ([4, 5], None),
        ([6, 7], "Cortex-X1"),
    ]
    midr = {**PIXEL_VALUES, f"{CPU}cpu4/regs/identification/midr_el1": "0x00000000414fd0b1"}
    facts = parsed(pixel(cpuinfo=awake, values=values(midr)))
    assert facts.cpu == "2x Cortex-X1 + 2x Cortex-A76 + 4x Cortex-A55"


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


def test_x86_has_a_policy_for_each_core_and_one_cluster() -> None:
    core = (
        "processor\t: {0}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 142\n"
        "model name\t: Intel(R) Core(TM) i7-8565U CPU @ 1.80GHz\nflags\t\t: fpu sse2 avx2 fma f16c\n\n"
    )
    found = {f"{CPU}present": "0-3", "/sys/class/dmi/id/product_name": "ThinkPad", "/sys/class/dmi/id/sys_vendor": "L"}
    for n in range(4):
        found |= {
            f"{CPU}cpufreq/policy{n}/related_cpus": str(n),
            f"{CPU}cpufreq/policy{n}/cpuinfo_max_freq": "4600000",
            f"{CPU}cpufreq/policy{n}/scaling_governor": "powersave",
        }
    text = "".join(core.format(n) for n in range(4))
    facts = parsed(said(uname="Linux pc 6.1.0 x86_64\n", cpuinfo=text, values=values(found)))
    assert facts.clusters is not None
    assert [each.cores for each in facts.clusters] == [[0, 1, 2, 3]]
    assert facts.cpu == "4x Intel(R) Core(TM) i7-8565U CPU @ 1.80GHz"
    assert facts.features == ["avx2", "fma", "f16c"]
    assert (facts.model, facts.manufacturer) == ("ThinkPad", "L")


def test_features_are_those_that_every_core_has() -> None:
    text = arm_core(0, 0xD05, "fp asimd") + arm_core(1, 0xD0B, "fp asimd asimddp")
    assert facts_cpu.cpuinfo(text).features == ["asimd"]
    assert facts_cpu.cpuinfo(arm_core(0, 0xD03, "fp")).features == []  # that none matters here is an answer


@pytest.mark.parametrize(
    ("implementer", "part", "name"),
    [
        ("0x41", "0xd03", "Cortex-A53"),
        ("0x41", "0xd0b", "Cortex-A76"),
        ("0x51", "0x804", "Kryo-4xx Gold"),
        ("0x46", "0x001", "A64FX"),
        ("0x41", "0xfff", "ARM part 0x41:0xfff"),
        ("0x99", "0xd03", "ARM part 0x99:0xd03"),
        ("", "0xd03", None),
        ("0x41", "many", None),
        ("0x41", "0x" + "f" * 1000, None),
    ],
)
def test_parts(implementer: str, part: str, name: str | None) -> None:
    assert facts_cpu.part_name(implementer, part) == name


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0 2 5", [0, 2, 5]),
        ("0-1,4", [0, 1, 4]),
        ("", []),
        ("x", []),
        ("9" * 40, []),
        ("3-1", []),
    ],
)
def test_core_lists(text: str, cores: list[int]) -> None:
    assert facts_cpu.core_list(text) == cores
    if len(cores) > 2:
        assert facts_cpu.core_list(facts_cpu.ranges(cores)) == cores


def test_a_core_list_is_bounded() -> None:
    assert len(facts_cpu.core_list("0-9999")) == 4096


def test_properties_with_several_lines_and_carriage_returns() -> None:
    found = android_properties("[ro.board.platform]: [kona]\r\n[x]: [a\n[b]: c]\r\n")
    assert found == {"ro.board.platform": "kona", "x": "a\n[b]: c"}
    facts = parsed(said(getprop=getprop({"ro.board.platform": "kona", "ro.build.version.sdk": "many"})))
    complete(facts)
    assert facts.soc == "kona"
    assert "many" in facts.why_null["sdk"]
    assert parsed(said(getprop=Section(b"", 0))).why_null.keys() >= {"model", "soc", "android", "sdk", "abis"}


HUGE = "9" * 5000


def test_huge_numbers_and_odd_bytes() -> None:
    """A device that lies, or is broken: no fact is out of bounds, and the others stay."""
    found = {key: HUGE for key in PIXEL_VALUES if not key.endswith(("type", "related_cpus"))}
    texts = {"meminfo": f"MemTotal: {HUGE} kB\n", "page_size": HUGE}
    facts = parsed(pixel(values=values(found), **texts))
    complete(facts)
    assert facts.model == "Pixel 6"
    for name in ("ram_mb", "page_size", "uptime_s", "max_mhz", "thermal", "battery", "selinux"):
        assert getattr(facts, name) is None, name
    odd = getprop({"ro.product.model": "\x1b[31mred\u202e" + "x" * 100_000})
    facts = parsed(pixel(getprop=odd, uname=b"\xff\xfe \x00\xc0 \xff", cpuinfo=b"processor : \xff\nFeatures\t:\xfe\n"))
    complete(facts)
    assert facts.model is not None
    assert len(facts.model) <= 300
    assert "\x1b" not in facts.model


def test_too_many_of_everything() -> None:
    zones = {f"/sys/class/thermal/thermal_zone{n}/temp": "40000" for n in range(20_000)}
    cpus = "".join(arm_core(n, 0xD03) for n in range(9000))
    facts = parsed(pixel(values=values(zones), cpuinfo=cpus))
    complete(facts)
    assert facts.thermal is not None
    assert len(facts.thermal) == 500
    assert facts.cores == 4096


GARBAGE = st.binary(max_size=300) | st.sampled_from(
    [PIXEL_CPUINFO.encode(), MEMINFO.encode(), ELF32, b"\x7fELF", b"[a]: [b]", f"{CPU}present\t0-9999".encode()]
)
NAMES = (
    *("uname", "getprop", "os-release", "cpuinfo", "meminfo", "dt-compatible", "dt-model", "page-size", "smaps", "elf"),
    *("folders", "values", "getenforce", "dumpsys-battery", "dumpsys-thermal"),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.builds(Section, GARBAGE, st.none() | st.integers(0, 255))))
def test_whatever_it_says(sections: dict[str, Section]) -> None:
    complete(parsed(sections))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(PIXEL_VALUES)), st.text(max_size=20))))
def test_whatever_its_files_say(found: list[tuple[str, str]]) -> None:
    lines = "".join(f"{path}\t{value}\n" for path, value in found).encode()
    complete(parsed(pixel(values=Section(lines))))


@settings(deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=200))
def test_whatever_its_places_are(said_of_places: bytes, mounts: bytes) -> None:
    places_in(said_of_places, mounts)
    places_in(b"root=/x\0near=/\0state=new\0" + said_of_places, mounts)
    split(said_of_places, "m")


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
