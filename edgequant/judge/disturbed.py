"""What speaks against one block of a measurement.  Conditions are errors with names, not footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from edgequant.archive.timing import ConditionsCapture, Readied, TimingCapture
from edgequant.compare.blocks import percentile
from edgequant.judge.latency import CLOCK_SECONDS, CLOCK_SHARE, clock

OTHERS = 0.05
"""CPUs' worth of other work, as a share of the CPUs that may be used, that a timing bears."""
STOLEN = 0.02
WAITING = 0.10
"""Share of the time in which something was ready to run and had no CPU."""
THROTTLED = 1.10
"""Known work may take so many times as long as at its fastest (Jetpack Benchmark's threshold)."""
FREQUENCY, IN_PASSING = 0.95, 0.90
"""Of what it was; of moments in between, where a governor may have looked aside."""
DRIFT = 1.10
"""The median of the second half of a block over that of the first, or of its last quarter over that of its first."""
APART, OUTER = 0.30, 0.2
"""What is left of all times without the fastest and the slowest fifth may lie so far apart, as a share of their median:
else it is one model on two sorts of cores."""
STEP = 0.02
"""A clock's steps, as a share of the median: p50 is one of them, and may be off by half."""
ENOUGH = 10
"""Samples from which on their distribution tells something."""
WORKED = 0.8
"""CPU time of all threads over the time that passed: what computes has at least one CPU."""
JUMP_SECONDS, JUMP_SHARE = 0.05, 0.01
LOW_BATTERY = 20
SLOW_GOVERNORS = ("powersave", "conservative")
FIXED_GOVERNOR = "userspace"
"""Somebody has chosen the frequency: slow below the highest."""
OWN_WAYS = ("intel_pstate", "amd-pstate-epp")
"""Drivers whose powersave is no lowest frequency: the CPU chooses it by its load, as with schedutil."""
FREE_MB = 100.0
STALLED, STALLED_LEAST = 10.0, 50.0
"""A sample so many times the median, and so many milliseconds more, in which the process was not computing either: it
was held up."""


CAUSES = (
    "NOT_FINISHED",
    "TOO_FEW_SAMPLES",
    "CLOCK_JUMPED",
    "CPUS_CHANGED",
    "CPU_QUOTA",
    "SWAPPING",
    "MEMORY_SHORT",
    "GOVERNOR_SLOW",
    "GOVERNOR_CHANGED",
    "FREQUENCY_CAPPED",
    "BATTERY_LOW",
    "POWER_SAVE",
    "SCREEN_OFF",
    "TOO_HOT",
    "OTHERS_RUNNING",
    "CPU_STOLEN",
    "CPU_CONTENDED",
    "FREQUENCY_FELL",
    "THROTTLED",
)
"""What explains the rest: these are told first, and where there is one, what it brings about is not told."""


SESSION = "SESSION_DRIFTS"
"""The one that no block has by itself: see `judge.bench`."""
SIGNS = ("NOT_AT_REST", "CLOCK_ODD", "SLOWS_DOWN", SESSION, "STALLED", "UNEVEN")
"""All others."""


@dataclass(frozen=True)
class Doubt:
    """One condition: its code, what was seen, and whether it may be gone when the block is taken again."""

    code: str
    message: str
    passing: bool = True


