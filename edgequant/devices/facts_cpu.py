"""What CPU it is, from the texts of a Linux kernel: names of ARM's parts, clusters, features.  Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgequant.devices.facts_model import MAX_CORES, Cluster

_MOST_BLOCKS = MAX_CORES + 16
_MOST_LIST = 20_000
"""Characters of a list of cores."""
CPU = "/sys/devices/system/cpu/"

# "implementer:part", as in /proc/cpuinfo.  From the kernel's arch/arm64/include/asm/cputype.h, util-linux' lscpu-arm.c
# and ARM's technical reference manuals (MIDR_EL1).
_ARM = {
    "0x41": {
        0x926: "ARM926", 0xB36: "ARM1136", 0xB76: "ARM1176", 0xC05: "Cortex-A5", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8",
        0xC09: "Cortex-A9", 0xC0D: "Cortex-A12", 0xC0E: "Cortex-A17", 0xC0F: "Cortex-A15", 0xD01: "Cortex-A32",
        0xD02: "Cortex-A34", 0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD06: "Cortex-A65",
        0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76",
        0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD0E: "Cortex-A76AE", 0xD15: "Cortex-R82", 0xD40: "Neoverse-V1",
        0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD43: "Cortex-A65AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510",
        0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4A: "Neoverse-E1", 0xD4B: "Cortex-A78C",
        0xD4C: "Cortex-X1C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520",
        0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD84: "Neoverse-V3", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725",
        0xD88: "Cortex-A520AE", 0xD89: "Cortex-A720AE", 0xD8E: "Neoverse-N3", 0xD8F: "Cortex-A320",
    },
    "0x42": {0x00F: "Brahma-B15", 0x100: "Brahma-B53", 0x516: "ThunderX2"},
    "0x43": {0x0A1: "ThunderX", 0x0AF: "ThunderX2", 0x0B8: "ThunderX3"},
    "0x46": {0x001: "A64FX"},
    "0x48": {0xD01: "TaiShan-v110", 0xD02: "TaiShan-v120", 0xD40: "Cortex-A76"},
    "0x4e": {0x000: "Denver", 0x003: "Denver 2", 0x004: "Carmel"},
    "0x51": {
        0x00F: "Scorpion", 0x02D: "Scorpion", 0x04D: "Krait", 0x06F: "Krait", 0x201: "Kryo", 0x205: "Kryo",
        0x211: "Kryo", 0x800: "Kryo-2xx Gold", 0x801: "Kryo-2xx Silver", 0x802: "Kryo-3xx Gold",
        0x803: "Kryo-3xx Silver", 0x804: "Kryo-4xx Gold", 0x805: "Kryo-4xx Silver", 0x001: "Oryon", 0xC00: "Falkor",
        0xC01: "Saphira",
    },
    "0x53": {0x001: "Exynos-M1", 0x002: "Exynos-M3", 0x003: "Exynos-M4", 0x004: "Exynos-M5"},
    "0x61": {0x020: "Icestorm", 0x021: "Firestorm", 0x022: "Icestorm", 0x023: "Firestorm", 0x032: "Blizzard",
             0x033: "Avalanche"},
    "0xc0": {0xAC3: "Ampere-1", 0xAC4: "Ampere-1a"},
}  # fmt: skip

_CORES = frozenset(name for parts in _ARM.values() for name in parts.values())

# CPU flags worth knowing for quantized inference, as /proc/cpuinfo spells them on ARM and on x86.
_FEATURES = (
    *("asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2", "neon", "vfpv4"),
    *("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),
)


@dataclass(frozen=True)
class CpuInfo:
    """/proc/cpuinfo: the kind of each core by its number, the flags all have, and lines that speak of the machine."""

    kinds: dict[int, str] = field(default_factory=dict)
    features: list[str] | None = None
    hardware: str | None = None
    model: str | None = None


def part_name(implementer: str, part: str) -> str | None:
    """The name of an ARM core: part_name("0x41", "0xd0b") is "Cortex-A76"; the numbers where it is not known; None for
    what are no numbers."""
    if not re.fullmatch(r"0x[0-9a-f]{1,3}", implementer) or not re.fullmatch(r"0x[0-9a-f]{1,4}", part):
        return None
    known = _ARM.get(f"0x{int(implementer, 16):02x}", {}).get(int(part, 16))
    return known or f"ARM part {implementer}:{part}"


def cpuinfo(text: str) -> CpuInfo:
    """Parse it.  ARM kernels before 3.8 print one block for all cores; 32-bit ones call every core "ARMv7"."""
    kinds: dict[int, str] = {}
    flags: set[str] | None = None
    shared: dict[str, str] = {}
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"), maxsplit=_MOST_BLOCKS)[:_MOST_BLOCKS]:
        lines = (line.partition(":") for line in block.splitlines() if ":" in line)
        items = {key.strip().lower(): value.strip() for key, _, value in lines}
        if (words := items.get("features") or items.get("flags")) is not None:
            flags = set(words.split()) if flags is None else flags & set(words.split())
        number = items.get("processor", "")
        kind = part_name(items.get("cpu implementer", "").lower(), items.get("cpu part", "").lower())
        kind = kind or items.get("model name") or items.get("cpu model") or items.get("uarch")
        if re.fullmatch(r"[0-9]{1,4}", number):
            if int(number) < MAX_CORES and kind:
                kinds[int(number)] = kind[:100]
        elif kind:
            shared.setdefault("kind", kind[:100])
        for key in ("hardware", "model"):
            # Of the machine, not of a core: x86 has a "model" in the block of each.
            if key in items and ("processor" not in items or key == "hardware"):
                shared.setdefault(key, items[key])
    numbers = [int(n) for n in re.findall(r"^processor[ \t]*:[ \t]*([0-9]{1,4})[ \t\r]*$", text, re.MULTILINE)]
    if "kind" in shared:
        kinds = {number: kinds.get(number, shared["kind"]) for number in numbers if number < MAX_CORES} | kinds
    return CpuInfo(
        kinds,
        None if flags is None else [name for name in _FEATURES if name in flags],
        shared.get("hardware"),
        shared.get("model"),
    )


def core_list(text: str) -> list[int]:
    """ "0-3,6" or "0 1 2" as numbers; [] for what is none."""
    found: set[int] = set()
    told = 0
    for part in re.split(r"[,\s]+", text[:_MOST_LIST].strip()):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if not match:
            return []
        cores = range(int(match[1]), min(MAX_CORES, int(match[2] or match[1]) + 1))
        told += len(cores)
        if told > 2 * MAX_CORES:
            return []
        found.update(cores)
    return sorted(number for number in found if number < MAX_CORES)


def core_numbers(kinds: Mapping[int, str], values: Mapping[str, str]) -> list[int]:
    """All cores that are there, sleeping ones (which /proc/cpuinfo leaves out) included."""
    present = core_list(values.get(CPU + "present", ""))
    return present or sorted(kinds)


def clusters(kinds: Mapping[int, str], values: Mapping[str, str]) -> list[Cluster]:
    """Group the cores: by what changes its frequency together, or else by kind, capacity and highest frequency.

    `kinds`: name of each core that is awake.  `values`: files of /sys and what they hold.
    """
    cores = core_numbers(kinds, values)
    names = {core: kinds.get(core) or _from_midr(core, values) for core in cores}
    policies = _policies(values)
    # One policy for each core, as on x86, says nothing of clusters.
    together = any(len(set(members) & set(cores)) > 1 for _, members in policies.values())
    policy_of: dict[int, str] = {core: name for name, (_, members) in policies.items() for core in members}
    groups: dict[tuple[object, ...], list[int]] = {}
    seen: dict[tuple[object, ...], tuple[int | None, int | None, str | None]] = {}
    for core in cores:
        frequency = _mhz(values.get(f"{policy_of.get(core)}/cpuinfo_max_freq"))
        capacity = _number(values.get(f"{CPU}cpu{core}/cpu_capacity"), 100_000)
        governor = values.get(f"{policy_of.get(core)}/scaling_governor")
        policy = policy_of.get(core) if together else None
        key = (policy, names[core] if policy is None else None, capacity, frequency, governor)
        groups.setdefault(key, []).append(core)
        seen[key] = capacity, frequency, governor
    found = []
    for group, members in groups.items():
        capacity, frequency, governor = seen[group]
        found.append(
            Cluster(
                cores=members,
                # A sleeping core is of the kind of those it shares its frequency with.
                name=next((names[core] for core in members if names[core]), None),
                max_mhz=frequency,
                limit_mhz=_mhz(values.get(f"{policy_of.get(members[0])}/scaling_max_freq")),
                capacity=capacity,
                governor=governor[:100] if governor else None,
            )
        )
    return found


def in_words(found: list[Cluster]) -> str | None:
    """ "2x Cortex-X1 + 2x Cortex-A76 + 4x Cortex-A55", the fastest first, or "AMD EPYC 7763 64-Core Processor"; None
    where no core has a name."""
    counted: dict[str, int] = {}
    for cluster in sorted(found, key=lambda each: -(each.max_mhz or each.capacity or 0)):
        if cluster.name:
            counted[cluster.name] = counted.get(cluster.name, 0) + len(cluster.cores)
    return " + ".join(many(name, number) for name, number in counted.items())[:300] or None


def many(name: str, number: int) -> str:
    """So many cores of this name; where it is that of the whole processor, as on x86, it is not said as often."""
    of_a_core = name in _CORES or name.startswith("ARM part ")
    return f"{number}x {name}" if number > 1 and of_a_core else name


def governors(found: list[Cluster]) -> str | None:
    """The governor, or each with the cores it governs."""
    by_name: dict[str, list[int]] = {}
    for cluster in found:
        if cluster.governor:
            by_name.setdefault(cluster.governor, []).extend(cluster.cores)
    if len(by_name) == 1:
        return next(iter(by_name))
    return ", ".join(f"{name} (cores {ranges(cores)})" for name, cores in by_name.items())[:2000] or None


def ranges(cores: list[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _policies(values: Mapping[str, str]) -> dict[str, tuple[str, list[int]]]:
    """Directory of each frequency policy, with its cores."""
    found = {}
    taken: set[int] = set()
    told = 0
    for path in values:
        if not path.endswith("/related_cpus") or "cpufreq" not in path:
            continue
        # A core has one policy; those that list it again would only take memory.
        listed = core_list(values[path])
        told += len(listed)
        if told > 4 * MAX_CORES:
            break
        members = [core for core in listed if core not in taken]
        folder = path.rpartition("/")[0]
        if members:
            found[folder] = (folder, members)
            taken.update(members)
    return found


def _from_midr(core: int, values: Mapping[str, str]) -> str | None:
    """From the register that names an ARM core: implementer in bits 31-24, part in bits 15-4."""
    match = re.fullmatch(r"0x([0-9a-f]{1,16})", values.get(f"{CPU}cpu{core}/regs/identification/midr_el1", ""))
    if not match:
        return None
    register = int(match[1], 16)
    return part_name(f"0x{register >> 24 & 0xFF:02x}", f"0x{register >> 4 & 0xFFF:03x}")


def _number(text: str | None, most: int) -> int | None:
    if text is None or not re.fullmatch(r"[0-9]{1,12}", text.strip()):
        return None
    number = int(text)
    return number if number <= most else None


def _mhz(text: str | None) -> int | None:
    """kHz, as cpufreq has it, in MHz."""
    number = _number(text, 100_000_000)
    return round(number / 1000) or None if number else None
