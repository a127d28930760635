"""What every bench shares: measuring in turn, ratios, and how a result looks."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

Side = Callable[[], float]
"""Does the work once and returns what it took (or its speed), as one number."""


class CannotRun(Exception):
    """This bench cannot run here; its text says why."""


@dataclass(frozen=True)
class Settings:
    """How the benches are run.

    quick: take few pairs, enough to see that they work.  folder: private to this run.
    """

    quick: bool
    folder: Path

    def pairs(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass
class Result:
    """One line of output.

    Attributes:
        values: one number per pair, most often ours divided by the peer's.
        bound: what the median is held against; None where there is none.
        better: whether the median has to stay below the bound ("lower") or above it ("higher").
        notes: for people, behind the numbers.  more: further lines below.
        detail: for the JSON file.
    """

    name: str
    values: Sequence[float]
    bound: float | None = None
    better: Literal["lower", "higher"] = "lower"
    unit: str = ""
    notes: str = ""
    more: Sequence[str] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def middle_half(self) -> tuple[float, float]:
        if len(self.values) < 4:
            return min(self.values), max(self.values)
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def ok(self) -> bool | None:
        if self.bound is None:
            return None
        return self.median <= self.bound if self.better == "lower" else self.median >= self.bound

    def line(self) -> str:
        low, high = self.middle_half
        spread = f"({low:.3f}-{high:.3f}, all {min(self.values):.3f}-{max(self.values):.3f}, n={len(self.values)})"
        bound = "" if self.bound is None else f"{'<=' if self.better == 'lower' else '>='} {self.bound:g}"
        word = {None: "-", True: "OK", False: "OVER"}[self.ok]
        first = f"{self.name:<30} {self.median:9.3f}{self.unit:<3} {spread:<40} {bound:<7} {word:<5} {self.notes}"
        return "\n    ".join([first.rstrip(), *self.more])

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "values": list(self.values),
            "median": self.median,
            "middle_half": list(self.middle_half),
            "ok": self.ok,
        }


@dataclass
class Pairs:
    """Measurements of two sides taken in turn."""

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.peer, strict=True)]

    def take(self, ours: Side, peer: Side, count: int) -> None:
        """`count` pairs.  Every second pair starts with the other side, so that steady drift favours neither."""
        for number in range(count):
            if number % 2:
                second = peer()
                first = ours()
            else:
                first = ours()
                second = peer()
            self.ours.append(first)
            self.peer.append(second)

    def detail(self) -> dict[str, list[float]]:
        return {"ours": self.ours, "peer": self.peer}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """What the numbers belong to; nothing that names this machine or its owner."""
    cpu, system = platform.processor() or platform.machine(), platform.system()
    cpuinfo, release = Path("/proc/cpuinfo"), Path("/etc/os-release")
    if cpuinfo.exists():
        found = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in found.items()}
        numbers = f"family {fields.get('cpu family')} model {fields.get('model')}"
        cpu = f"{fields.get('model name', cpu)} ({numbers})" if "model name" in fields else cpu
    if release.exists():
        for line in release.read_text().splitlines():
            if line.startswith("PRETTY_NAME="):
                system = line.split("=", 1)[1].strip('"')
    return {
        "cpu": cpu,
        "cores": psutil.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": system,
        "python": platform.python_version(),
        "mnn": importlib.metadata.version("MNN"),
        "load": [round(value, 2) for value in psutil.getloadavg()],
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