def doubts(timing: TimingCapture, cpus: int | None, fastest_work: float | None = None) -> list[Doubt]:
    """Everything that speaks against a block, worst first; empty where nothing does.

    cpus: how many the process may use; None where that is not known.  fastest_work: milliseconds of the known work at
    its fastest in the whole session.
    """
    if timing.complete is None:
        return [Doubt("NOT_FINISHED", "the runner did not get to the end of it")]
    found: list[Doubt] = []
    if not timing.complete:
        found.append(Doubt("TOO_FEW_SAMPLES", f"{len(timing.samples_ms)} samples in the time there was", passing=False))
    if not timing.steady:
        found.append(Doubt("NOT_AT_REST", f"after {timing.warmup} inferences of warm-up times still move"))
    found += [Doubt("CLOCK_ODD", said) for said in (*clock(timing), *_samples_told(timing.samples_ms))]
    if timing.seconds is not None and timing.conditions:
        # All of it lies between this host's question and the answer, unlike the timed part by itself.
        ran = timing.conditions[-1].up - timing.conditions[0].up
        if ran > CLOCK_SHARE * timing.seconds + CLOCK_SECONDS:
            said = f"its clock went on by {ran:.3g} s while this host waited {timing.seconds:.3g} s"
            found.append(Doubt("CLOCK_ODD", said))
    found += _throttled(timing, fastest_work)
    found += _stalled(timing)
    if timing.readied is not None:
        found += _readied(timing.readied)
    if len(timing.conditions) >= 2:
        # From the end of the warm-up to the end; what was there before it only shows how it began.
        inside = timing.conditions[1:] if len(timing.conditions) > 2 else timing.conditions
        found += between(inside, cpus) + held_back(inside)
        found += throughout(timing.conditions)
    found += _moving(timing.samples_ms)
    return found


def between(noted: Sequence[ConditionsCapture], cpus: int | None) -> list[Doubt]:
    """What happened from the first of these moments to the last; what heat does to the CPU is apart (`held_back`).

    cpus: how many the process may use, where they do not tell.
    """
    first, last = noted[0], noted[-1]
    found: list[Doubt] = []
    passed = last.up - first.up
    if passed <= 0:
        return [Doubt("CLOCK_JUMPED", "the machine's clock went backwards")]
    set_by = abs((last.wall - first.wall) - passed)
    if set_by > JUMP_SECONDS + JUMP_SHARE * passed:
        found.append(Doubt("CLOCK_JUMPED", f"the calendar was set by {set_by:.2g} s meanwhile"))
    counts = [each.cpus for each in noted if each.cpus is not None]
    if len(set(counts)) > 1:
        told = " and then ".join(map(str, list(dict.fromkeys(counts))[:4]))
        found.append(Doubt("CPUS_CHANGED", f"it could use {told} CPUs"))
    worth = last.cpus or cpus or 1
    if first.busy is not None and last.busy is not None:
        others = max((last.busy - first.busy) - (last.own - first.own), 0.0) / passed
        if others > OTHERS * worth + _tick(passed):
            found.append(Doubt("OTHERS_RUNNING", f"other programs used {others:.2g} of {worth} CPUs"))
    for code, name, limit, words in (
        ("CPU_STOLEN", "stolen", STOLEN * worth, "the hypervisor took {0:.2g} CPUs away"),
        ("CPU_CONTENDED", "waiting", WAITING, "for {0:.0%} of the time something waited for a CPU"),
    ):
        before, after = getattr(first, name), getattr(last, name)
        if before is not None and after is not None and (share := (after - before) / passed) > limit + _tick(passed):
            found.append(Doubt(code, words.format(share)))
    for code, name, words in (
        ("CPU_QUOTA", "quota", "a quota of its cgroup held it back {0:g} times"),
        ("SWAPPING", "swapped_in", "{0:g} pages were read back from swap"),
    ):
        before, after = getattr(first, name), getattr(last, name)
        if before is not None and after is not None and after > before:
            found.append(Doubt(code, words.format(after - before)))
    if first.quota is not None and last.quota is not None and last.quota < first.quota:
        found.append(Doubt("CPU_QUOTA", "it was moved to another cgroup, whose quota is its own"))
    governors = list(dict.fromkeys(each.governor for each in noted if each.governor is not None))
    if len(governors) > 1:
        found.append(Doubt("GOVERNOR_CHANGED", f"the CPU frequency governor went from {' to '.join(governors[:4])}"))
    return found


