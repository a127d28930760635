"""What on this machine may disturb a timing, as the kernel tells it.  What it does not tell is None.

Every path is below `root` (that of `system`), so that the same code reads a tree that was made up.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import Any, Dict, List, Optional

from . import energy, system

WORK = 20000
"""Steps of the known work: a few milliseconds of pure Python, in one thread, nearly without memory."""
TRIES = 5


def read(root: Optional[str] = None) -> Dict[str, Any]:
    """A snapshot.

    up, wall: seconds since the start of the machine, and of the calendar; the second is what somebody may set.
    own: CPU seconds of all threads of this process.  busy, stolen: seconds that the CPUs it may use have worked for
    anybody, and that the hypervisor had them.  waiting: seconds in which something was ready to run and
    had no CPU (PSI).  running: programs that run or are ready to, this one included.  quota: how often a quota of its
    cgroup held this process back.  switched: how often it lost its CPU to another.
    cpus: how many it may use.  mhz: of each of them; mhz_most: what each is allowed; mhz_able: what it can.  celsius:
    the hottest zone.
    governor, driver: of the same CPUs, one where all have the same; what a governor's name means is the driver's.
    cooled: steps by which the kernel holds CPUs back for their heat, or a Raspberry Pi its own, for voltage too;
    throttled: how often x86 CPUs said they were.
    free_mb: memory that is available, 10^6 bytes.  swapped_in: pages since the start of the machine.
    battery: percent; charging: whether it is; plugged: whether something but a battery feeds it.
    """
    root = root or system.root()
    cpus = system.cpus()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    own = time.process_time()
    busy, stolen, running = _stat(system.text("proc/stat", root), cpus)
    return {
        "up": time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
        "wall": time.time(),
        "own": own,
        "busy": busy,
        "stolen": stolen,
        "running": running,
        "waiting": _pressure(system.text("proc/pressure/cpu", root)),
        "quota": _quota(root),
        "switched": int(usage.ru_nivcsw),
        "cpus": len(cpus),
        "mhz": _mhz(root, cpus, "scaling_cur_freq"),
        "mhz_most": _mhz(root, cpus, "scaling_max_freq"),
        "mhz_able": _mhz(root, cpus, "cpuinfo_max_freq"),
        "celsius": celsius(root),
        "cooled": _cooled(root),
        "throttled": _throttled(root, cpus),
        "governor": _each(root, cpus, "scaling_governor"),
        "driver": _each(root, cpus, "scaling_driver"),
        "free_mb": free_mb(root),
        "swapped_in": _field(system.text("proc/vmstat", root), "pswpin", 1),
        **_battery(root),
        "plugged": energy.plugged(root),
    }


def free_mb(root: Optional[str] = None) -> Optional[float]:
    """What the kernel could still give out."""
    return _field(system.text("proc/meminfo", root), "MemAvailable:", 1.024e-3)


def known_work() -> float:
    """Milliseconds of work that is always the same: the best of a few tries, so that it tells of the CPU's speed and
    not of what else was running."""
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter_ns()
        number = 1
        for _ in range(WORK):
            number = (number * 1103515245 + 12345) & 0x7FFFFFFF
        best = min(best, (time.perf_counter_ns() - start) / 1e6)
    return best


def _field(text: str, name: str, factor: float) -> Optional[float]:
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdigit():
            return int(words[1]) * factor
    return None


def _stat(text: str, cpus: List[int]) -> Any:
    """Seconds busy, seconds stolen, and the number of programs that run."""
    tick = os.sysconf("SC_CLK_TCK")
    wanted = {"cpu%d" % cpu for cpu in cpus}
    busy = stolen = 0.0
    found = False
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in wanted and len(words) >= 9 and all(word.isdigit() for word in words[1:9]):
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
            busy += (user + nice + system + irq + softirq) / tick
            stolen += steal / tick
            found = True
    running = _field(text, "procs_running", 1)
    return (busy, stolen, running) if found else (None, None, running)


def _pressure(text: str) -> Optional[float]:
    for line in text.splitlines():
        if line.startswith("some "):
            total = line.rpartition("total=")[2]
            return int(total) / 1e6 if total.isdigit() else None
    return None


def _quota(root: str) -> Optional[float]:
    """Of its own cgroup and all above it, each of which may have a quota."""
    own = {""}
    for line in system.text("proc/self/cgroup", root).splitlines()[:64]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or "cpu" in controllers.split(","):
            parts = [part for part in path.split("/") if part not in ("", "..", ".")][:32]
            own |= {"/".join(parts[:count]) + "/" for count in range(1, len(parts) + 1)}
    for base in ("sys/fs/cgroup/", "sys/fs/cgroup/cpu/", "sys/fs/cgroup/cpu,cpuacct/"):
        held = [_field(system.text(base + path + "cpu.stat", root), "nr_throttled", 1) for path in sorted(own)]
        known = [each for each in held if each is not None]
        if known:
            return sum(known)
    return None


def _mhz(root: str, cpus: List[int], name: str) -> Optional[List[float]]:
    path = "sys/devices/system/cpu/cpu%d/cpufreq/" + name
    found = [system.number(path % cpu, root) for cpu in cpus[:4096]]
    known = [each / 1e3 for each in found if each is not None and each > 0]  # 0: it does not tell
    return known if known and len(known) == len(found) else None


def _each(root: str, cpus: List[int], name: str) -> Optional[str]:
    path = "sys/devices/system/cpu/cpu%d/cpufreq/" + name
    found = sorted({system.text(path % cpu, root)[:100] for cpu in cpus[:4096]} - {""})
    return ", ".join(found)[:300] or None


def celsius(root: Optional[str] = None) -> Optional[float]:
    """The hottest of the thermal zones, or of other sensors where there are none; what no CPU can have is none.

    Thousandths of a degree; some vendors' zones tell whole degrees or tenths, which as thousandths would be those of
    ice.
    """
    zones = system.found("sys/class/thermal/thermal_zone*/temp", root)
    zones = zones or system.found("sys/class/hwmon/*/temp*_input", root)
    degrees = [system.number(zone, root) for zone in zones]
    return max((_degrees(each) for each in degrees if each is not None and 0 < each < 150000), default=None)


def _degrees(told: int) -> float:
    return told / (1.0 if told < 150 else 10.0 if told < 1500 else 1e3)


def _cooled(root: str) -> Optional[int]:
    steps: List[int] = []
    for path in system.found("sys/class/thermal/cooling_device*/type", root):
        if any(word in system.text(path, root).lower() for word in ("processor", "cpufreq", "cpu-")):
            step = system.number(os.path.join(os.path.dirname(path), "cur_state"), root)
            steps += [] if step is None or step < 0 else [step]
    firmware = system.text("sys/devices/platform/soc/soc:firmware/get_throttled", root)
    with contextlib.suppress(ValueError):
        steps += [int(firmware, 16) & 0xF] if firmware else []  # the bits above tell of what has been
    return sum(steps) if steps else None


def _throttled(root: str, cpus: List[int]) -> Optional[int]:
    path = "sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count"
    counts = [system.number(path % cpu, root) for cpu in cpus[:4096]]
    known = [each for each in counts if each is not None and each >= 0]
    return sum(known) if known else None


def _battery(root: str) -> Dict[str, Any]:
    for path in system.found("sys/class/power_supply/*/type", root):
        # A mouse has one too.
        if system.text(path, root) != "Battery" or system.text(os.path.dirname(path) + "/scope", root) == "Device":
            continue
        level = system.number(os.path.dirname(path) + "/capacity", root)
        status = system.text(os.path.dirname(path) + "/status", root)
        return {
            "battery": level if level is not None and 0 <= level <= 100 else None,
            "charging": None if not status else status == "Charging",
        }
    return {"battery": None, "charging": None}
