"""Which cores are alike."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from . import system

ALIKE = 0.95
"""Cores whose speeds differ by less are of one sort: x86 lets its best ones run a few per cent faster."""


def read(cpus: Optional[Sequence[int]] = None) -> List[Dict[str, Any]]:
    """The sorts of cores among `cpus` (those it may use), fastest first: `cpus`, `capacity` (of 1024) and `mhz`, which
    are None where the kernel does not tell.  One sort where nothing tells them apart."""
    known = [_core(cpu) for cpu in (system.cpus() if cpus is None else cpus)]
    capacities = [each["capacity"] for each in known]
    # Capacity knows what a core makes of a clock tick; where all have the same, or none has one, the clock is left.
    by = "capacity" if None not in capacities and len(set(capacities)) > 1 else "mhz"
    if any(each[by] is None for each in known):
        by = "nothing"
    groups: List[List[Dict[str, Any]]] = []
    for core in sorted(known, key=lambda each: (-(each.get(by) or 0), each["kind"], each["cpu"])):
        for group in groups:
            if core["kind"] == group[0]["kind"] and (core.get(by) or 0) >= ALIKE * (group[0].get(by) or 0):
                group.append(core)
                break
        else:
            groups.append([core])
    return [
        {
            "cpus": sorted(each["cpu"] for each in group),
            "capacity": group[0]["capacity"],
            "mhz": group[0]["mhz"],
        }
        for group in groups
    ]


def _core(cpu: int) -> Dict[str, Any]:
    place = "sys/devices/system/cpu/cpu%d/" % cpu
    khz = system.number(place + "cpufreq/cpuinfo_max_freq")
    return {
        "cpu": cpu,
        "capacity": system.number(place + "cpu_capacity"),
        "mhz": None if khz is None else khz / 1e3,
        "kind": system.text(place + "regs/identification/midr_el1"),  # of ARM: maker, part and revision
    }
