"""A machine that was made up: the files of /proc and /sys that the runner reads and writes, below a folder."""

from __future__ import annotations

import os
from pathlib import Path

CPUS = sorted(os.sched_getaffinity(0))
TICKS = os.sysconf("SC_CLK_TCK")


class Tree:
    """Begins as a cool, idle, unplugged board whose CPUs run at 1.8 GHz under schedutil."""

    def __init__(self, root: Path, cpus: list[int] | None = None) -> None:
        self.root = root
        self.cpus = CPUS if cpus is None else cpus
        self.each("cpufreq/scaling_governor", "schedutil")
        self.each("cpufreq/scaling_available_governors", "performance powersave schedutil")
        for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
            self.each(f"cpufreq/{name}", "1800000")
        self.write("sys/class/thermal/thermal_zone0/temp", "41000")
        self.write("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 2000000 kB")
        self.write("proc/vmstat", "pswpin 17")

    def write(self, path: str, text: str) -> Path:
        """Whole or not at all, as the kernel's files are."""
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        beside = where.with_name(f".{where.name}.new")
        beside.write_text(text + "\n")
        beside.replace(where)
        return where

    def each(self, name: str, text: str) -> None:
        for cpu in self.cpus:
            self.write(f"sys/devices/system/cpu/cpu{cpu}/{name}", text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def governor_file(self, cpu: int) -> Path:
        return self.root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"

    def governors(self) -> set[str]:
        return {self.governor_file(cpu).read_text().strip() for cpu in self.cpus}

    def supply(self, name: str, **files: object) -> None:
        for key, value in files.items():
            self.write(f"sys/class/power_supply/{name}/{key}", str(value))
