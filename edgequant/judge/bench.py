"""From blocks of a measurement to its numbers, and whether they may be believed.  Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from edgequant.archive.types import Capture, TimingCapture
from edgequant.compare.blocks import Estimate, Ratio, corrected, estimates, of_blocks, ratio, spreads, trend
from edgequant.findings import Finding
from edgequant.judge.disturbed import SESSION, Doubt, doubts, ranked
from edgequant.judge.verdict import Verdict, worst

LEVEL = 0.95
APART_LEVEL = 0.99
"""Of the intervals of all ratios together: in one of a hundred comparisons of a thing with itself they differ."""
WITHIN = 0.025
"""Half of the interval of p50, as a share of it, that a number may have which calls itself measured."""
TELL = 0.03
"""A difference that is to be noticed."""
LEAST_BLOCKS = 3
DRIFTS = 1.05
"""The last block over the first, by the line through all of them, with an interval (APART_LEVEL) that leaves out 1: the
machine became another while it was measured, and a number of the middle is off by WITHIN at both ends."""


@dataclass(frozen=True)
class Block:
    """One process of one setting: what it brought back, and what speaks against it."""

    round: int
    capture: Capture
    doubts: tuple[Doubt, ...]
    borne: tuple[str, ...] = ()
    """Codes of what would speak against it, and is allowed."""

    @property
    def timing(self) -> TimingCapture | None:
        return self.capture.timings[0] if self.capture.timings else None

    @property
    def possible(self) -> bool:
        """It has times, and all of them are such as can be."""
        return self.timing is not None and bool(self.timing.samples_ms) and all(ms > 0 for ms in self.timing.samples_ms)

    @property
    def good(self) -> bool:
        return self.capture.failure is None and self.possible and not self.doubts


@dataclass(frozen=True)
class Measured:
    """One setting.

    Attributes:
        blocks: all that were taken.  used: rounds of those that the numbers are of.
        ms: p50, mean, trimmed, p90, p99: milliseconds of one inference, each with its interval.
        cpu_ms: milliseconds of CPU time of all threads; load, first: of reading the model, and of the first inference.
        spread: of all samples together, see `compare.blocks.spreads`.
        peak_kb: highest RSS of any block, KiB.
        why_invalid: (code, message) of what speaks against the numbers; valid where there is nothing.
        drift_borne: the session drifts, and that is allowed.
    """

    name: str
    blocks: tuple[Block, ...]
    used: tuple[int, ...]
    verdict: Verdict
    ms: Mapping[str, Estimate] = field(default_factory=dict)
    cpu_ms: Estimate | None = None
    load: Estimate | None = None
    first: Estimate | None = None
    spread: Mapping[str, float] = field(default_factory=dict)
    peak_kb: int | None = None
    why_invalid: tuple[tuple[str, str], ...] = ()
    drift_borne: bool = False

    @property
    def valid(self) -> bool:
        return self.verdict is Verdict.PASS

    @property
    def medians(self) -> list[float]:
        """p50 of each block that counted, in milliseconds."""
        timings = [block.timing for block in self.blocks if block.round in self.used and block.timing is not None]
        return [median(timing.samples_ms) for timing in timings if timing.samples_ms and min(timing.samples_ms) > 0]

    @property
    def borne(self) -> tuple[str, ...]:
        """Codes of what would speak against it, and is allowed."""
        drift = {SESSION} if self.drift_borne else set()
        return tuple(sorted({code for block in self.blocks for code in block.borne} | drift))

    @property
    def title(self) -> str:
        """Its name, and what was borne: it never looks like a number without."""
        return f"{self.name} [{', '.join(self.borne)} allowed]" if self.borne else self.name


@dataclass(frozen=True)
class Compared:
    """How much longer `name` takes than `base`, round by round; says: "slower", "faster", "same" or "unclear"."""

    base: str
    name: str
    ratio: Ratio
    says: str
    rounds: int


@dataclass(frozen=True)
class BenchJudgement:
    """The whole.  verdict: PASS where all numbers are valid; it knows no limits.  findings: what is worth knowing of
    numbers that are."""

    verdict: Verdict
    settings: tuple[Measured, ...]
    compared: tuple[Compared, ...]
    findings: tuple[Finding, ...] = ()


def blocks_of(
    captures: Sequence[tuple[int, Capture]],
    cpus: int | None,
    allowed: Collection[str] = (),
    fastest: float | None = None,
) -> list[Block]:
    """allowed: codes of conditions that are borne.  fastest: known work at its fastest in the session."""
    return [
        Block(number, capture, tuple(found), tuple(borne))
        for number, capture in captures
        for found, borne in [_sorted(capture, cpus, allowed, fastest)]
    ]


def fastest_work(captures: Iterable[Capture]) -> float | None:
    """Milliseconds of the known work at its fastest in all of them; None where none tells."""
    work = [each for capture in captures for timing in capture.timings for each in timing.work_ms if each > 0]
    return min(work, default=None)


def _sorted(
    capture: Capture, cpus: int | None, allowed: Collection[str], fastest: float | None
) -> tuple[list[Doubt], list[str]]:
    found = doubts(capture.timings[0], cpus, fastest) if capture.timings else []
    borne = [each.code for each in found if each.code in allowed]
    return [each for each in found if each.code not in allowed], borne


def good_rounds(settings: Mapping[str, Sequence[Block]]) -> list[int]:
    """Rounds in which nothing speaks against any setting: only they are compared."""
    rounds = {block.round for blocks in settings.values() for block in blocks}
    bad = {block.round for blocks in settings.values() for block in blocks if not block.good}
    return sorted(rounds - bad)


def judge_bench(
    settings: Mapping[str, Sequence[Block]],
    *,
    failed: Mapping[str, Verdict],
    bases: Mapping[str, str] | None = None,
    quantized: Collection[str] = (),
    within: float = WITHIN,
    tell: float = TELL,
    allowed: Collection[str] = (),
) -> BenchJudgement:
    """settings: the blocks of each.  failed: settings that could not be run, and what that is.  bases: setting -> what
    it is held against; the first of them where it is not in there.  quantized: settings that are to be faster than
    their base.  within, tell: see WITHIN and TELL.  allowed: as of `blocks_of`."""
    measured = [
        _measured(name, blocks, failed.get(name), within, drift_borne=SESSION in allowed)
        for name, blocks in settings.items()
    ]
    first, *others = measured
    named = {each.name: each for each in measured}
    pairs = [(named[(bases or {}).get(each.name, first.name)], each) for each in others]
    able = [(base, each) for base, each in pairs if base.ms and each.ms]
    level = corrected(APART_LEVEL, len(able))
    compared = [found for base, each in able if (found := _compared(base, each, level, tell)) is not None]
    findings = tuple(_slower(each) for each in compared if each.says == "slower" and each.name in quantized)
    # A comparison is no release rule: what it cannot tell is said, the numbers stay valid.
    return BenchJudgement(worst([each.verdict for each in measured]), tuple(measured), tuple(compared), findings)


def _slower(found: Compared) -> Finding:
    return Finding(
        code="INT8_SLOWER",
        severity="warn",
        where=found.name,
        message=f"{found.name} takes {found.ratio.value:.2f} times as long as {found.base}: "
        "here quantizing saves space, and costs time",
        evidence={"ratio": found.ratio.value, "low": found.ratio.low, "high": found.ratio.high},
        remedy="Measure fp16, and dynamic:8 with --memory normal; where none is faster, ship float or what the size is "
        "worth.",
    )


def _drift(blocks: Sequence[Block]) -> str | None:
    """How a session drifts, where it clearly does: by the known work that stands between the blocks, or by the blocks
    themselves.

    Too slow for any block to see it, and too little to be throttled; interleaving keeps it out of ratios, and nothing
    keeps it out of the numbers.
    """
    timings = [block.timing for block in blocks if block.timing is not None]
    work = [min(each.work_ms[1:]) for each in timings if len(each.work_ms) > 1 and min(each.work_ms) > 0]
    for what, values in (("known work", work), ("an inference", [median(each.samples_ms) for each in timings])):
        if len(values) < len(timings):
            continue
        found = trend(values, APART_LEVEL)
        clear = found.low is not None and found.high is not None and not found.low <= 1 <= found.high
        if clear and max(found.value, 1 / found.value) > DRIFTS:
            return f"{what} took {found.value:.2f} times as long at the end of the session as at its begin"
    return None


def _measured(
    name: str, blocks: Sequence[Block], failed: Verdict | None, within: float, *, drift_borne: bool
) -> Measured:
    if failed is not None:
        why = next((block.capture.failure for block in blocks if block.capture.failure is not None), None)
        died = () if why is None else ((why.code, why.message),)
        return Measured(name, tuple(blocks), (), failed, why_invalid=died)
    good = [block for block in blocks if block.good]
    against: dict[str, str] = {}
    if len(good) < LEAST_BLOCKS:
        # Numbers are shown all the same, with what speaks against them.
        for doubt in ranked([doubt for block in blocks for doubt in block.doubts]):
            against[doubt.code] = doubt.message
        told = f"{len(good)} of {len(blocks)} blocks were undisturbed; {LEAST_BLOCKS} are needed"
        against.setdefault("TOO_FEW_BLOCKS", told)
        good = [block for block in blocks if block.possible]
    drift = None if against else _drift(good)
    if drift is not None and not drift_borne:
        against[SESSION] = drift
    timings = [block.timing for block in good if block.timing is not None]
    if not timings:
        against.setdefault("NOTHING_TIMED", "there is no time that can be")
        return Measured(name, tuple(blocks), (), Verdict.INCONCLUSIVE, why_invalid=tuple(against.items()))
    samples = [timing.samples_ms for timing in timings]
    ms = estimates(samples, LEVEL)
    half = ms["p50"].half
    if half is not None and half > within:
        told = f"p50 is known to {half:.1%} only, {within:.1%} were wanted"
        if not against:
            # The interval shrinks with the root of the number of blocks; of disturbed ones more do not help.
            told += f": --blocks {math.ceil(len(timings) * (half / within) ** 2)} may be enough"
        against["TOO_SPREAD"] = told
    cpu = [sum(timing.cpu_ms) / len(timing.cpu_ms) for timing in timings if timing.cpu_ms]
    loads = [block.capture.load_ms for block in good if block.capture.load_ms is not None]
    firsts = [case.ms for block in good for case in block.capture.cases if case.ms is not None]
    peaks = [reading.rss_peak for block in blocks for reading in block.capture.readings if reading.rss_peak is not None]
    return Measured(
        name,
        tuple(blocks),
        tuple(block.round for block in good),
        Verdict.INCONCLUSIVE if against else Verdict.PASS,
        ms=ms,
        cpu_ms=of_blocks(cpu, LEVEL) if cpu else None,
        load=of_blocks(loads, LEVEL) if loads else None,
        first=of_blocks(firsts, LEVEL) if firsts else None,
        spread=spreads(samples),
        peak_kb=max(peaks, default=None),
        why_invalid=tuple(against.items()),
        drift_borne=drift is not None and drift_borne,
    )


def _compared(base: Measured, other: Measured, level: float, tell: float) -> Compared | None:
    rounds = [number for number in base.used if number in other.used]
    one, two = (
        {block.round: block.timing.samples_ms for block in each.blocks if block.timing is not None}
        for each in (base, other)
    )
    if not rounds:
        return None
    found = ratio([one[number] for number in rounds], [two[number] for number in rounds], level)
    says = "unclear"
    if found.low is not None and found.high is not None and base.valid and other.valid:
        if found.low > 1 or found.high < 1:
            says = "slower" if found.low > 1 else "faster"
        elif found.low > 1 - tell and found.high < 1 + tell:
            says = "same"
    return Compared(base.name, other.name, found, says, len(rounds))
