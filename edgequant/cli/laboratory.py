"""What `edgequant bench` found beside latencies: options, lines for the console, and the document's part."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from edgequant.errors import InputError
from edgequant.jobs.laboratory import LaboratoryRequest
from edgequant.judge.laboratory import Apart, Energy, OperatorTimes, Sustained
from edgequant.plain import milliseconds

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 86_400.0
_KINDS, _LAYERS, _PERIODS = 6, 5, 12
"""How many of each are printed; the document has all."""


def request(governor: str | None, cool_below: float | None, sustain: str | None, per_op: bool) -> LaboratoryRequest:
    """Raises InputError (OPTION_INVALID)."""
    if governor is not None and not re.fullmatch(r"[a-z_]{1,30}", governor):
        raise InputError(
            "OPTION_INVALID",
            f"--governor {governor}: no governor has that name",
            hint="Such as --governor performance.",
        )
    return LaboratoryRequest(governor, cool_below, sustain=_duration(sustain), per_op=per_op)


def _duration(text: str | None) -> float | None:
    """ "10m", "30s", "1h", "90"."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)", text.strip())
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if not 1 <= seconds <= _LONGEST:
        raise InputError(
            "OPTION_INVALID", f"--sustain {text}: not a time from 1s to 24h", hint="Write --sustain 10m, or 30s."
        )
    return seconds


def lines(apart: Apart) -> list[str]:
    """What is printed below the table."""
    found = [f"cores: {words}" for words in apart.cores]
    if apart.governor is not None and apart.governor.set:
        was = ", ".join(sorted(apart.governor.was))
        found.append(f"governor: {apart.governor.asked}; {was} was given back at the end")
    for name, energy in apart.energy.items():
        found += _energy(name, energy)
    for name, run in apart.sustained.items():
        found += _sustained(name, run)
    for name, times in apart.operators.items():
        found += _operators(name, times)
    for finding in apart.findings:
        found += [f"{finding.severity}  {finding.code}: {finding.message}", f"  -> {finding.remedy}"]
    return found


def _energy(name: str, energy: Energy) -> list[str]:
    if energy.mj is None:
        return []  # the document says why; hardly a board has a sensor
    half = "" if energy.mj.half is None else f" +- {energy.mj.half:.1%}"
    return [f"energy: {name}: {energy.mj.value:.3g} mJ an inference{half}, by {energy.sensor}"]


def _sustained(name: str, run: Sustained) -> list[str]:
    periods = run.capture.periods
    words = {"holds": "holds its time", "slower": "gets slower", "faster": "gets faster", "unclear": "cannot be told"}
    ratio = "" if run.ratio is None else f": last against first {run.ratio:.3f}, slowest {run.slowest:.3f} times"
    found = [f"without a pause, {name}: {words[run.says]}{ratio}"]
    step = max(1, -(-len(periods) // _PERIODS))
    for number, each in enumerate(periods):
        if number % step and number != len(periods) - 1:
            continue
        noted = each.conditions
        heat = "" if noted.celsius is None else f"  {noted.celsius:.0f} C"
        clock = "" if not noted.mhz else f"  {max(noted.mhz):.0f} MHz"
        found.append(
            f"  {each.at + each.seconds:7.1f} s  p50 {milliseconds(each.p50)}  p90 {milliseconds(each.p90)} ms"
            f"  n {each.n}{heat}{clock}"
        )
    return [*found, *(f"  not valid: {code}: {message}" for code, message in run.against)]


def _operators(name: str, times: OperatorTimes) -> list[str]:
    capture = times.capture
    if capture.why is not None:
        return [f"operators of {name}: none: {capture.why}"]
    found = [
        f"operators of {name}, in a pass of its own (no latency): {times.total:.3g} ms in all, "
        f"{milliseconds(capture.plain_ms)} ms unwatched"
    ]
    found += [
        f"  {each.share:6.1%}  {milliseconds(each.ms)} ms  {each.count} x {each.type}" for each in times.kinds[:_KINDS]
    ]
    longest = sorted(capture.operators, key=lambda each: -each.ms)[:_LAYERS]
    found += [f"  {times.share(each.ms):6.1%}  {milliseconds(each.ms)} ms  {each.name}" for each in longest]
    return [*found, *([f"  note: {times.odd}"] if times.odd else [])]


def as_dict(apart: Apart) -> dict[str, Any]:
    """Of one device."""
    return {
        "cores": list(apart.cores),
        "governor": None if apart.governor is None else apart.governor.model_dump(mode="json"),
        "energy": {
            name: {
                "mj": None if each.mj is None else {"value": each.mj.value, "low": each.mj.low, "high": each.mj.high},
                "sensor": each.sensor,
                "why": each.why,
            }
            for name, each in apart.energy.items()
        },
        "sustained": {
            name: {
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
            for name, run in apart.sustained.items()
        },
        "operators": {
            name: {
                "why": times.capture.why,
                "runs": times.capture.runs,
                "plain_ms": times.capture.plain_ms,
                "watched_ms": times.capture.watched_ms,
                "total_ms": times.total,
                "odd": times.odd,
                "types": [asdict(each) for each in times.kinds],
                "layers": [
                    {**each.model_dump(mode="json"), "share": times.share(each.ms)} for each in times.capture.operators
                ],
            }
            for name, times in apart.operators.items()
        },
        "findings": [finding.model_dump(mode="json") for finding in apart.findings],
    }
