"""Timed inferences folded into the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from edgequant.archive.types import Capture
from edgequant.spec import RunOptions

NEEDED = {"p50": 2, "p90": 10, "p99": 100}
"""Samples a percentile needs, so that at least one of them is expected to lie beyond it.  With fewer, p99 would be
the maximum under another name."""
_LONGEST = 1e12
"""Milliseconds, thirty years: what is longer was never measured."""


class Latency(BaseModel):
    """Milliseconds of one inference, and of what comes before it.

    Attributes:
        n: timed samples the numbers are of.
        warmup: inferences run before and thrown away.
        min, mean, stdev, p50, p90, p99, max: of the samples; stdev is the sample's (n - 1), percentiles interpolate
            linearly (Hyndman & Fan 1996, type 7).
        load: reading the model; first: the first inference, which resizes and packs.
        valid: whether the numbers may be compared with others.
        why_invalid: what speaks against it.
        why_null: name of a number that is null -> why.
        case: the case that was timed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n: int = Field(ge=0)
    warmup: int = Field(ge=0)
    min: float | None = None
    mean: float | None = None
    stdev: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None
    load: float | None = None
    first: float | None = None
    valid: bool
    why_invalid: list[str] = Field(default_factory=list)
    why_null: dict[str, str] = Field(default_factory=dict)
    case: str | None = None


def latency_summary(
    samples_ms: Sequence[float],
    warmup: int,
    load: float | None,
    first: float | None,
    *,
    why_invalid: Sequence[str] = (),
) -> Latency:
    """Fold samples in milliseconds.  An empty sample, or one with a time that cannot be, is not valid.

    Args:
        why_invalid: what the caller knows against the timing (emulated, throttled, governor changed, ...).
    """
    good = sorted(float(s) for s in samples_ms if 0 <= s <= _LONGEST)
    against = list(why_invalid)
    if not good:
        against.append("no inference was timed")
    if len(good) < len(samples_ms):
        against.append(f"{len(samples_ms) - len(good)} of {len(samples_ms)} times cannot be")
    numbers: dict[str, float] = {}
    why: dict[str, str] = {}
    if good:
        mean = math.fsum(good) / len(good)
        numbers = {"min": good[0], "mean": mean, "max": good[-1]}
        if len(good) > 1:
            numbers["stdev"] = math.sqrt(math.fsum((s - mean) ** 2 for s in good) / (len(good) - 1))
    else:
        why = dict.fromkeys(("min", "mean", "max"), "no inference was timed")
    if len(good) < 2:
        why["stdev"] = f"needs 2 samples, there are {len(good)}"
    for name, needed in NEEDED.items():
        if len(good) >= needed:
            numbers[name] = percentile(good, int(name[1:]) / 100)
        else:
            why[name] = f"needs {needed} samples, there are {len(good)}"
    for name, value in (("load", load), ("first", first)):
        if value is not None and math.isfinite(value) and value >= 0:
            numbers[name] = value
        else:
            why[name] = "not measured" if value is None else f"measured as {value:g}, which no time can be"
    return Latency.model_validate(
        {"n": len(good), "warmup": warmup, **numbers, "valid": not against, "why_invalid": against, "why_null": why}
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the order statistics (Hyndman & Fan 1996, type 7) of an ascending sample."""
    place = (len(ordered) - 1) * share
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def latency_of(capture: Capture, options: RunOptions) -> Latency | None:
    """The timing of a trial; None where it was not timed."""
    if not capture.timings:
        return None
    timing = capture.timings[0]
    why = []
    if timing.complete is None:
        why.append("the runner did not get to the end of the timing")
    elif not timing.complete:
        why.append(f"{len(timing.samples_ms)} samples in the time there was, {options.repeat} were wanted")
    elif timing.warmup < options.warmup:
        why.append("the time was over before the warm-up was")
    first = next((each.ms for each in capture.cases if each.ms is not None), None)
    found = latency_summary(timing.samples_ms, timing.warmup, capture.load_ms, first, why_invalid=why)
    return found.model_copy(update={"case": timing.case})


def why_no_latency(capture: Capture, *, wanted: bool) -> str | None:
    """What was timed, or why nothing was."""
    emulator = None if capture.device is None else capture.device.emulator
    if emulator is not None:
        return f"emulated by {emulator}: times would say nothing about the CPU"
    if capture.timings:
        return f"one inference of case '{capture.timings[0].case}'"
    return "the run ended before it was timed" if wanted else "not asked for"
