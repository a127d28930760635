"""What a device says of itself, held against what else is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.rollout import Setting
from edgequant.archive.types import Capture, Memory, TimingCapture
from edgequant.judge import trust
from edgequant.judge.engaged import determinism
from edgequant.judge.latency import clock
from edgequant.judge.stages import Comparer
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict
from tests.judge.archives import TRUE, WAVE, capture, off

ARRAYS = MemoryArrays()


def took(cases: Any = TRUE, **more: Any) -> Capture:
    return capture(ARRAYS, cases, **more)


def code(observed: Observed) -> str | None:
    if observed == NOTHING:
        return None
    assert observed.verdict is Verdict.INCONCLUSIVE
    (finding,) = observed.findings
    assert finding.severity == "error"
    assert finding.remedy
    return finding.code


def timing(*samples: float, **more: Any) -> TimingCapture:
    return TimingCapture(**{"case": "a", "samples_ms": samples, "complete": True} | more)


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (Memory(), None),
        (Memory(rss=30_000, rss_peak=40_000, pss=29_000), None),
        (Memory(rss=40_100, rss_peak=40_000), None),  # some pages late
        (Memory(rss=0, rss_peak=40_000), "MEMORY_IMPOSSIBLE"),
        (Memory(rss=90_000, rss_peak=40_000), "MEMORY_IMPOSSIBLE"),
        (Memory(rss=30_000, pss=60_000), "MEMORY_IMPOSSIBLE"),
    ],
)
def test_memory_that_cannot_be(reading: Memory, found: str | None) -> None:
    assert code(trust.memory(took(loaded=reading))) == found
    assert code(trust.memory(took(before=reading))) == found


def test_a_highest_mark_does_not_fall() -> None:
    late = timing(1.0, memory=Memory(rss=20_000, rss_peak=30_000))
    assert code(trust.memory(took(loaded=Memory(rss=20_000, rss_peak=39_000), timings=(late,)))) == "MEMORY_IMPOSSIBLE"


@pytest.mark.parametrize(
    ("grown", "count", "found"),
    [(1 << 10, 100, None), (20 << 10, 100, "MEMORY_GROWS"), (20 << 10, 5000, None), (200 << 10, 5000, "MEMORY_GROWS")],
)
def test_memory_that_grows_with_each_inference(grown: int, count: int, found: str | None) -> None:
    cases = took().cases
    cases = tuple(each.model_copy(update={"memory": Memory(rss=50_000)}) for each in cases)
    after = timing(*[1.0] * count, memory=Memory(rss=50_000 + grown))
    assert code(trust.memory(took(timings=(after,)).model_copy(update={"cases": cases}))) == found


@pytest.mark.parametrize(
    ("samples", "seconds", "said"),
    [
        ([10.0] * 100, 1.1, ""),
        ([10.0] * 100, None, ""),
        ([10.0] * 100, 0.8, "jumps or is fast"),
        ([0.0] * 100, 0.5, "stands still"),
        ([10.0] * 100, 9.0, "is slow"),
        ([10.0] * 100, 4.5, ""),
        ([], 1.0, ""),
    ],
)
def test_clocks(samples: list[float], seconds: float | None, said: str) -> None:
    found = clock(timing(*samples, seconds=seconds))
    assert said in " ".join(found)
    assert bool(found) is bool(said)


def test_the_warm_up_takes_time_as_well() -> None:
    assert clock(timing(*[10.0] * 10, warmup=90, seconds=3.5)) == []


def test_what_is_timed_is_what_is_judged() -> None:
    refs = {case.case: case.outputs for case in took().cases}
    same, other = timing(1.0, outputs=refs["a"]), timing(1.0, outputs=refs["b"])
    assert code(trust.timed_outputs(took(timings=(same,)), deterministic=True)) is None
    assert code(trust.timed_outputs(took(timings=(other,)), deterministic=True)) == "TIMED_OTHER_OUTPUTS"
    assert code(trust.timed_outputs(took(timings=(other,)), deterministic=False)) is None
    assert code(trust.timed_outputs(took(timings=(timing(1.0),)), deterministic=True)) is None


@pytest.mark.parametrize(
    ("loaded", "size", "found"),
    [
        (30_000, 1 << 18, "MEMORY_IMPOSSIBLE"),
        (30_001, 1 << 18, None),
        (30_000, 1000, None),  # of so small a file the process may have had the memory already
        (None, 1 << 20, None),
    ],
)
def test_memory_that_does_not_move_when_a_model_is_loaded(loaded: int | None, size: int, found: str | None) -> None:
    before, then = Memory(rss=30_000, rss_peak=40_000), Memory(rss=loaded, rss_peak=40_000)
    if loaded is None:
        before = then = Memory()
    late = timing(1.0, memory=then)
    assert code(trust.memory(took(before=before, loaded=then, timings=(late,)), size)) == found
    if found:
        assert code(trust.memory(took(before=before, loaded=then), size)) is None  # two readings are too few
        moved = timing(1.0, memory=Memory(rss=30_000, rss_peak=40_000, pss=2))
        assert code(trust.memory(took(before=before, loaded=then, timings=(moved,)), size)) is None


@pytest.mark.parametrize(
    ("samples", "more", "why"),
    [
        ([1.0, 0.0, 0.0], {}, "clock is too coarse"),
        ([1.0, 0.0, 0.0, 2.0], {}, None),
        ([0.0] * 4, {}, "stands still"),
        ([1.0] * 5 + [2.1] * 5, {}, "2.1 times as long"),
        ([1.0] * 5 + [1.9] * 5, {}, None),
        ([2.1] * 5 + [1.0] * 5, {}, None),
        ([1.0] * 4 + [2.1] * 4, {}, None),  # too few
        ([1.0] * 4, {"apart_ms": (30.0, 10.4, 90.0)}, "does not compute there"),
        ([1.0] * 4, {"apart_ms": (30.0, 10.2, 90.0)}, None),
        ([0.005] * 4, {"apart_ms": (0.3,)}, None),  # what comes around it
        ([100.0] * 5, {"seconds": 1.9, "looped": 0.89}, None),
        ([100.0] * 5, {"seconds": 1.9, "looped": 0.91}, "clock is slow"),
        ([1.0] * 5, {"seconds": 1.9, "looped": 0.89}, None),
        ([1000.0] * 5, {"seconds": 9.0, "looped": 6.2}, None),
        ([1000.0] * 5, {"seconds": 9.0, "looped": 6.4}, "clock is slow"),
        ([100.0] * 5, {"seconds": 9.0}, "clock is slow"),
    ],
)
def test_times_that_say_nothing(samples: list[float], more: dict[str, Any], why: str | None) -> None:
    said = clock(timing(*samples, **more))
    assert len(said) == (why is not None), said
    assert why is None or why in said[0]


def test_what_changes_after_a_while_is_not_by_chance() -> None:
    late = {"a": {"y": -WAVE}, "b": TRUE["b"]}
    first = took(repeated=late)
    ref = {name: ref for each in first.repeated if each.case == "a" for name, ref in (each.outputs or {}).items()}
    steady, observed = determinism(took(repeated=late, timings=(timing(1.0, 2.0, warmup=3, outputs=ref),)))
    assert steady is False
    assert code(observed) == "OUTPUT_CHANGED_LATER"
    assert "after 7 inferences" in observed.findings[0].message
    for other in (timing(1.0), timing(1.0, outputs={}), timing(1.0, case="b", outputs=ref)):
        assert code(determinism(took(repeated=late, timings=(other,)))[1]) == "NOT_DETERMINISTIC"


def test_outputs_of_another_case() -> None:
    assert code(trust.stale(took(repeated=TRUE))) is None
    assert code(trust.stale(took(repeated={"a": TRUE["b"]}))) == "OUTPUT_OF_OTHER_CASE"
    assert code(trust.stale(took(repeated={"a": {"y": np.flip(WAVE)}}))) is None  # other, but nobody's
    alike = {"a": {"y": WAVE}, "b": {"y": WAVE}}
    assert code(trust.stale(took(alike, repeated=alike))) is None


def test_refused_after_another_size() -> None:
    assert code(trust.refused_again(took(repeated=TRUE))) is None
    assert code(trust.refused_again(took(repeated={"b": TRUE["b"], "a": "resize failed"}))) == "REFUSED_AGAIN"


@pytest.mark.parametrize(
    ("kind", "db", "rounds", "wrong"),
    [
        ("threads", 80, False, False),
        ("threads", 40, False, True),
        ("threads", 40, True, False),
        ("threads", 10, True, True),
        ("model", 80, True, True),
        ("model", None, True, False),
    ],
)
def test_other_threads_and_what_comes_after_another_model(
    kind: Any, db: float | None, rounds: bool, wrong: bool
) -> None:
    outputs = {"y": ARRAYS.put(TRUE["a"]["y"] if db is None else off(TRUE["a"]["y"], db))}
    found = took(settings=(Setting(kind=kind, case="a", threads=2, outputs=outputs),))
    observed = trust.settings(found, Comparer(ARRAYS), rounds=rounds)
    assert code(observed) == ("NOT_DETERMINISTIC" if wrong else None)
    if wrong:
        assert f"{db} dB" in observed.findings[0].message
