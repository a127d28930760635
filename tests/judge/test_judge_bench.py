"""From blocks to numbers that may be believed, or that say why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import Capture, CaseCapture, Failure, Memory
from edgequant.judge.bench import BenchJudgement, Block, blocks_of, fastest_work, good_rounds, judge_bench
from edgequant.judge.verdict import Verdict
from tests.judge.test_disturbed import block, last, noted

Blocks = list[Block]


def capture(ms: float, number: int, **changed: Any) -> Capture:
    random = np.random.default_rng(number)
    samples = tuple(float(each) for each in ms * (1 + 0.01 * random.random(100)))
    waited = max(sum(samples) / 1e3, 0.0)
    cpu = tuple(2 * each for each in samples)
    own = {"samples_ms": samples, "cpu_ms": cpu, "seconds": max(1.5 * waited + 0.1, 1.8)}
    timing = block(**{**own, "looped": waited + 0.1, **changed})
    return Capture(
        trial=f"t{number}", role="device", timings=(timing,), load_ms=5.0, loaded=Memory(rss_peak=1000),
        cases=(CaseCapture(case="middle", ms=20.0, memory=Memory(rss_peak=2000 + number)),),
    )  # fmt: skip


def blocks(ms: float, count: int = 7, spread: float = 0.002, **changed: Any) -> Blocks:
    wobble = 1 + spread * np.cos(np.arange(count))
    return blocks_of([(number, capture(ms * wobble[number], number, **changed)) for number in range(count)], 2)


def judged(**settings: Blocks) -> BenchJudgement:
    return judge_bench(settings, failed={})


def test_numbers_of_a_quiet_session() -> None:
    found = judged(a=blocks(10.0), b=blocks(10.0))
    assert found.verdict is Verdict.PASS
    one = found.settings[0]
    assert one.valid
    assert one.used == tuple(range(7))
    assert one.ms["p50"].value == pytest.approx(10.05, rel=0.005)
    assert one.cpu_ms is not None
    assert one.cpu_ms.value == pytest.approx(20.1, rel=0.005)
    assert one.load is not None
    assert one.load.value == 5.0
    assert one.peak_kb == 2006
    (same,) = found.compared
    assert same.says == "same"
    assert same.rounds == 7


@pytest.mark.parametrize(("ms", "says"), [(10.3, "slower"), (9.7, "faster"), (161.4, "slower")])
def test_what_differs_is_told(ms: float, says: str) -> None:
    (found,) = judged(float=blocks(10.0), dynamic=blocks(ms)).compared
    assert found.says == says
    assert found.ratio.value == pytest.approx(ms / 10, rel=0.005)


def test_quantizing_that_costs_time_is_told() -> None:
    given = {"float": blocks(10.0), "dynamic:8": blocks(20.0), "fp16": blocks(20.0)}
    (found,) = judge_bench(given, failed={}, quantized=["dynamic:8"]).findings
    assert found.code == "INT8_SLOWER"
    assert "2.00 times" in found.message
    assert not judge_bench(
        {"float": blocks(10.0), "dynamic:8": blocks(5.0)}, failed={}, quantized=["dynamic:8"]
    ).findings


def test_each_is_held_against_its_own_base() -> None:
    given = {"one": blocks(10.0), "two": blocks(5.0), "other": blocks(5.0)}
    found = judge_bench(given, failed={}, bases={"other": "two"}).compared
    assert [(each.base, each.name, each.says) for each in found] == [("one", "two", "faster"), ("two", "other", "same")]


def test_what_cannot_be_told_is_unclear() -> None:
    noisy = blocks_of([(n, capture(10.0 * (1 + 0.02 * (-1) ** n), n)) for n in range(7)], 2)
    found = judge_bench({"a": blocks(10.0), "b": noisy}, failed={}, within=0.05)
    assert found.settings[1].valid
    assert found.compared[0].says == "unclear"


def test_disturbed_blocks_are_left_out_and_told_where_too_few_are_left() -> None:
    quiet, loud = blocks(10.0), blocks(50.0, **last(busy=99.0))
    found = judged(a=[*quiet[:4], *loud[4:]]).settings[0]
    assert found.valid
    assert found.used == (0, 1, 2, 3)
    assert found.ms["p50"].value == pytest.approx(10.05, rel=0.01)
    lost = judged(a=[*quiet[:2], *loud[2:]])
    assert lost.verdict is Verdict.INCONCLUSIVE
    assert dict(lost.settings[0].why_invalid).keys() >= {"OTHERS_RUNNING", "TOO_FEW_BLOCKS"}
    assert lost.settings[0].ms, "numbers are shown, with what speaks against them"


def test_nothing_invalid_is_compared() -> None:
    (found,) = judged(a=blocks(10.0), b=blocks(20.0, **last(busy=99.0))).compared
    assert found.says == "unclear"


def test_a_wide_interval_is_no_measurement() -> None:
    found = judged(a=blocks(10.0, spread=0.1)).settings[0]
    assert not found.valid
    ((code, message),) = found.why_invalid
    assert code == "TOO_SPREAD"
    half = found.ms["p50"].half
    assert half is not None
    assert f"--blocks {int(7 * (half / 0.025) ** 2) + 1} " in message


def test_more_blocks_are_not_advised_where_each_is_disturbed() -> None:
    found = judged(a=blocks(10.0, spread=0.1, **last(busy=99.0))).settings[0]
    assert "--blocks" not in dict(found.why_invalid)["TOO_SPREAD"]


def test_what_failed_is_no_number() -> None:
    dead = [Block(0, Capture(trial="t", role="device", failure=Failure(code="RUNNER_DIED", message="dead")), ())]
    found = judge_bench({"a": blocks(10.0), "b": dead}, failed={"b": Verdict.ERROR})
    assert found.verdict is Verdict.ERROR
    assert found.settings[1].why_invalid == (("RUNNER_DIED", "dead"),)
    assert not found.compared


def test_times_that_cannot_be() -> None:
    found = judged(a=blocks_of([(n, capture(-10.0, n)) for n in range(7)], 2))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.settings[0].ms


def test_a_time_of_nothing_leaves_its_block_out() -> None:
    """Three blocks of which two have a time of 0 are one block, which has no interval."""
    sound = capture(10.0, 0)
    odd = [capture(10.0, n, samples_ms=(0.0, *capture(10.0, n).timings[0].samples_ms[1:])) for n in (1, 2)]
    for allowed in ((), ("CLOCK_ODD",)):
        found = judged(a=blocks_of(list(enumerate([sound, *odd])), 2, allowed)).settings[0]
        assert not found.valid
        assert "TOO_FEW_BLOCKS" in dict(found.why_invalid)
        assert found.used == (0,)


def test_a_block_of_nothing_is_compared_with_nothing() -> None:
    still = capture(10.0, 2, samples_ms=(0.0,) * 60 + (10.0,) * 40)
    made = blocks_of([(0, capture(10.0, 0)), (1, capture(10.0, 1)), (2, still)], 2)
    (found,) = judged(a=made, b=blocks(10.0, 3)).compared
    assert (found.says, found.rounds) == ("unclear", 2)


def test_only_rounds_in_which_all_are_sound_are_good() -> None:
    loud = blocks(10.0, **last(busy=99.0))
    assert good_rounds({"a": blocks(10.0), "b": [*blocks(10.0)[:5], loud[5], *blocks(10.0)[6:]]}) == [0, 1, 2, 3, 4, 6]


def test_what_is_borne_stays_in_the_name() -> None:
    slow = tuple(noted(after, governor="powersave") for after in (0.0, 0.6, 1.7))
    made = [(n, capture(10.0, n, conditions=slow)) for n in range(7)]
    assert not judged(a=blocks_of(made, 2)).settings[0].valid
    borne = judged(a=blocks_of(made, 2, ("GOVERNOR_SLOW",))).settings[0]
    assert borne.valid
    assert borne.title == "a [GOVERNOR_SLOW allowed]"


@pytest.mark.parametrize(("times", "code"), [((0.0,) * 9, "CLOCK_ODD"), ((-1.0,) * 9, "CLOCK_ODD"), ((), "")])
@pytest.mark.parametrize("count", [1, 5, 7])
def test_times_that_cannot_be_are_none_and_nothing_is_held_against_them(
    times: tuple[float, ...], code: str, count: int
) -> None:
    """The rest is: of the seven blocks, those that are left."""
    captures = []
    for number in range(7):
        each = capture(10.0, number)
        odd = each.timings[0].model_copy(update={"samples_ms": times, "cpu_ms": times})
        captures.append((number, each.model_copy(update={"timings": (odd,)}) if number < count else each))
    found = judged(odd=blocks_of(captures, 2), sound=blocks(10.0))
    odd, sound = found.settings
    assert sound.verdict is Verdict.PASS
    assert odd.verdict is (Verdict.PASS if count == 1 else Verdict.INCONCLUSIVE)
    assert odd.used == tuple(range(count, 7))
    assert [(each.rounds, each.says) for each in found.compared] == {1: [(6, "same")], 5: [(2, "unclear")], 7: []}[
        count
    ]
    if count == 7:
        assert [each for each, _ in odd.why_invalid] == [*([code] if code else []), "TOO_FEW_BLOCKS", "NOTHING_TIMED"]


def drifting(whole: float, count: int = 7, seed: int = 0, noise: float = 0.01, *, of_work: bool) -> list[Capture]:
    """A session that gets slower by `whole` from its first block to its last: the known work alone, or inferences."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        times = 1 + whole * number / (count - 1)
        ms = 10.0 * float(np.exp(noise * draw.standard_normal())) * (1.0 if of_work else times)
        work = 2.0 * float(np.exp(noise * draw.standard_normal())) * (times if of_work else 1.0)
        made.append(capture(ms, 100 * seed + number, work_ms=(work, work, work)))
    return made