def held_back(noted: Sequence[ConditionsCapture]) -> list[Doubt]:
    """What the machine did to its CPUs between these moments."""
    first, last = noted[0], noted[-1]
    found: list[Doubt] = []
    for name, meanwhile, words in (
        ("mhz", IN_PASSING, "its fastest CPU went from {0:.0f} to {1:.0f} MHz"),
        ("mhz_most", FREQUENCY, "its fastest CPU was allowed {0:.0f} MHz, and then {1:.0f}"),
    ):
        told = [max(mhz) for each in noted if (mhz := getattr(each, name)) and max(mhz) > 0]
        if len(told) < 2:
            continue
        fell = told[-1] < FREQUENCY * told[0]
        if fell or min(told) < meanwhile * told[0]:
            found.append(Doubt("FREQUENCY_FELL", words.format(told[0], told[-1] if fell else min(told))))
    if any(each.cooled for each in noted):
        found.append(Doubt("THROTTLED", "the machine says that it holds its CPUs back"))
    elif first.throttled is not None and last.throttled is not None and last.throttled > first.throttled:
        times = last.throttled - first.throttled
        found.append(Doubt("THROTTLED", f"its CPUs say they were held back for their heat {times:g} times"))
    return found


def _tick(passed: float) -> float:
    """What counting CPU time in hundredths of a second may be off by."""
    return 0.02 / passed


def throughout(noted: Sequence[ConditionsCapture]) -> list[Doubt]:
    """What was so at any of these moments."""
    found: list[Doubt] = []
    names = {name for each in noted if each.driver not in OWN_WAYS for name in (each.governor or "").split(", ")}
    slow = sorted(names & set(SLOW_GOVERNORS))
    if slow:
        said = f"the CPU frequency governor is {', '.join(slow)}"
        found.append(Doubt("GOVERNOR_SLOW", said, passing=False))
    found += _below_its_own(noted, names)
    levels = [each.battery for each in noted if each.battery is not None]
    if levels and min(levels) < LOW_BATTERY and not any(each.charging for each in noted):
        found.append(Doubt("BATTERY_LOW", f"the battery is at {min(levels)} %", passing=False))
    free = [each.free_mb for each in noted if each.free_mb is not None]
    if free and min(free) < FREE_MB:
        found.append(Doubt("MEMORY_SHORT", f"only {min(free):.0f} MB of memory were free"))
    return found


def _below_its_own(noted: Sequence[ConditionsCapture], governors: set[str]) -> list[Doubt]:
    """CPUs that are not allowed, or not set to, what they can."""
    able = max((max(each.mhz_able) for each in noted if each.mhz_able), default=0.0)
    allowed = [max(each.mhz_most) for each in noted if each.mhz_most]
    if allowed and 0 < max(allowed) < FREQUENCY * able:
        said = f"its fastest CPU is allowed {max(allowed):.0f} MHz of {able:.0f}"
        return [Doubt("FREQUENCY_CAPPED", said, passing=False)]
    now = [max(each.mhz) for each in noted if each.mhz]
    if FIXED_GOVERNOR in governors and now and 0 < max(now) < FREQUENCY * able:
        said = f"the CPU frequency governor is {FIXED_GOVERNOR}, at {max(now):.0f} MHz of {able:.0f}"
        return [Doubt("GOVERNOR_SLOW", said, passing=False)]
    return []


def _readied(readied: Readied) -> list[Doubt]:
    found: list[Doubt] = []
    if readied.cooled is False:
        at = "known work still took longer" if readied.at is None else f"it was still at {readied.at:.0f} degrees"
        wanted = f"{readied.cool_below:g}" if readied.cool_below is not None else "?"
        found.append(Doubt("TOO_HOT", f"{at} after {readied.waited:.0f} s; below {wanted} was wanted"))
    phone = readied.phone
    if phone is None:
        return found
    if phone.power_save:
        found.append(Doubt("POWER_SAVE", "its battery saver is on", passing=False))
    if phone.screen is False:
        told = "its screen is off, and its CPUs may rest (adb shell input keyevent WAKEUP)"
        found.append(Doubt("SCREEN_OFF", told, passing=False))
    if phone.battery is not None and phone.battery < LOW_BATTERY and not phone.charging:
        found.append(Doubt("BATTERY_LOW", f"the battery is at {phone.battery} %", passing=False))
    return found


