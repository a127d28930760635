"""Timed inferences folded into the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from edgequant.archive.types import Capture, TimingCapture
from edgequant.archive.witness import Thread
from edgequant.compare.blocks import percentile
from edgequant.spec import RunOptions

NEEDED = {"p50": 2, "p90": 10, "p99": 100}
"""Samples a percentile needs, so that at least one of them is expected to lie beyond it.  With fewer, p99 would be
the maximum under another name."""
_LONGEST = 1e12
"""Milliseconds, thirty years: what is longer was never measured."""

CLOCK_SHARE, CLOCK_SECONDS = 1.05, 0.1
"""The device's clock is its own, but it cannot have worked longer than this host has waited, by more than its drift."""
SLOW_SHARE, SLOW_SECONDS = 3.0, 2.0
"""Nor may it have been idle for most of that: then its clock is slow, or something else ran in the loop."""
LOOP_SHARE, LOOP_SECONDS, LOOP_LEAST = 1.2, 0.3, 0.5
"""The same of the loop alone, from its first message to its last, which nothing else takes part in; it takes at least
the third by the device's clock."""
HALVES, HALVES_OF = 2.0, 10
"""The median of the second half of so many samples may be so many times that of the first: else it is not at rest."""
APART, APART_MS = 10.0, 0.3
"""An inference in the loop may be so many times faster than the same on other numbers by itself, and by so much more,
for what comes around it."""


BUSY_SECONDS = 0.1
"""The busiest thread has worked for so long: below that, nothing is said of the others."""
IDLE_SHARE = 0.002
"""Of the busiest one's time: who has less did not take part.  MNN's threads spin while an inference runs."""


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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

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


def clock(timing: TimingCapture) -> list[str]:
    """What speaks against the times of a device, in words; empty where nothing does."""
    samples = timing.samples_ms
    said = []
    if samples and not any(samples):
        said.append("every time is 0: its clock stands still")
    elif 2 * sum(each == 0 for each in samples) > len(samples):
        said.append("most of its times are 0: its clock is too coarse for this model")
    half = len(samples) // 2
    slower = median(samples[-half:]) / median(samples[:half]) if half and median(samples[:half]) > 0 else 0.0
    if len(samples) >= HALVES_OF and slower > HALVES:
        said.append(
            f"the second half took {slower:.2g} times as long as the first: it was throttled, or something else ran "
            "beside it"
        )
    if samples and timing.apart_ms and APART * median(samples) + APART_MS < min(timing.apart_ms):
        said.append(
            f"an inference takes {min(timing.apart_ms):.3g} ms by itself and {median(samples):.3g} ms in the loop that "
            "was timed: it does not compute there"
        )
    if timing.seconds is None or not samples:
        return said
    worked, waited = sum(samples) / 1e3, timing.seconds
    if worked > waited * CLOCK_SHARE + CLOCK_SECONDS:
        said.append(f"its times add up to {worked:.3g} s, this host waited {waited:.3g} s: its clock jumps or is fast")
    warm = timing.warmup * worked / len(samples)
    looped = timing.looped
    if looped is not None and looped > LOOP_SHARE * max(worked, LOOP_LEAST) + LOOP_SECONDS:
        said.append(f"its times add up to {worked:.3g} s, by this host's clock to {looped:.3g} s: its clock is slow")
    elif waited > SLOW_SHARE * (worked + warm) + SLOW_SECONDS:
        said.append(f"its times add up to {worked:.3g} s, this host waited {waited:.3g} s: its clock is slow")
    return said


def took_part(threads: Sequence[Thread]) -> int | None:
    """How many threads had anything of the CPU; None where none had enough of it to tell."""
    most = max((each.seconds for each in threads), default=0.0)
    return None if most < BUSY_SECONDS else sum(each.seconds > IDLE_SHARE * most for each in threads)


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
    why += clock(timing)
    ran = took_part(timing.threads)
    if ran is not None and ran < (capture.threads or 0):
        why.append(f"{capture.threads} threads were asked for, {ran} had anything of the CPU")
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