@pytest.mark.parametrize("of_work", [True, False])
@pytest.mark.parametrize("whole", [0.075, -0.07])
def test_a_session_that_becomes_another_is_not_valid(whole: float, of_work: bool) -> None:
    """Each block is sound, and none is slow enough to be throttled."""
    made = list(enumerate(drifting(whole, of_work=of_work)))
    assert all(block.good for block in blocks_of(made, 2, (), fastest_work(each for _, each in made)))
    one = judge_bench({"a": blocks_of(made, 2)}, failed={}, within=0.1).settings[0]
    assert not one.valid
    assert [code for code, _ in one.why_invalid] == ["SESSION_DRIFTS"]
    assert ("known work" if of_work else "an inference") in one.why_invalid[0][1]
    borne = judge_bench({"a": blocks_of(made, 2)}, failed={}, within=0.1, allowed=["SESSION_DRIFTS"]).settings[0]
    assert borne.valid
    assert borne.title == "a [SESSION_DRIFTS allowed]"


def test_how_often_a_drift_is_found_and_a_quiet_session_accused() -> None:
    def share(whole: float, of_work: bool) -> float:
        found = [
            judge_bench({"a": blocks_of(list(enumerate(drifting(whole, seed=seed, of_work=of_work))), 2)}, failed={},
                        within=1.0).settings[0].why_invalid
            for seed in range(100)
        ]  # fmt: skip
        return sum(bool(each) for each in found) / len(found)

    assert share(0.0, of_work=True) <= 0.01
    assert share(0.08, of_work=True) >= 0.95
    assert share(0.08, of_work=False) >= 0.95