def _throttled(timing: TimingCapture, fastest: float | None) -> list[Doubt]:
    work = [each for each in timing.work_ms if each > 0]
    if not work:
        return []
    best = min([*work, *([fastest] if fastest else [])])
    slowest = max(work[1:] or work)  # that before the warm-up comes from an idle CPU
    if slowest <= THROTTLED * best:
        return []
    times = f"{slowest / best:.2f} times as long as at its fastest"
    return [Doubt("THROTTLED", f"known work took {times}: heat, or others on the CPU")]


def _stalled(timing: TimingCapture) -> list[Doubt]:
    samples, cpu = timing.samples_ms, timing.cpu_ms
    if len(samples) < 3 or len(cpu) != len(samples):
        return []
    middle = median(samples)
    held = [
        wall
        for wall, spent in zip(samples, cpu, strict=True)
        if wall > STALLED * middle and wall > middle + STALLED_LEAST and spent < wall / 2
    ]
    if held:
        return [Doubt("STALLED", f"{len(held)} inference(s) were held up, one for {max(held):.0f} ms")]
    shares = [spent / wall for wall, spent in zip(samples, cpu, strict=True) if wall > 0]
    if len(shares) >= ENOUGH and 0 < (share := median(shares)) < WORKED:
        return [Doubt("STALLED", f"it worked for {share:.0%} of an inference, on any CPU: something held it up")]
    return []


def _samples_told(samples: Sequence[float]) -> list[str]:
    """What speaks against a clock in the times themselves."""
    bad = sum(sample <= 0 for sample in samples)
    if 0 < 2 * bad <= len(samples):  # of more, `clock` tells
        return [f"{bad} of {len(samples)} times are 0 or less"]
    if len(samples) < ENOUGH or bad:
        return []
    middle = median(samples)
    steps = [two - one for one, two in pairwise(sorted(samples)) if two - one > 1e-6 * middle]
    if not steps:
        return [f"all {len(samples)} times are the same"]
    if min(steps) > STEP * middle:
        return [f"it tells times in steps of {min(steps):.3g} ms only, and an inference takes {middle:.3g} ms"]
    return []


def _moving(samples: Sequence[float]) -> list[Doubt]:
    """Times that were not those of one state of the machine."""
    if len(samples) < ENOUGH or min(samples) <= 0:
        return []
    found: list[Doubt] = []
    half, quarter = len(samples) // 2, len(samples) // 4
    parts = [(median(samples[-half:]) / median(samples[:half]), "half", "second")]
    if quarter >= ENOUGH // 2:
        parts.append((median(samples[-quarter:]) / median(samples[:quarter]), "quarter", "last"))
    slower, faster = max(parts), min(parts)
    if slower[0] > DRIFT:
        times, part, last = slower
        found.append(Doubt("SLOWS_DOWN", f"its {last} {part} took {times:.2f} times as long as its first"))
    elif faster[0] < 1 / DRIFT:
        times, part, last = faster
        found.append(Doubt("NOT_AT_REST", f"its first {part} took {1 / times:.2f} times as long as its {last}"))
    ordered = sorted(samples)
    low, high = percentile(ordered, OUTER), percentile(ordered, 1 - OUTER)
    if high - low > APART * median(ordered):
        said = f"a fifth of its times is below {low:.3g} ms, and a fifth above {high:.3g}"
        found.append(Doubt("UNEVEN", f"{said}: cores of two sorts, or others on them"))
    return found


def ranked(found: Sequence[Doubt]) -> list[Doubt]:
    """One of each code, those that explain others first; without what they explain."""
    by_code = {doubt.code: doubt for doubt in reversed(found)}
    causes = [by_code[code] for code in CAUSES if code in by_code]
    return causes or list({doubt.code: doubt for doubt in found}.values())
