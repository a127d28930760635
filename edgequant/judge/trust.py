"""Nothing is taken on trust from a device: what it says of itself is held against what else is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from edgequant.archive.rollout import Setting
from edgequant.archive.types import Capture, CaseCapture, Memory
from edgequant.findings import Finding
from edgequant.judge.engaged import STALE_DB, differing
from edgequant.judge.stages import Comparer, by_case
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict

SLACK_KIB = 4096
"""The kernel's counters are read one after another, and lag by some pages."""
LEAK_KIB, LEAK_EACH_KIB = 16 << 10, 16
"""Memory may grow by so much while it is timed, and by so much in each inference."""


FROZEN_BYTES = 256 << 10
"""A file of this size takes memory when it is loaded."""


def memory(capture: Capture, size: int = 0) -> Observed:
    """INCONCLUSIVE where readings of memory cannot be, or grow with each inference.  size: of the file, in bytes."""
    readings = [capture.before, *capture.readings]
    wrong = next((why for each in readings if (why := _impossible(each)) is not None), None)
    peaks = [each.rss_peak for each in capture.readings if each.rss_peak is not None]
    if wrong is None and any(later + SLACK_KIB < earlier for earlier, later in pairwise(peaks)):
        wrong = "the highest mark of its memory fell"
    frozen = capture.loaded.rss is not None and len(readings) > 2 and len(set(map(_numbers, readings))) == 1
    if wrong is None and frozen and size >= FROZEN_BYTES:
        wrong = f"all readings are the same, those before a file of {size / 1e6:.2g} MB was loaded too"
    if wrong is not None:
        return _inconclusive(
            "MEMORY_IMPOSSIBLE",
            f"what it says of its memory cannot be: {wrong}",
            "What /proc tells there is not to be trusted: see what stands between (a container, a sandbox).",
        )
    return _leak(capture)


def _numbers(reading: Memory) -> tuple[int | None, ...]:
    return reading.rss, reading.rss_peak, reading.pss


def _impossible(reading: Memory) -> str | None:
    if reading.rss == 0:
        return "a process that has no memory"
    if reading.rss is not None and reading.rss_peak is not None and reading.rss_peak + SLACK_KIB < reading.rss:
        return f"a peak of {reading.rss_peak} KiB below the {reading.rss} KiB it has"
    if reading.rss is not None and reading.pss is not None and reading.pss > reading.rss + SLACK_KIB:
        return f"its share of {reading.pss} KiB is more than the {reading.rss} KiB it has"
    return None


def _leak(capture: Capture) -> Observed:
    """Of one case over and over: what it needs it has after the warm-up, and nothing has to grow."""
    timing = capture.timings[0] if capture.timings else None
    before = next((each.memory for each in reversed(capture.cases) if each.memory is not None), None)
    if timing is None or timing.memory is None or before is None:
        return NOTHING
    one, other, count = before.rss, timing.memory.rss, len(timing.samples_ms) + timing.warmup
    if one is None or other is None or count < 2 or other - one <= max(LEAK_KIB, LEAK_EACH_KIB * count):
        return NOTHING
    return _inconclusive(
        "MEMORY_GROWS",
        f"its memory grew by {(other - one) / 1024:.0f} MiB in {count} inferences of one case: a program that does so "
        "for long is ended by the kernel",
        "Run it for longer (--repeat) and see whether it goes on; then report it to MNN with this model.",
    )


def timed_outputs(capture: Capture, *, deterministic: bool | None) -> Observed:
    """INCONCLUSIVE where the loop that is timed computes something else than the same case by itself."""
    known = by_case(capture)
    for timing in capture.timings:
        case = known.get(timing.case)
        if timing.outputs is None or case is None or case.outputs is None or not deterministic:
            continue
        names = [name for name, ref in case.outputs.items() if timing.outputs.get(name) != ref]
        if names:
            return _inconclusive(
                "TIMED_OTHER_OUTPUTS",
                f"what was timed is not what was judged: the last inference of the timing gave other outputs of case "
                f"'{timing.case}' than before: {', '.join(names[:20])}",
                "Such times are of something else.  What goes wrong only after many calls goes wrong in use as well.",
                names[0],
            )
    return NOTHING


def stale(capture: Capture) -> Observed:
    """INCONCLUSIVE where a case, run again, gave what another case had given."""
    first = by_case(capture)
    for again in capture.repeated:
        once = first.get(again.case)
        if once is None or again.outputs is None or once.outputs is None or not (names := differing(once, again)):
            continue
        for other in capture.cases:
            # Of the same inputs nothing else could come; and a constant is everybody's.
            if other.case == again.case or other.outputs is None:
                continue
            if all(again.outputs.get(name) == other.outputs.get(name) for name in names):
                return _inconclusive(
                    "OUTPUT_OF_OTHER_CASE",
                    f"case '{again.case}', run a second time, gave the outputs of case '{other.case}': "
                    f"{', '.join(names[:20])}",
                    "The device hands out results of another call.  Nothing it says of outputs counts.",
                    names[0],
                )
    return NOTHING


def refused_again(capture: Capture) -> Observed:
    """INCONCLUSIVE where a case that ran was refused the second time."""
    lost = [each for each in capture.repeated if each.refused is not None]
    if not lost:
        return NOTHING
    return _inconclusive(
        "REFUSED_AGAIN",
        f"case '{lost[0].case}' ran, and was refused when it was run again after other sizes: {lost[0].refused}",
        "MNN goes wrong when it is resized back: load the model anew for each size, or pin sizes with --shape.",
        lost[0].case,
    )


def settings(capture: Capture, comparer: Comparer, *, rounds: bool) -> Observed:
    """INCONCLUSIVE where another number of threads comes out farther off than rounding, or anything at all changes
    after another model.  rounds: activations are rounded to int8 or fp16, so that a last bit may become a step."""
    first = by_case(capture)
    for each in capture.settings:
        once = first.get(each.case)
        if once is None or once.outputs is None:
            continue
        names = [name for name, ref in once.outputs.items() if each.outputs.get(name) != ref]
        apart = min((db for name in names if (db := _db(once, each, name, comparer)) is not None), default=None)
        allowed = 20.0 if rounds else STALE_DB
        if not names or (each.kind == "threads" and (apart is None or apart >= allowed)):
            continue
        how = "after another model was run" if each.kind == "model" else f"with {each.threads} threads"
        size = "" if apart is None else f", {apart:.0f} dB from the first time"
        return _inconclusive(
            "NOT_DETERMINISTIC",
            f"case '{each.case}' came out otherwise {how}{size}: {', '.join(names[:20])}",
            "What else the process does must not change what a model computes: run it in a process of its own, and "
            "report it to MNN with this model.",
            names[0],
        )
    return NOTHING


def _db(once: CaseCapture, again: Setting, name: str, comparer: Comparer) -> float | None:
    return comparer.of((once.outputs or {})[name], again.outputs.get(name)).sqnr_db


def _inconclusive(code: str, message: str, remedy: str, where: str | None = None) -> Observed:
    finding = Finding(code=code, severity="error", where=where, message=message, remedy=remedy)
    return Observed((finding,), Verdict.INCONCLUSIVE)


def looks(capture: Capture, deterministic: bool | None, size: int = 0) -> Sequence[Observed]:
    """All of them.  size: of the file, in bytes."""
    return (
        memory(capture, size),
        timed_outputs(capture, deterministic=deterministic),
        stale(capture),
        refused_again(capture),
    )
