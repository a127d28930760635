"""From what a device says of itself to facts.  Pure functions over texts that nobody vouches for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgequant.devices import facts_cpu
from edgequant.devices.facts_model import FACTS, MAX_CORES, Battery, DeviceFacts, Thermal
from edgequant.devices.places import Place

_PROPERTY = re.compile(r"\[([^\]\n]{1,1000})\]: \[(.*)")
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(-?[0-9]{1,4}(?:\.[0-9]{1,9})?), mType=[^,\n]{0,100}, mName=([^,}\n]{0,300})"
)
MAX_PROPERTIES = 20_000
_NO_ANDROID = "there is no getprop: this is not Android"
_ELF_MACHINES = {3: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv"}
_BATTERY_STATUS = {2: "Charging", 3: "Discharging", 4: "Not charging", 5: "Full"}
_POWER, _THERMAL = "/sys/class/power_supply/", "/sys/class/thermal/"
MAX_ZONES = 500
_SIZES = ("free_mb", "storage_mb")


@dataclass(frozen=True)
class Section:
    """What a command printed; code: how it ended, None where it was no command or did not end."""

    text: bytes
    code: int | None = None

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def said(self) -> str:
        return self.text.decode("utf-8", "replace")


@dataclass(frozen=True)
class _Files:
    """Files of /proc and /sys: values of those that were read, names of those that were not."""

    values: dict[str, str]
    denied: frozenset[str]
    empty: frozenset[str]
    folders: dict[str, str]

    def why(self, pattern: str, shown: str) -> str:
        """Why there is nothing of a kind: the kernel hides it, has nothing to say, or has no such thing."""
        for folder, state in self.folders.items():
            if state == "closed" and shown.startswith(folder):
                return f"the device hides {folder} (permission denied)"
        if any(re.fullmatch(pattern, path) for path in self.denied):
            return f"the device hides {shown} (permission denied)"
        if any(re.fullmatch(pattern, path) for path in self.empty):
            return f"{shown} gives no value"
        return f"there is no {shown}"


class _Notes:
    """Facts and reasons as they are gathered."""

    def __init__(self) -> None:
        self.facts: dict[str, object] = {}
        self.why: dict[str, str] = {}

    def put(self, name: str, value: object, why: str) -> None:
        if value is None or value in ("", []):
            self.why[name] = clean(why, 500) or "not known"
        else:
            self.facts[name] = value


def clean(text: str, limit: int = 300) -> str:
    """One line without control characters, cut."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text[: limit * 4]).strip()[:limit]


def parsed(sections: Mapping[str, Section], place: Place | None = None, places: Sequence[Place] = ()) -> DeviceFacts:
    """The facts in what `facts.read` brought."""
    notes = _Notes()
    files = _files(sections)
    properties = android_properties(sections["getprop"].said) if "getprop" in sections else None
    _system(notes, sections, properties)
    _machine(notes, sections, properties, files)
    _cpu(notes, sections, files)
    _memory(notes, sections)
    _storage(notes, place, places)
    _heat(notes, sections, files)
    _power(notes, sections, files)
    _security(notes, sections, files)
    seconds = _number(files.values.get("/proc/uptime", "").split(" ")[0], 1e11)
    notes.put("uptime_s", seconds, files.why(r"/proc/uptime", "/proc/uptime"))
    for name in FACTS:
        if name not in notes.facts:
            notes.why.setdefault(name, "the device does not tell")
    return DeviceFacts.model_validate({**notes.facts, "why_null": notes.why})


def android_properties(text: str) -> dict[str, str]:
    """What getprop prints, by name; values may have several lines."""
    found: dict[str, str] = {}
    key, parts = "", list[str]()
    for line in text.replace("\r\n", "\n")[: 4 << 20].split("\n"):
        # Within a value only its end is looked for, so that each line is looked at once.
        if not key:
            begun = _PROPERTY.fullmatch(line)
            if begun is None:
                continue
            key, line = begun[1], begun[2]
        parts.append(line)
        if line.endswith("]"):
            found[key] = "\n".join(parts)[:-1].strip()
            key, parts = "", []
            if len(found) >= MAX_PROPERTIES:
                break
    return found


