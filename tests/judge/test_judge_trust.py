"""What a device says of itself, held against what else is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.rollout import Setting
from edgequant.archive.types import Capture, Memory, TimingCapture
from edgequant.judge import trust
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
