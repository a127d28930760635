"""Energy, where a sensor tells: of the package, the board or the whole device, never of one process."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

from . import system

EVERY = 0.1
"""Seconds between two readings of a sensor that tells power."""


class Meter:
    """Joules from `start` to `stop`, by the best sensor there is: a counter of energy, else power, read again and again
    in between, else what flows out of a battery that nothing charges."""

    def __init__(self) -> None:
        self.why: Optional[str] = None
        self.sensor = ""
        self._counters: List[Tuple[str, int]] = []
        self._power: List[Tuple[str, str]] = []
        self._read: List[Tuple[float, float]] = []
        self._begin: List[int] = []
        self._joules = 0.0
        self._find()

    def _find(self) -> None:
        # A domain within another one, intel-rapl:0:0, is counted in that.
        for path in system.found("sys/class/powercap/*/energy_uj"):
            zone = os.path.dirname(path)
            if os.path.basename(zone).count(":") == 1 and system.number(path) is not None:
                self._counters.append((path, system.number(zone + "/max_energy_range_uj") or 0))
        if not self._counters:
            self._counters = [
                (path, 0) for path in system.found("sys/class/hwmon/*/energy*_input") if system.number(path) is not None
            ]
        if self._counters:
            self.sensor = "energy counter " + self._names([path for path, _ in self._counters])
            return
        self._power = [
            (path, "") for path in system.found("sys/class/hwmon/*/power*_input") if system.number(path) is not None
        ]
        if self._power:
            self.sensor = "power sensor " + self._names([path for path, _ in self._power])
            return
        self._find_battery()

    def _find_battery(self) -> None:
        supplies = [os.path.dirname(path) for path in system.found("sys/class/power_supply/*/type")]
        batteries = [each for each in supplies if system.text(each + "/type") == "Battery"]
        pairs = [(each + "/current_now", each + "/voltage_now") for each in batteries]
        pairs = [pair for pair in pairs if None not in (system.number(pair[0]), system.number(pair[1]))]
        if not pairs:
            self.why = "there is no sensor that may be read"
        elif plugged():
            self.why = "it is plugged in: what the battery gives is not what is used"
        elif any(system.text(each + "/status") not in ("Discharging", "") for each in batteries):
            self.why = "its battery is not discharging"
        else:
            self._power = pairs
            self.sensor = "current and voltage of " + self._names([path for path, _ in pairs])

    @staticmethod
    def _names(paths: List[str]) -> str:
        return ", ".join(os.path.basename(os.path.dirname(path)) for path in paths)[:200]

    def start(self) -> None:
        self._begin = self._count()
        self._read = []
        self.note()

    def note(self) -> None:
        """Read power again, where it is time to."""
        if not self._power or (self._read and time.perf_counter() - self._read[-1][0] < EVERY):
            return
        watts = self._watts()
        if watts is not None:
            self._read.append((time.perf_counter(), watts))

    def stop(self) -> Dict[str, Any]:
        """`joules` by `sensor`, with the number of `readings` they are of; or `why` not."""
        if self.why is None and self._power:
            if plugged():
                self.why = "it was plugged in meanwhile"
            watts = self._watts()
            if watts is not None:
                self._read.append((time.perf_counter(), watts))
            if len(self._read) < 3:
                self.why = self.why or "it was read %d times only" % len(self._read)
            joules = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(self._read, self._read[1:]))
        elif self.why is None:
            joules, ends = 0.0, self._count()
            for (_, most), begin, end in zip(self._counters, self._begin, ends):
                joules += (end - begin + (most if end < begin else 0)) / 1e6
            if len(ends) != len(self._begin) or joules <= 0:
                self.why = "its counter did not move" if len(ends) == len(self._begin) else "a counter went away"
        if self.why is not None:
            return {"why": self.why, "sensor": self.sensor or None}
        return {"joules": joules, "sensor": self.sensor, "readings": max(2, len(self._read))}

    def _count(self) -> List[int]:
        return [value for path, _ in self._counters for value in [system.number(path)] if value is not None]

    def _watts(self) -> Optional[float]:
        total = 0.0
        for first, second in self._power:
            one = system.number(first)
            two = system.number(second) if second else 1
            if one is None or two is None:
                return None
            # Microwatts; or microamperes, which some count below 0 while they flow out, times microvolts.
            total += abs(one) * (two / 1e12 if second else 1e-6)
        return total


def plugged(root: Optional[str] = None) -> Optional[bool]:
    """Whether something but a battery feeds it; None where nothing tells."""
    others = [
        os.path.dirname(path)
        for path in system.found("sys/class/power_supply/*/type", root)
        if system.text(path, root) not in ("Battery", "")
    ]
    told = [value for each in others for value in [system.number(each + "/online", root)] if value is not None]
    return any(told) if told else None