def _files(sections: Mapping[str, Section]) -> _Files:
    values: dict[str, str] = {}
    denied, empty = set(), set()
    for line in sections.get("values", Section(b"")).said.splitlines()[:100_000]:
        path, tab, value = line.partition("\t")
        if not tab:
            denied.add(path)
        elif value.strip("\0 "):
            values[path] = value.strip("\0 ")[:2000]
        else:
            empty.add(path)
    listed = (line.rpartition(" ") for line in sections.get("folders", Section(b"")).said.splitlines()[:100])
    return _Files(values, frozenset(denied), frozenset(empty), {name: state for name, _, state in listed if name})


def _why(sections: Mapping[str, Section], name: str, shown: str) -> str:
    """Why a command or file gave nothing usable."""
    section = sections.get(name)
    if section is None:
        return f"there is no {shown}"
    if not section.ok:
        last = clean(section.said.strip().splitlines()[-1] if section.said.strip() else "", 200)
        if "ermission denied" in last:
            return f"the device hides {shown} (permission denied)"
        how = f"exit status {section.code}" if section.code is not None else "it did not end"
        return f"{shown}: {last or how}"
    return f"{shown} does not say"


def _system(notes: _Notes, sections: Mapping[str, Section], properties: Mapping[str, str] | None) -> None:
    words = sections["uname"].said.split() if "uname" in sections and sections["uname"].ok else []
    why = _why(sections, "uname", "uname")
    if len(words) >= 4:
        # In the order of POSIX: system, node, release, machine.
        notes.put("kernel", clean(f"{words[0]} {' '.join(words[2:-1])}"), why)
        notes.put("hostname", clean(words[1]) if words[1] != "(none)" else None, "it has no name")
        notes.put("arch", clean(words[-1], 100), why)
    else:
        for name in ("kernel", "hostname", "arch"):
            notes.put(name, None, why)
    if properties is None:
        for name in ("android", "sdk", "build"):
            notes.put(name, None, _NO_ANDROID)
        text = sections.get("os-release", Section(b"")).said
        found = re.search(r'^PRETTY_NAME="?([^"\n]+)', text, re.MULTILINE) or re.search(
            r'^NAME="?([^"\n]+)', text, re.MULTILINE
        )
        notes.put("os", clean(found[1]) if found else None, _why(sections, "os-release", "/etc/os-release"))
        return
    release, sdk = properties.get("ro.build.version.release"), properties.get("ro.build.version.sdk", "")
    number = _number(sdk, 10_000)
    said = "getprop" if sections["getprop"].ok else _why(sections, "getprop", "getprop")
    notes.put("android", clean(release) if release else None, f"{said}: ro.build.version.release is not set")
    why_sdk = f"ro.build.version.sdk is no number: {clean(sdk, 40)}" if sdk else "ro.build.version.sdk is not set"
    notes.put("sdk", int(number) if number else None, f"{said}: {why_sdk}")
    shown = f"Android {clean(release)}" + (f" (SDK {int(number)})" if number else "") if release else None
    notes.put("os", shown, f"{said}: ro.build.version.release is not set")
    _property(notes, properties, "build", "ro.build.fingerprint", "ro.build.display.id")


def _property(notes: _Notes, properties: Mapping[str, str], name: str, *keys: str) -> None:
    value = next((clean(properties[key]) for key in keys if properties.get(key)), None)
    notes.put(name, value, f"the device does not set {' or '.join(keys)}")


