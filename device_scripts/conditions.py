"""What on this machine may disturb a timing, as the kernel tells it.  What it does not tell is None.

Every path is below `root`, so that the same code reads a tree that was made up.
"""

from __future__ import annotations

import glob
import os
import resource
import time
from typing import Any, Dict, List, Optional

WORK = 20000
"""Steps of the known work: a few milliseconds of pure Python, in one thread, nearly without memory."""
TRIES = 5


def read(root: str = "/") -> Dict[str, Any]:
    """A snapshot.

    up, wall: seconds since the start of the machine, and of the calendar; the second is what somebody may set.
    own: CPU seconds of all threads of this process.  busy, stolen: seconds that the CPUs it may use have worked for
    anybody, and that the hypervisor had them.  waiting: seconds in which something was ready to run and
    had no CPU (PSI).  running: programs that run or are ready to, this one included.  quota: how often a quota of its
    cgroup held this process back.  switched: how often it lost its CPU to another.
    mhz: of each CPU it may use.  celsius: the hottest zone.  governor: of the same CPUs, one where all have the same.
    free_mb: memory that is available, 10^6 bytes.  swapped_in: pages since the start of the machine.
    battery: percent; charging: whether it is.
    """
    cpus = _cpus()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    own = time.process_time()
    busy, stolen, running = _stat(_text(root, "proc/stat"), cpus)
    return {
        "up": time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
        "wall": time.time(),
        "own": own,
        "busy": busy,
        "stolen": stolen,
        "running": running,
        "waiting": _pressure(_text(root, "proc/pressure/cpu")),
        "quota": _quota(root),
        "switched": int(usage.ru_nivcsw),
        "mhz": _mhz(root, cpus),
        "celsius": _celsius(root),
        "governor": _governor(root, cpus),
        "free_mb": free_mb(root),
        "swapped_in": _field(_text(root, "proc/vmstat"), "pswpin", 1),
        **_battery(root),
    }


def free_mb(root: str = "/") -> Optional[float]:
    """What the kernel could still give out."""
    return _field(_text(root, "proc/meminfo"), "MemAvailable:", 1.024e-3)


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


def _cpus() -> List[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _text(root: str, path: str) -> str:
    try:
        with open(os.path.join(root, path), encoding="ascii", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""


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
    for path in ("sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat"):
        found = _field(_text(root, path), "nr_throttled", 1)
        if found is not None:
            return found
    return None


def _mhz(root: str, cpus: List[int]) -> Optional[List[float]]:
    path = "sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq"
    found = [_text(root, path % cpu).strip() for cpu in cpus[:4096]]
    return [int(each) / 1e3 for each in found] if found and all(each.isdigit() for each in found) else None


def _governor(root: str, cpus: List[int]) -> Optional[str]:
    path = "sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor"
    found = sorted({_text(root, path % cpu).strip()[:100] for cpu in cpus[:4096]} - {""})
    return ", ".join(found)[:300] or None


def _celsius(root: str) -> Optional[float]:
    """The hottest of the thermal zones; what no CPU can have is none."""
    zones = sorted(glob.glob(os.path.join(glob.escape(root), "sys/class/thermal/thermal_zone*/temp")))[:256]
    texts = [_text("/", zone.lstrip("/")).strip() for zone in zones]
    degrees = [int(each) / 1e3 for each in texts if each.lstrip("-").isdigit()]
    return max((each for each in degrees if 0 < each < 150), default=None)


def _battery(root: str) -> Dict[str, Any]:
    for supply in sorted(glob.glob(os.path.join(glob.escape(root), "sys/class/power_supply/*")))[:64]:
        if _text("/", os.path.join(supply, "type").lstrip("/")).strip() != "Battery":
            continue
        level = _text("/", os.path.join(supply, "capacity").lstrip("/")).strip()
        status = _text("/", os.path.join(supply, "status").lstrip("/")).strip()
        return {
            "battery": int(level) if level.isdigit() and int(level) <= 100 else None,
            "charging": None if not status else status == "Charging",
        }
    return {"battery": None, "charging": None}
