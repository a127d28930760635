"""Which cores a setting runs on where a device has several sorts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgequant.devices.facts_cpu import ranges
from edgequant.runner.laboratory import Cluster


@dataclass(frozen=True)
class Chosen:
    """cores: None to leave it to the system.  says: why, in words; "" where cores are alike.  mixed: no sort of cores
    has so many."""

    cores: tuple[int, ...] | None = None
    says: str = ""
    mixed: bool = False


def choose(clusters: Sequence[Cluster], threads: int) -> Chosen:
    """The fastest cores that are alike, and as many as there are threads.  clusters: fastest first."""
    if len(clusters) < 2:
        return Chosen()
    sorts = ", ".join(_words(each) for each in clusters)
    for cluster in clusters:
        if len(cluster.cpus) < threads:
            continue
        smaller = len(clusters[0].cpus)
        more = "" if cluster is clusters[0] else f"; up to {smaller} stay on the fastest ones"
        held = f"{threads} thread{'s' if threads > 1 else ''} on cores {ranges(cluster.cpus)}, which are alike"
        return Chosen(tuple(cluster.cpus), f"{held}, of {sorts}{more} (--cores chooses others)")
    return Chosen(
        says=f"{threads} threads are more than any sort of cores has ({sorts}): they run on cores that are not alike",
        mixed=True,
    )


def _words(cluster: Cluster) -> str:
    speed = "" if cluster.mhz is None else f" at {cluster.mhz:.0f} MHz"
    capacity = "" if cluster.capacity is None else f" (capacity {cluster.capacity})"
    return f"{ranges(cluster.cpus)}{speed}{capacity}"
