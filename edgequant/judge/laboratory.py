"""What a measurement found beside latencies: long runs, energy, operators.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edgequant.archive.laboratory import OperatorsCapture, PeriodCapture, SustainCapture
from edgequant.archive.timing import GovernorCapture, TimingCapture
from edgequant.compare.blocks import Estimate, of_blocks
from edgequant.findings import Finding
from edgequant.judge.disturbed import Doubt, between, ranked, throughout

SLOWER = 1.10
"""A long run whose last period took so many times as long as its first is worth a warning; below 1 / SLOWER it has
become faster, and its begin was not that of a device at rest."""
LEVEL = 0.95
LEAST_ENERGY = 3
"""Blocks that an interval of their energy needs."""
ODD_SUM = 0.25
"""What the times of all operators may lack of, or be beyond, an inference in which none is watched."""


@dataclass(frozen=True)
class Sustained:
    """A long run.  ratio: p50 of its last whole period over that of its first; slowest: of the slowest one.

    celsius, mhz: before, and at the end of each period; None where they cannot be read.  against: what speaks against
    it: (code, message); heat and frequency are what it is about, and do not.
    """

    capture: SustainCapture
    ratio: float | None = None
    slowest: float | None = None
    celsius: tuple[float | None, ...] = ()
    mhz: tuple[float | None, ...] = ()
    against: tuple[tuple[str, str], ...] = ()

    @property
    def says(self) -> str:
        """ "holds", "slower", "faster", or "unclear" where something speaks against it, or there is too little."""
        if self.ratio is None or self.against:
            return "unclear"
        return "slower" if self.ratio > SLOWER else "faster" if self.ratio < 1 / SLOWER else "holds"


def sustained(capture: SustainCapture, cpus: int | None) -> Sustained:
    """Judge a long run, or the part of it that there is."""
    periods = whole(capture.periods)
    noted = [*([capture.begun] if capture.begun else []), *(each.conditions for each in capture.periods)]
    found: list[Doubt] = [doubt for pair in pairwise(noted) for doubt in between(pair, cpus)]
    found += throughout(noted)
    against = {doubt.code: doubt.message for doubt in ranked(found)}
    if not capture.complete:
        lasted = capture.periods[-1].at + capture.periods[-1].seconds if capture.periods else 0.0
        against["NOT_FINISHED"] = f"it ended after {lasted:.0f} of {capture.asked:.0f} s"
    ratio = slowest = None
    if len(periods) >= 2 and periods[0].p50 > 0:
        ratio = periods[-1].p50 / periods[0].p50
        slowest = max(each.p50 for each in periods) / periods[0].p50
    return Sustained(
        capture, ratio, slowest,
        celsius=tuple(each.celsius for each in noted),
        mhz=tuple(max(each.mhz) if each.mhz else None for each in noted),
        against=tuple(against.items()),
    )  # fmt: skip


def whole(periods: Sequence[PeriodCapture]) -> list[PeriodCapture]:
    """Without a last one that was cut short."""
    longest = max((each.seconds for each in periods), default=0.0)
    return [each for each in periods if each.seconds >= longest / 2]


@dataclass(frozen=True)
class Energy:
    """mJ of one inference, over blocks: of all that hangs on the sensor, while nothing but the inferences was asked of
    it.  why: there is none."""

    mj: Estimate | None = None
    sensor: str | None = None
    why: str | None = None


def energy(timings: Iterable[TimingCapture]) -> Energy:
    """timings: the blocks of a setting that its numbers are of."""
    readings = [(each.energy, len(each.samples_ms)) for each in timings if each.energy is not None and each.samples_ms]
    known = [reading.joules * 1e3 / n for reading, n in readings if reading.joules is not None]
    sensors = {reading.sensor for reading, _ in readings if reading.joules is not None}
    if len(sensors) > 1:
        return Energy(why="blocks were read from different sensors")
    if len(known) >= LEAST_ENERGY:
        return Energy(of_blocks(known, LEVEL), next(iter(sensors)))
    why = next((reading.why for reading, _ in readings if reading.why is not None), None)
    return Energy(why=why or f"{len(known)} blocks have it; {LEAST_ENERGY} are needed")


@dataclass(frozen=True)
class Kind:
    """All operators of one type: how many, milliseconds, and share of all."""

    type: str
    count: int
    ms: float
    share: float


@dataclass(frozen=True)
class OperatorTimes:
    """Where the time of an inference goes, of a pass of its own.

    total: milliseconds of all operators.  kinds: by type, longest first.  odd: what speaks against it; None for
    nothing.
    """

    capture: OperatorsCapture
    total: float = 0.0
    kinds: tuple[Kind, ...] = ()
    odd: str | None = None

    def share(self, ms: float) -> float:
        return ms / self.total if self.total > 0 else 0.0


def operator_times(capture: OperatorsCapture) -> OperatorTimes:
    """Add up operators by type."""
    total = sum(max(each.ms, 0.0) for each in capture.operators)
    by_type: dict[str, list[float]] = {}
    for each in capture.operators:
        by_type.setdefault(each.type, []).append(max(each.ms, 0.0))
    kinds = [
        Kind(name, len(times), sum(times), sum(times) / total if total else 0.0) for name, times in by_type.items()
    ]
    odd = None
    if capture.plain_ms and capture.operators and abs(total / capture.plain_ms - 1) > ODD_SUM:
        odd = f"operators add up to {total / capture.plain_ms:.2f} times an inference in which none is watched"
    return OperatorTimes(capture, total, tuple(sorted(kinds, key=lambda each: -each.ms)), odd)


@dataclass(frozen=True)
class Apart:
    """What was found on one device beside latencies, by setting.  cores: what settings ran on, in words, where they
    were held to cores that are alike.  governor: the last that was asked for."""

    cores: tuple[str, ...] = ()
    governor: GovernorCapture | None = None
    sustained: Mapping[str, Sustained] = field(default_factory=dict)
    energy: Mapping[str, Energy] = field(default_factory=dict)
    operators: Mapping[str, OperatorTimes] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def findings(governor: GovernorCapture | None, runs: Mapping[str, Sustained], mixed: Sequence[str]) -> list[Finding]:
    """mixed: settings with more threads than any sort of cores has, in words."""
    found = []
    if governor is not None and not governor.set:
        have = ", ".join(sorted(governor.was)) or "unknown"
        found.append(
            Finding(
                code="GOVERNOR_NOT_SET",
                severity="warn",
                message=f"the CPU frequency governor is not {governor.asked} but {have}: {governor.why}",
                evidence={"asked": governor.asked, "was": {name: list(cpus) for name, cpus in governor.was.items()}},
                remedy="Numbers are those of the governor that is there.  Connect as root, or have the device's "
                "owner set it.",
            )
        )
    for words in mixed:
        found.append(
            Finding(
                code="CLUSTERS_MIXED",
                severity="warn",
                message=words,
                remedy="Give --cores, or fewer --threads: where threads wait for each other, the slowest core decides.",
            )
        )
    for name, run in runs.items():
        if run.says == "slower" and run.ratio is not None:
            minutes = run.capture.asked / 60
            found.append(
                Finding(
                    code="SUSTAINED_SLOWER",
                    severity="warn",
                    where=name,
                    message=f"after {minutes:g} min without a pause {name} takes {run.ratio:.2f} times as long",
                    evidence={"ratio": run.ratio, "celsius": list(run.celsius[:1] + run.celsius[-1:])},
                    remedy="For work that goes on, count with the last minute's time; fewer --threads may stay cooler.",
                )
            )
    return found
