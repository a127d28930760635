"""What a bench found beside latencies, as its report has it, and in words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat, zip_longest
from typing import Any

from pydantic import Field

from edgequant.archive.laboratory import OperatorsCapture
from edgequant.findings import Finding
from edgequant.judge.laboratory import Apart, OperatorTimes, Sustained
from edgequant.plain import milliseconds
from edgequant.report.model import _Model

_KINDS, _LAYERS, _PERIODS = 6, 5, 12
"""How many of each are printed; the document has all."""
_SAYS = {"holds": "holds its time", "slower": "gets slower", "faster": "gets faster", "unclear": "cannot be told"}


class Millijoules(_Model):
    """Of one inference, with its 95 % interval over the blocks."""

    value: float
    low: float | None = None
    high: float | None = None


class EnergyReport(_Model):
    """why: there is none."""

    mj: Millijoules | None = None
    sensor: str | None = None
    why: str | None = None


class Against(_Model):
    """What speaks against it."""

    code: str
    message: str


class Period(_Model):
    """Of a long run: see `archive.laboratory.PeriodCapture`."""

    at: float
    seconds: float
    n: int
    mean: float
    min: float
    max: float
    p50: float
    p90: float
    cpu: float
    work_ms: float
    energy: dict[str, Any] | None = None


class SustainedReport(_Model):
    """A long run.  says: "holds", "slower", "faster" or "unclear".  ratio: its last period against its first; slowest:
    the slowest of all.  celsius, mhz: before, and at the end of each period."""

    says: str
    asked: float
    complete: bool
    ratio: float | None = None
    slowest: float | None = None
    celsius: list[float | None] = Field(default_factory=list)
    mhz: list[float | None] = Field(default_factory=list)
    against: list[Against] = Field(default_factory=list)
    periods: list[Period] = Field(default_factory=list)


class KindReport(_Model):
    """All operators of one type."""

    type: str
    count: int
    ms: float
    share: float


class LayerTime(_Model):
    """One operator."""

    name: str
    type: str
    mflops: float = 0.0
    ms: float
    share: float


class OperatorsReport(_Model):
    """Of a pass of its own.  plain_ms: inferences in which none was watched.  why: there are none."""

    why: str | None = None
    runs: int = 0
    plain_ms: float | None = None
    watched_ms: float | None = None
    total_ms: float = 0.0
    odd: str | None = None
    types: list[KindReport] = Field(default_factory=list)
    layers: list[LayerTime] = Field(default_factory=list)


class ApartReport(_Model):
    """Of one device, by setting (its id)."""

    cores: list[str] = Field(default_factory=list)
    governor: dict[str, Any] | None = None
    energy: dict[str, EnergyReport] = Field(default_factory=dict)
    sustained: dict[str, SustainedReport] = Field(default_factory=dict)
    operators: dict[str, OperatorsReport] = Field(default_factory=dict)
    findings: list[Finding] = Field(default_factory=list)


def apart_report(apart: Apart) -> ApartReport:
    return ApartReport.model_validate(
        {
            "cores": list(apart.cores),
            "governor": None if apart.governor is None else apart.governor.model_dump(mode="json"),
            "energy": {
                name: {
                    "mj": None
                    if each.mj is None
                    else {"value": each.mj.value, "low": each.mj.low, "high": each.mj.high},
                    "sensor": each.sensor,
                    "why": each.why,
                }
                for name, each in apart.energy.items()
            },
            "sustained": {name: _sustained(each) for name, each in apart.sustained.items()},
            "operators": {name: _operators(each, each.capture) for name, each in apart.operators.items()},
            "findings": list(apart.findings),
        }
    )


def _sustained(run: Sustained) -> dict[str, Any]:
    return {
        "says": run.says,
        "asked": run.capture.asked,
        "complete": run.capture.complete,
        "ratio": run.ratio,
        "slowest": run.slowest,
        "celsius": list(run.celsius),
        "mhz": list(run.mhz),
        "against": [{"code": code, "message": message} for code, message in run.against],
        "periods": [each.model_dump(mode="json", exclude={"conditions"}) for each in run.capture.periods],
    }


def _operators(times: OperatorTimes, capture: OperatorsCapture) -> dict[str, Any]:
    return {
        "why": capture.why,
        "runs": capture.runs,
        "plain_ms": capture.plain_ms,
        "watched_ms": capture.watched_ms,
        "total_ms": times.total,
        "odd": times.odd,
        "types": [{"type": each.type, "count": each.count, "ms": each.ms, "share": each.share} for each in times.kinds],
        "layers": [{**each.model_dump(mode="json"), "share": times.share(each.ms)} for each in capture.operators],
    }


def lines(apart: ApartReport) -> Iterator[str]:
    """What is printed below the table."""
    yield from (f"cores: {words}" for words in apart.cores)
    if (line := governor(apart)) is not None:
        yield line
    yield from (line for name, each in apart.energy.items() for line in _energy_lines(name, each))
    yield from (line for name, each in apart.sustained.items() for line in _sustained_lines(name, each))
    yield from (line for name, each in apart.operators.items() for line in _operator_lines(name, each))


def governor(apart: ApartReport) -> str | None:
    if apart.governor is None or not apart.governor.get("set"):
        return None
    was = ", ".join(sorted(apart.governor.get("was") or ()))
    return f"governor: {apart.governor.get('asked')}; {was} was given back at the end"


def _energy_lines(name: str, found: EnergyReport) -> Iterator[str]:
    """None where there is none: the document says why; hardly a board has a sensor."""
    if found.mj is not None:
        yield f"energy: {name}: {millijoules(found)} mJ an inference, by {found.sensor}"


def millijoules(found: EnergyReport) -> str:
    if found.mj is None:
        return "-"
    value, low, high = found.mj.value, found.mj.low, found.mj.high
    half = "" if low is None or high is None or value <= 0 else f" +- {(high - low) / 2 / value:.1%}"
    return f"{value:.3g}{half}"


def sustained_words(found: SustainedReport) -> str:
    ratio = "" if found.ratio is None else f": last against first {found.ratio:.3f}, slowest {found.slowest:.3f} times"
    return f"{_SAYS.get(found.says, found.says)}{ratio}"


def _sustained_lines(name: str, run: SustainedReport) -> Iterator[str]:
    yield f"without a pause, {name}: {sustained_words(run)}"
    step = max(1, -(-len(run.periods) // _PERIODS))
    for number, (each, celsius, mhz) in enumerate(periods(run)):
        if number % step and number != len(run.periods) - 1:
            continue
        heat = "" if celsius is None else f"  {celsius:.0f} C"
        clock = "" if mhz is None else f"  {mhz:.0f} MHz"
        times = f"p50 {milliseconds(each.p50)}  p90 {milliseconds(each.p90)} ms"
        yield f"  {each.at + each.seconds:7.1f} s  {times}  n {each.n}{heat}{clock}"
    yield from (f"  not valid: {each.code}: {each.message}" for each in run.against)


def periods(run: SustainedReport) -> Iterator[tuple[Period, float | None, float | None]]:
    """Each with the degrees and MHz at its end."""
    behind = max(len(run.celsius) - len(run.periods), 0)  # what was noted before the first
    noted = zip_longest(run.celsius[behind:], run.mhz[behind:])
    yield from ((each, *ends) for each, ends in zip(run.periods, chain(noted, repeat((None, None))), strict=False))


def _operator_lines(name: str, times: OperatorsReport) -> Iterator[str]:
    if times.why is not None:
        yield f"operators of {name}: none: {times.why}"
        return
    yield (
        f"operators of {name}, in a pass of its own (no latency): the operators add up to "
        f"{times.total_ms:.3g} ms; an inference without watching them takes {milliseconds(times.plain_ms)} ms"
    )
    yield "  by type of operator:"
    for each in times.types[:_KINDS]:
        yield f"  {each.share:6.1%}  {milliseconds(each.ms)} ms  {each.count} x {each.type}"
    if times.layers:
        yield "  by layer, the longest first:"
    for layer in sorted(times.layers, key=lambda layer: -layer.ms)[:_LAYERS]:
        yield f"  {layer.share:6.1%}  {milliseconds(layer.ms)} ms  {layer.name}"
    if times.odd:
        yield f"  note: {times.odd}"
