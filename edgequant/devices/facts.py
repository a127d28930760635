"""Read the facts of a device: everything with one command in plain POSIX sh, which changes nothing there."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from edgequant.deadline import Deadline
from edgequant.devices.facts_model import DeviceFacts, unknown
from edgequant.devices.facts_parse import Section, parsed
from edgequant.devices.places import LOOK, Place, places_in
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store
from edgequant.errors import EdgequantError
from edgequant.problems import first_problem

MAX_BYTES = 8 << 20
READ_SECONDS = 30.0

# No awk, and no here-documents: some shells keep those in files.  The first argument begins each line that is ours; it
# is a new one each time, so that no file there can hold it.
_SCRIPT = (
    LOOK
    + r"""
mark=$1
shift
begin() { printf '\n%s %s\n' "$mark" "$1"; }
# ask NAME COMMAND...: what it prints, and how it ended.
ask() {
  begin "$1"
  shift
  "$@" 2>&1 </dev/null
  printf '\n%s = %s\n' "$mark" $?
}
has() { command -v "$1" >/dev/null 2>&1; }
if has timeout; then limited() { timeout 5 "$@"; }; else limited() { "$@"; }; fi
# The first line of each file that is there, by a builtin: a process for each would take seconds on a slow board.
values() {
  for file in "$@"; do
    [ -e "$file" ] || continue
    line=
    { IFS= read -r line < "$file"; } 2>/dev/null
    if [ -n "$line" ]; then printf '%s\t%s\n' "$file" "$line"
    elif [ -r "$file" ]; then printf '%s\t\n' "$file"
    else printf '%s\n' "$file"
    fi
  done
}
each() {
  for folder in $1; do
    for name in $2; do values "$folder/$name"; done
  done
}
folders() {
  for folder in "$@"; do
    if [ ! -d "$folder" ]; then echo "$folder none"
    elif [ ! -r "$folder" ] || [ ! -x "$folder" ]; then echo "$folder closed"
    else echo "$folder open"
    fi
  done
}
ask uname uname -snrm
if has getprop; then ask getprop limited getprop; fi
for file in /etc/os-release /usr/lib/os-release; do
  if [ -r "$file" ]; then ask os-release cat "$file"; break; fi
done
ask cpuinfo cat /proc/cpuinfo
ask meminfo cat /proc/meminfo
ask mounts cat /proc/mounts
for file in /proc/device-tree /sys/firmware/devicetree/base; do
  if [ -r "$file/compatible" ]; then
    ask dt-compatible cat "$file/compatible"
    ask dt-model cat "$file/model"
    break
  fi
done
if has getconf; then ask page-size getconf PAGESIZE; fi
begin smaps
while read -r line; do
  case $line in KernelPageSize:*) echo "$line"; break ;; esac
done 2>/dev/null < /proc/self/smaps
# The head of the program that reads it: 32 or 64 bits, and for which CPU.
begin elf
dd if=/proc/self/exe bs=20 count=1 2>/dev/null
begin folders
folders /sys/class/thermal /sys/class/power_supply /sys/devices/system/cpu
begin values
values /proc/uptime /sys/fs/selinux/enforce /sys/devices/system/cpu/present
each /sys/devices/soc0 'machine family soc_id'
each /sys/class/dmi/id 'sys_vendor product_name'
each '/sys/devices/system/cpu/cpu[0-9]*' 'cpu_capacity regs/identification/midr_el1'
cpufreq='related_cpus cpuinfo_max_freq scaling_max_freq scaling_governor'
found=$(echo /sys/devices/system/cpu/cpufreq/policy[0-9]*)
case $found in
  *'policy[0-9]*') each '/sys/devices/system/cpu/cpu[0-9]*/cpufreq' "$cpufreq" ;;
  *) each "$found" "$cpufreq" ;;
esac
each '/sys/class/thermal/thermal_zone*' 'type temp'
each '/sys/class/power_supply/*' 'type scope present status capacity temp voltage_now'
if has getenforce; then ask getenforce limited getenforce; fi
if has dumpsys; then
  ask dumpsys-battery limited dumpsys battery
  ask dumpsys-thermal limited dumpsys thermalservice
fi
begin places
look "$@"
begin end
"""
)


@dataclass(frozen=True)
class Readings:
    """What a device said, not yet understood: sections by name, and the places where its work directory may be."""

    sections: dict[str, Section] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)

    @property
    def place(self) -> Place | None:
        """The place that becomes the work directory; None where there is no usable one."""
        return next((place for place in self.places if place.usable), None)


def read(device: Device, deadline: Deadline, candidates: Sequence[str]) -> Readings:
    """Ask an open device.  `candidates`: where its work directory may be, best first; see Store.candidates.

    Raises what Device.run raises.
    """
    mark = f"edgequant-{secrets.token_hex(8)}"
    argv = ["sh", "-c", _SCRIPT, "edgequant", mark, *candidates]
    result = device.run(argv, deadline.shorter(READ_SECONDS), max_output=MAX_BYTES)
    sections = split(result.stdout, mark)
    said, mounts = sections.get("places", Section(b"")), sections.get("mounts", Section(b""))
    return Readings(sections, places_in(said.text, mounts.text if mounts.ok else b""))


def split(said: bytes, mark: str) -> dict[str, Section]:
    """Sections of the script's output; of two with one name the first counts."""
    sections: dict[str, Section] = {}
    name = ""
    for part in said.split(b"\n" + mark.encode() + b" ")[1:]:
        head, _, body = part.partition(b"\n")
        if head.startswith(b"= "):
            if name in sections and sections[name].code is None:
                code = head[2:].strip()
                sections[name] = Section(sections[name].text, int(code) if code.isdigit() and len(code) < 4 else 255)
            continue
        name = head.decode("ascii", "replace")[:40]
        sections.setdefault(name, Section(body))
    return sections


def facts_in(device: Device, readings: Readings) -> DeviceFacts:
    """What the readings mean.  Never fails: a fact that makes no sense is null, with the reason."""
    try:
        found = parsed(readings.sections, readings.place, readings.places)
        return device.corrected(found)
    except ValidationError as error:
        return unknown(f"what the device said makes no sense: {first_problem(error)}")
    except ValueError as error:
        return unknown(f"what the device said makes no sense: {(str(error).splitlines() or [''])[0]}")


def read_facts(device: Device, deadline: Deadline, *, work_dir: str | None = None) -> DeviceFacts:
    """The facts of an open device; those of an emulated one are the emulated CPU's, as far as there are any.

    work_dir: the directory whose file system is meant; None for the first of the device's own that can be used.

    Raises InputError (WORK_DIR_INVALID), and what Device.run raises.
    """
    return facts_in(device, read(device, deadline, Store(device, work_dir).candidates))


def facts_or_why(device: Device, deadline: Deadline, *, work_dir: str | None = None) -> DeviceFacts:
    """As read_facts; where they cannot be read all are null for that reason, because no run may fail for them."""
    try:
        return read_facts(device, deadline, work_dir=work_dir)
    except EdgequantError as error:
        return device.corrected(unknown(f"reading them failed: {error.code}: {error}"))