def _machine(
    notes: _Notes, sections: Mapping[str, Section], properties: Mapping[str, str] | None, files: _Files
) -> None:
    elf = sections.get("elf", Section(b"")).text
    bits, machine = None, None
    if elf[:4] == b"\x7fELF" and len(elf) >= 20 and elf[5] in (1, 2):
        bits = {1: 32, 2: 64}.get(elf[4])
        machine = _ELF_MACHINES.get(int.from_bytes(elf[18:20], "little" if elf[5] == 1 else "big"))
    no_elf = "no program there could be looked at (/proc/self/exe)"
    notes.put("userland_bits", bits, no_elf)
    if properties is not None:
        _property(notes, properties, "model", "ro.product.model", "ro.product.vendor.model")
        _property(notes, properties, "manufacturer", "ro.product.manufacturer", "ro.product.vendor.manufacturer")
        # Named properly since Android 12; before that there is only the platform's code name.
        _property(notes, properties, "soc", "ro.soc.model", "ro.board.platform", "ro.hardware")
        soc, maker = notes.facts.get("soc"), clean(properties.get("ro.soc.manufacturer", ""), 100)
        if maker and soc and properties.get("ro.soc.model"):
            notes.facts["soc"] = clean(f"{maker} {soc}")
        listed = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi") or ""
        abis = [clean(part, 40) for part in listed.split(",") if part.strip()][:20]
        notes.put("abis", abis, "the device does not set ro.product.cpu.abilist or ro.product.cpu.abi")
        return
    compatible = [clean(part) for part in sections.get("dt-compatible", Section(b"")).said.split("\0") if part.strip()]
    hardware = facts_cpu.cpuinfo(sections.get("cpuinfo", Section(b"")).said)
    dmi = {name: files.values.get(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")}
    tree_model = clean(sections.get("dt-model", Section(b"")).said.strip("\0\n")) if "dt-model" in sections else None
    model = tree_model or dmi["product_name"] or hardware.model
    none = "there is no device tree, and no /sys/class/dmi/id"
    notes.put("model", clean(model) if model else None, none)
    maker = dmi["sys_vendor"] or (compatible[0].partition(",")[0] if compatible and "," in compatible[0] else "")
    notes.put("manufacturer", clean(maker), none)
    soc = files.values.get("/sys/devices/soc0/machine") or files.values.get("/sys/devices/soc0/soc_id")
    # From the board to the chip: the last name is the most general one.
    chip = compatible[-1] if compatible and compatible[-1] != "linux,dummy-virt" else None
    soc = chip or soc or hardware.hardware
    notes.put(
        "soc",
        clean(soc) if soc else None,
        "neither a device tree, /sys/devices/soc0 nor /proc/cpuinfo names one",
    )
    notes.put("abis", [machine] if machine else None, no_elf)


def _cpu(notes: _Notes, sections: Mapping[str, Section], files: _Files) -> None:
    section = sections.get("cpuinfo", Section(b""))
    info = facts_cpu.cpuinfo(section.said if section.ok else "")
    why = _why(sections, "cpuinfo", "/proc/cpuinfo")
    count = len(re.findall(r"^processor[ \t]*:[ \t]*[0-9]{1,4}[ \t\r]*$", section.said, re.MULTILINE))
    cores = len(facts_cpu.core_numbers(info.kinds, files.values)) or count
    notes.put("cores", cores if 1 <= cores <= MAX_CORES else None, why)
    found = facts_cpu.clusters(info.kinds, files.values)
    notes.put("clusters", found, why)
    notes.put("cpu", facts_cpu.in_words(found), f"{why} of which kind the cores are" if section.ok else why)
    if info.features is None:
        notes.put("features", None, why)
    else:
        # None of those that matter is an answer too.
        notes.facts["features"] = info.features
    pattern = re.escape(facts_cpu.CPU) + r"cpu(freq/policy\d+|\d+/cpufreq)/"
    shown = f"{facts_cpu.CPU}cpu*/cpufreq"
    fastest = max((each.max_mhz for each in found if each.max_mhz), default=None)
    notes.put("max_mhz", fastest, files.why(pattern + "cpuinfo_max_freq", shown))
    notes.put("governor", facts_cpu.governors(found), files.why(pattern + "scaling_governor", shown))


def _memory(notes: _Notes, sections: Mapping[str, Section]) -> None:
    found = re.search(r"^MemTotal:\s+([0-9]{1,15}) kB", sections.get("meminfo", Section(b"")).said, re.MULTILINE)
    notes.put("ram_mb", int(found[1]) // 1024 or None if found else None, _why(sections, "meminfo", "/proc/meminfo"))
    section = sections.get("page-size", Section(b""))
    size = _number(section.said.strip(), 1 << 30) if section.ok else None
    if size is None:
        found = re.search(r"KernelPageSize:\s+([0-9]{1,7}) kB", sections.get("smaps", Section(b"")).said)
        size = int(found[1]) * 1024 if found else None
    notes.put(
        "page_size",
        int(size) if size and size >= 512 else None,
        "neither getconf nor /proc/self/smaps tells",
    )


def _storage(notes: _Notes, place: Place | None, places: Sequence[Place]) -> None:
    why = "; ".join(each.why for each in places) or "the device did not say where it could be"
    notes.put("work_dir", place.root if place else None, f"no usable work directory: {why}")
    measured = place or (places[0] if places else None)
    no_df = f"df does not tell for {measured.near}" if measured else why
    sizes = {"free_mb": measured.free, "storage_mb": measured.size} if measured else dict.fromkeys(_SIZES)
    for name, size in sizes.items():
        notes.put(name, None if size is None else size // 1_000_000, no_df)


def _heat(notes: _Notes, sections: Mapping[str, Section], files: _Files) -> None:
    zones = []
    for path, text in files.values.items():
        folder, _, name = path.rpartition("/")
        if name != "temp" or not folder.startswith(_THERMAL) or (celsius := _celsius(text, 1000)) is None:
            continue
        kind = files.values.get(f"{folder}/type") or folder.rpartition("/")[2]
        zones.append(Thermal(zone=clean(kind, 100), celsius=celsius))
    if not zones:
        said = sections.get("dumpsys-thermal", Section(b"")).said
        listed = _TEMPERATURE.findall(said)
        known = {clean(name, 100): float(value) for value, name in listed if -100 <= float(value) <= 250}
        zones = [Thermal(zone=name, celsius=round(value, 1)) for name, value in known.items() if name]
    why = files.why(re.escape(_THERMAL) + r"thermal_zone\d+/temp", f"{_THERMAL}thermal_zone*")
    notes.put("thermal", zones[:MAX_ZONES], why)


def _celsius(text: str, thousandth: int) -> float | None:
    """A temperature in thousandths (`thousandth` of them to a degree); some old kernels give whole degrees."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()):
        return None
    number = int(text)
    degrees = number / thousandth if abs(number) >= thousandth or number == 0 else float(number)
    # What a sensor that is switched off or broken says is no temperature.
    return round(degrees, 1) if -100 <= degrees <= 250 else None


def _power(notes: _Notes, sections: Mapping[str, Section], files: _Files) -> None:
    for path, kind in files.values.items():
        folder = path.rpartition("/")[0]
        # scope Device: of a mouse or a pen, say.
        if not (path == f"{folder}/type" and folder.startswith(_POWER) and kind.lower() == "battery"):
            continue
        if files.values.get(f"{folder}/scope") == "Device" or files.values.get(f"{folder}/present") == "0":
            continue
        level, temperature = (_number(files.values.get(f"{folder}/{name}"), 1e9) for name in ("capacity", "temp"))
        volts = _number(files.values.get(f"{folder}/voltage_now"), 1e9)
        _battery(
            notes, level, files.values.get(f"{folder}/status"), temperature, None if volts is None else volts / 1e6
        )
        if "battery" in notes.facts:
            return
    said = sections.get("dumpsys-battery", Section(b"")).said
    items = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in said.splitlines()[:200])}
    if items.get("present") == "true":
        scale, level = _number(items.get("scale"), 1e6) or 100, _number(items.get("level"), 1e6)
        status, volts = _number(items.get("status"), 100), _number(items.get("voltage"), 1e6)
        _battery(
            notes,
            None if level is None else 100 * level / scale,
            _BATTERY_STATUS.get(int(status)) if status is not None else None,
            _number(items.get("temperature"), 1e6),
            None if volts is None else volts / 1e3,
        )
    pattern = re.escape(_POWER) + r"[^/]+/(type|capacity)"
    why = files.why(pattern, f"{_POWER}* of type Battery")
    if items.get("present") == "false":
        why = "dumpsys battery: it has none"
    if "battery" not in notes.facts:
        notes.put("battery", None, why)


def _battery(notes: _Notes, level: float | None, status: str | None, tenths: float | None, volts: float | None) -> None:
    celsius = None if tenths is None or not -1000 <= tenths <= 2500 else round(tenths / 10, 1)
    battery = Battery(
        level=round(level) if level is not None and 0 <= level <= 100 else None,
        status=clean(status, 40) if status else None,
        celsius=celsius,
        volts=round(volts, 3) if volts is not None and 0 <= volts <= 1000 else None,
    )
    if all(value is None for value in battery.model_dump().values()):
        return
    notes.facts["battery"] = battery
    for name, value in battery.model_dump().items():
        if value is None:
            notes.why[f"battery.{name}"] = "the battery does not tell"


def _security(notes: _Notes, sections: Mapping[str, Section], files: _Files) -> None:
    said = sections.get("getenforce", Section(b""))
    mode = clean(said.said, 40).lower() if said.ok else ""
    if mode not in ("enforcing", "permissive", "disabled"):
        mode = {"0": "permissive", "1": "enforcing"}.get(files.values.get("/sys/fs/selinux/enforce", ""), "")
    notes.put("selinux", mode, files.why(r"/sys/fs/selinux/enforce", "/sys/fs/selinux/enforce, and no getenforce"))


def _number(text: str | None, most: float) -> float | None:
    """A number from -most to most; None for what is none, or more."""
    if text is None or not re.fullmatch(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?", text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) and -most <= number <= most else None
