"""What a setting takes of memory, stage by stage.  Every block is a process of its own and inherits nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from edgequant.archive.types import Capture, Memory

STAGES = ("empty", "loaded", "first", "timed")
"""The runtime before any model, after the model was read, after its first inference, after the timing."""
READ = ("rss", "pss", "uss", "swap")


@dataclass(frozen=True)
class StageMemory:
    """KiB, the median of the blocks.  peak: the kernel's highest mark within the stage alone; None where it cannot be
    started anew."""

    rss: float | None = None
    pss: float | None = None
    uss: float | None = None
    swap: float | None = None
    peak: float | None = None


@dataclass(frozen=True)
class SettingMemory:
    """Of one setting.

    Attributes:
        session_mib: what MNN says its session holds, 2^20 bytes; session_why: why it does not.
        stages: see STAGES; those of which nothing is known are not in it.
        peak: KiB, the highest RSS of any block, before the session is asked for.
        above: KiB, the highest RSS over that of the empty runtime, in the block where it is most.
    """

    session_mib: float | None = None
    session_why: str | None = None
    stages: Mapping[str, StageMemory] = field(default_factory=dict)
    peak: int | None = None
    above: int | None = None


def memory_of(captures: Sequence[Capture]) -> SettingMemory:
    """captures: of one setting's blocks, those that failed too."""
    read = [dict(_stages(each)) for each in captures]
    stages = {name: _middle([each[name] for each in read if name in each]) for name in STAGES}
    tops = [top for each in captures if (top := _top(each)) is not None]
    above = [top - each.before.rss for each in captures if (top := _top(each)) is not None and each.before.rss]
    asked = next((each.session for each in captures if each.session is not None), None)
    return SettingMemory(
        session_mib=None if asked is None else asked.mb,
        session_why="it was not asked" if asked is None else asked.why,
        stages={name: stage for name, stage in stages.items() if stage != StageMemory()},
        peak=max(tops, default=None),
        above=max(above, default=None),
    )


def _stages(capture: Capture) -> Iterator[tuple[str, Memory]]:
    # What the runtime needed to start is in no stage: its own mark is that of its imports.
    yield "empty", capture.before.model_copy(update={"stage_peak": None})
    yield "loaded", capture.loaded
    first = next((case.memory for case in capture.cases if case.memory is not None), None)
    if first is not None:
        yield "first", first
    timed = next((timing.memory for timing in capture.timings if timing.memory is not None), None)
    if timed is not None:
        yield "timed", timed


def _middle(read: Sequence[Memory]) -> StageMemory:
    def of(key: str) -> float | None:
        known = [value for each in read if (value := getattr(each, key)) is not None]
        return median(known) if known else None

    return StageMemory(**{key: of(key) for key in READ}, peak=of("stage_peak"))


def _top(capture: Capture) -> int | None:
    return max((each.rss_peak for each in capture.readings if each.rss_peak is not None), default=None)
