"""A release's verdict: states, attempts, deviations, baselines; and what holds of every release."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import pytest

from edgequant.compare.blocks import of_two_sessions, student
from edgequant.judge.acceptance import State, TrialFacts, Value, worst_state
from edgequant.judge.acceptance_types import ORDER
from edgequant.judge.verdict import Verdict
from edgequant.spec.accept import TrialKey
from tests.judge.releases import FLOAT, GONE, KEY, LATER, Release, blocks, facts, generated, spec_of
from tests.nightly import all_but

PLAIN = {"y:sqnr_db": 30.0, "z:sqnr_db": 40.0, "size_mb": 3.0, "mnn": "3.6.1", "low_memory_engaged": True}


def state(rule: Any, *tries: dict[str, Any], baseline: dict[str, Any] | None = None, **more: Any) -> State:
    """Of one rule, on one trial that is good apart from it."""
    return result(rule, *tries, baseline=baseline, **more).state


def result(rule: Any, *tries: dict[str, Any], baseline: dict[str, Any] | None = None, **more: Any) -> Any:
    release = Release(
        spec_of([rule], **more),
        {KEY: [facts(facts=each) for each in tries]},
        None if baseline is None else {KEY: facts(facts=baseline)},
    )
    return release.judge().trials[0].rules[-1]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("sqnr_db >= 30", State.PASS),
        ("sqnr_db >= 30.0000001", State.FAIL),
        ("z:sqnr_db >= 35", State.PASS),
        ("x:sqnr_db >= 35", State.INCONCLUSIVE),
        ("cosine >= 0.5", State.INCONCLUSIVE),
        ({"rule": "sqnr_db >= 29.5", "margin": 1}, State.MARGINAL),
        ({"rule": "sqnr_db >= 29", "margin": 1}, State.PASS),
        ({"rule": "size_mb <= 3.5", "margin": 1}, State.MARGINAL),
        ("size_mb <= 3", State.PASS),
        ("mnn >= 3.6", State.PASS),
        ("mnn >= 3.10", State.FAIL),
        ("mnn == 3.6.1", State.PASS),
        ("low_memory_engaged == true", State.PASS),
        ("low_memory_engaged == false", State.FAIL),
        ("finding:NAN_SWALLOWED == absent", State.PASS),
        ("finding:NAN_SWALLOWED == present", State.FAIL),
        ("task:cer <= 1", State.INCONCLUSIVE),
        ("latency_ms.p50 <= 1", State.INCONCLUSIVE),
        ("sqnr_db >= float - 1", State.INCONCLUSIVE),
        ("sqnr_db >= baseline - 1", State.INCONCLUSIVE),
    ],
)
def test_a_rule_by_itself(rule: Any, wanted: State) -> None:
    assert state(rule, PLAIN, tasks={"cer": {"function": "a.py:f", "better": "lower"}}) is wanted


def test_a_number_with_an_interval_is_judged_by_the_whole_of_it() -> None:
    for bound, wanted in ((13, State.PASS), (12, State.PASS), (11.5, State.INCONCLUSIVE), (10, State.INCONCLUSIVE),
                          (9.9, State.FAIL)):  # fmt: skip
        p50 = {"latency_ms.p50": Value(11.0, low=10.0, high=12.0)}
        assert state(f"latency_ms.p50 <= {bound}", p50) is wanted
    near = {"rule": "latency_ms.p50 <= 12.5", "margin": 1}
    assert state(near, {"latency_ms.p50": Value(11.0, low=10.0, high=12.0)}) is State.MARGINAL


def test_a_number_that_is_not_valid_says_why() -> None:
    found = result("latency_ms.p50 <= 12", {"latency_ms.p50": Value(None, "not valid: LOAD: 3 beside it")})
    assert (found.state, found.why) == (State.INCONCLUSIVE, "not valid: LOAD: 3 beside it")


def test_steps_that_were_not_run_are_not_told() -> None:
    never = {"y:drift.breaks_at": Value(101, "none of 100 steps breaks it", low=101, high=1e9)}
    assert state("y:drift.breaks_at >= 100", never) is State.PASS
    assert state("drift.breaks_at >= 500", never) is State.INCONCLUSIVE
    assert state("drift.breaks_at >= 50", {"y:drift.breaks_at": 7}) is State.FAIL


def test_what_a_trial_breaks_that_proves_nothing_is_no_fail() -> None:
    """As where the reference is that of other cases: the trial's own verdict knows."""
    void = facts(verdict=Verdict.INCONCLUSIVE, facts=PLAIN, doubts=("REFERENCE_OTHER",))
    judged = Release(spec_of(["sqnr_db >= 35"]), {KEY: [void]}).judge()
    assert (judged.state, judged.trials[0].rules[-1].why) == (
        State.INCONCLUSIVE, "the trial proves nothing: REFERENCE_OTHER",
    )  # fmt: skip


def test_a_rule_without_an_output_is_for_those_that_no_other_names() -> None:
    """As with --limit: so the trial's own verdict agrees."""
    release = Release(spec_of(["sqnr_db >= 35", "y:sqnr_db >= 28"]), {KEY: [facts(facts=PLAIN)]})
    assert [each.state for each in release.judge().trials[0].rules] == [State.PASS] * 4
    aside = spec_of(["sqnr_db >= 35", {"rule": "y:sqnr_db >= 28", "required": False}])
    assert replace(release, spec=aside).judge().state is State.FAIL


def test_of_several_outputs_the_worst_is_told() -> None:
    found = result("sqnr_db >= 45", PLAIN)
    assert (found.value.value, found.why) == (30.0, "output y")


def test_relative_to_float_on_the_same_device() -> None:
    spec = spec_of(["size_mb <= 0.3 * float", "sqnr_db >= float - 15"])
    other = TrialKey("m", "float", "elsewhere")
    attempts = {
        KEY: [facts(facts=PLAIN)], FLOAT: [facts(FLOAT, facts={"size_mb": 12.0, "y:sqnr_db": 44, "z:sqnr_db": 90})],
        other: [facts(other, facts={"size_mb": 1.0})],
    }  # fmt: skip
    size, sqnr = Release(spec, attempts).judge().trials[0].rules[-2:]
    assert (size.state, size.bound) == (State.PASS, pytest.approx(3.6))
    assert (sqnr.state, sqnr.bound, sqnr.why) == (State.FAIL, 75, "output z")


def test_float_in_one_session_is_compared_round_by_round() -> None:
    """What slows both down in a round is no difference."""
    draw = random.Random(1)
    both = [draw.choice([1.0, 1.4]) for _ in range(7)]
    mine = Value(8.0, low=6, high=12, blocks=tuple((n, 8 * each) for n, each in enumerate(both)), session="s")
    base = Value(10.0, low=8, high=15, blocks=tuple((n, 10.0 * each) for n, each in enumerate(both)), session="s")
    for session, wanted in (("s", State.PASS), ("t", State.INCONCLUSIVE)):
        attempts = {KEY: [facts(facts={"latency_ms.p50": replace(mine, session=session)})],
                    FLOAT: [facts(FLOAT, facts={"latency_ms.p50": base})]}  # fmt: skip
        judged = Release(spec_of(["latency_ms.p50 <= 0.9 * float"]), attempts).judge()
        assert judged.trials[0].rules[-1].state is wanted


def test_an_informative_trial_decides_nothing_and_is_shown() -> None:
    spec = spec_of(["size_mb <= 0.3 * float"])
    attempts = {KEY: [facts(facts=PLAIN)], FLOAT: [facts(FLOAT, Verdict.FAIL, facts={"size_mb": 12.0}, against=("a",))]}
    judged = Release(spec, attempts).judge()
    assert judged.state is State.PASS
    assert [(each.state, each.informative) for each in judged.trials] == [(State.PASS, False), (State.FAIL, True)]
    assert Release(spec, {FLOAT: attempts[FLOAT]}).judge().state is State.ERROR


# ---- attempts


@pytest.mark.parametrize(
    ("tries", "wanted"),
    [
        ("F", State.FAIL), ("P", State.PASS), ("FP", State.FLAKY), ("PF", State.FLAKY), ("FE", State.FAIL),
        ("EF", State.FAIL), ("EP", State.PASS), ("IP", State.PASS), ("EI", State.ERROR), ("IM", State.MARGINAL),
        ("PM", State.MARGINAL), ("FIP", State.FLAKY), ("EEE", State.ERROR), ("", State.ERROR), ("FF", State.FAIL),
    ],
)  # fmt: skip
def test_attempts(tries: str, wanted: State) -> None:
    made = {
        "F": facts(verdict=Verdict.FAIL, against=("finding:X",)), "P": facts(), "M": facts(verdict=Verdict.MARGINAL),
        "E": facts(verdict=Verdict.ERROR, error="DEVICE_BUSY: busy"), "I": facts(verdict=Verdict.INCONCLUSIVE),
    }  # fmt: skip
    judged = Release(spec_of(), {KEY: [made[each] for each in tries]}).judge()
    assert judged.state is wanted
    assert judged.state.exit_code == {State.FAIL: 1, State.ERROR: 3, State.FLAKY: 4}.get(wanted, 0)


def test_exit_codes_and_order() -> None:
    assert [each.exit_code for each in ORDER] == [0, 0, 0, 4, 4, 3, 1]
    assert [each.value for each in ORDER] == ["PASS", "MARGINAL", "ACCEPTED", "INCONCLUSIVE", "FLAKY", "ERROR", "FAIL"]
    assert worst_state([]) is State.ERROR


# ---- random inputs


def test_random_inputs_alone_make_no_release() -> None:
    attempts = {KEY: [facts(random_inputs=True)]}
    assert Release(spec_of(), attempts).judge().state is State.INCONCLUSIVE
    assert Release(spec_of(random_inputs="accepted"), attempts).judge().state is State.PASS


# ---- deviations


def broken(*against: str, **more: Any) -> TrialFacts:
    return facts(verdict=Verdict.FAIL, against=against, facts={**PLAIN, "y:sqnr_db": 20.0}, **more)


LIMIT = "limit:y:sqnr_db>=25"
KNOWN = {"rule": "sqnr_db >= 25", "reason": "known", "expires": LATER}


def test_a_rule_that_is_broken_is_accepted_until_its_day() -> None:
    release = Release(spec_of(["sqnr_db >= 25"], [KNOWN]), {KEY: [broken(LIMIT)]})
    judged = release.judge()
    assert judged.state is State.ACCEPTED
    assert judged.findings == ()
    rule = judged.trials[0].rules[-1]
    assert rule.deviation is not None
    assert "accepted until 2027-01-31: known" in rule.why
    gone = replace(release, spec=spec_of(["sqnr_db >= 25"], [{**KNOWN, "expires": GONE}])).judge()
    assert gone.state is State.FAIL
    assert [each.code for each in gone.findings] == ["DEVIATION_EXPIRED"]
    today = replace(release, spec=spec_of(["sqnr_db >= 25"], [{**KNOWN, "expires": "2026-11-30"}])).judge()
    assert today.state is State.ACCEPTED


def test_what_is_accepted_has_to_be_all_that_speaks_against_it() -> None:
    spec = spec_of(["sqnr_db >= 25"], [KNOWN])
    for against in ((LIMIT, "finding:KERNEL_FAULT"), (LIMIT, "limit:y:cosine>=0.9"), ("limit:y:sqnr_db>=26",), ()):
        assert Release(spec, {KEY: [broken(*against)]}).judge().state is State.FAIL
    # What could not be judged comes to light.
    doubtful = broken(LIMIT, doubts=("REFERENCE_NOT_FINITE",))
    assert Release(spec, {KEY: [doubtful]}).judge().state is State.INCONCLUSIVE


def test_a_finding_is_accepted_with_its_rule() -> None:
    known = {"finding": "KERNEL_FAULT", "reason": "known", "expires": LATER, "device": "arm"}
    attempt = facts(verdict=Verdict.FAIL, against=("finding:KERNEL_FAULT",), facts={"finding:KERNEL_FAULT": True})
    spec = spec_of(["finding:KERNEL_FAULT == absent"], [known])
    assert Release(spec, {KEY: [attempt]}).judge().state is State.ACCEPTED
    other = spec_of(["finding:KERNEL_FAULT == absent"], [{**known, "device": "board?"}])
    judged = Release(other, {KEY: [attempt]}).judge()
    assert (judged.state, [each.code for each in judged.findings]) == (State.FAIL, ["DEVIATION_UNUSED"])


def test_an_error_is_never_accepted() -> None:
    known = {"finding": "DEVICE_BUSY", "reason": "known", "expires": LATER}
    attempt = facts(verdict=Verdict.ERROR, error="DEVICE_BUSY: busy", facts={"finding:DEVICE_BUSY": True})
    assert Release(spec_of([], [known]), {KEY: [attempt]}).judge().state is State.ERROR


def test_a_deviation_that_accepts_nothing_is_told() -> None:
    judged = Release(spec_of(["sqnr_db >= 25"], [KNOWN]), {KEY: [facts(facts=PLAIN)]}).judge()
    assert judged.state is State.PASS
    assert [(each.code, each.severity) for each in judged.findings] == [("DEVIATION_UNUSED", "warn")]


# ---- baseline


def test_accuracy_and_size_against_a_baseline() -> None:
    base = {"y:sqnr_db": 32.0, "z:sqnr_db": 40.0, "size_mb": 2.0}
    for rule, wanted in (("sqnr_db >= baseline - 2", State.PASS), ("sqnr_db >= baseline - 1.9", State.FAIL),
                         ("size_mb <= baseline + 1", State.PASS), ("size_mb <= baseline + 0.5", State.FAIL),
                         ("size_mb <= baseline + 50 %", State.PASS)):  # fmt: skip
        assert state(rule, PLAIN, baseline=base) is wanted
    # Both limits: of value, and of change.
    release = Release(spec_of(["sqnr_db >= 25", "sqnr_db >= baseline - 1"]), {KEY: [facts(facts=PLAIN)]},
                      {KEY: facts(facts=base)})  # fmt: skip
    assert [each.state for each in release.judge().trials[0].rules[-2:]] == [State.PASS, State.FAIL]


def test_what_the_baseline_itself_spreads_over_is_no_regression() -> None:
    base = {"y:sqnr_db": Value(32.0, low=28.5, high=32.0), "z:sqnr_db": 40.0}
    assert state("sqnr_db >= baseline - 2", {**PLAIN, "y:sqnr_db": 27.0}, baseline=base) is State.PASS
    assert state("sqnr_db >= baseline - 2", {**PLAIN, "y:sqnr_db": 26.4}, baseline=base) is State.FAIL


@pytest.mark.parametrize("name", ["cases", "memory", "precision", "cpu", "threads", "cores", "device"])
def test_what_is_not_alike_is_not_compared(name: str) -> None:
    told = {"latency_ms.p50": blocks(10, 0.001), **PLAIN}
    rules = ["latency_ms.p50 <= baseline + 5 %", "sqnr_db >= baseline - 2", "size_mb <= baseline + 1"]
    base = facts(facts=told, identity={name: "other"})
    release = Release(spec_of(rules), {KEY: [facts(facts=told)]}, {KEY: base})
    latency, sqnr, size = release.judge().trials[0].rules[-3:]
    assert latency.state is State.INCONCLUSIVE
    assert f"not comparable with baseline: {name} is" in latency.why
    accuracy = name in ("cases", "memory", "precision", "cpu")
    assert sqnr.state is (State.INCONCLUSIVE if accuracy else State.PASS)
    assert size.state is State.PASS


def test_a_trial_that_the_baseline_has_not() -> None:
    release = Release(spec_of(["size_mb <= baseline + 1"]), {KEY: [facts(facts=PLAIN)]}, {})
    found = release.judge().trials[0].rules[-1]
    assert (found.state, found.why) == (State.INCONCLUSIVE, f"the baseline has nothing of {KEY}")


def test_times_with_intervals_alone_are_told_apart_where_both_ends_agree() -> None:
    base = {"latency_ms.load": Value(10.0, low=9.0, high=11.0)}
    for now, wanted in (((8, 9), State.PASS), ((8, 9.5), State.INCONCLUSIVE), ((10, 12), State.INCONCLUSIVE),
                        ((11.1, 12), State.FAIL)):  # fmt: skip
        told = {"latency_ms.load": Value(9.0, low=now[0], high=now[1])}
        assert state("latency_ms.load <= baseline", told, baseline=base) is wanted


def test_the_interval_of_two_sessions_is_welchs() -> None:
    """Against the formula written out; and it covers the truth as often as it says."""
    draw = random.Random(5)
    inside = 0
    for _ in range(1000):
        first = [draw.gauss(0, 0.01) for _ in range(7)]
        second = [draw.gauss(0.05, 0.02) for _ in range(5)]
        found = of_two_sessions([math.exp(x) for x in first], [math.exp(x) for x in second], 0.99)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= math.exp(0.05) <= found.high
    one, two = stdev(first) ** 2 / 7, stdev(second) ** 2 / 5
    freedom = int((one + two) ** 2 / (one**2 / 6 + two**2 / 4))
    half = student(0.99, freedom) * math.sqrt(one + two)
    assert found.high == pytest.approx(math.exp(fmean(second) - fmean(first) + half))
    assert 980 <= inside <= 1000


GUARD = ["sqnr_db >= baseline - 1", "latency_ms.p50 <= baseline + 2 %", "size_mb <= baseline + 0.5"]


def repeat(seed: int, *, db: float = 0.0, slower: float = 1.0, mb: float = 0.0, session: float = 0.0) -> list[State]:
    """The three rules of a release, against a baseline of another session.  session: what sessions differ by at random,
    as a share."""
    draw = random.Random(seed)
    then, now = (math.exp(draw.gauss(0, session)) for _ in range(2))
    base = {"y:sqnr_db": 30.0, "size_mb": 5.0, "latency_ms.p50": blocks(10 * then, 0.005, seed=2 * seed + 1)}
    told = {"y:sqnr_db": 30.0 - db, "size_mb": 5.0 + mb,
            "latency_ms.p50": blocks(10 * now * slower, 0.005, seed=2 * seed)}  # fmt: skip
    release = Release(spec_of(GUARD), {KEY: [facts(facts=told)]}, {KEY: facts(facts=base)})
    return [each.state for each in release.judge().trials[0].rules[-3:]]


def test_no_false_alarm_in_fifty_repeats() -> None:
    found = [repeat(seed) for seed in range(50)]
    assert not any(State.FAIL in each for each in found)
    assert sum(each == [State.PASS] * 3 for each in found) >= 48
    # Sessions that differ by themselves make it harder to tell, and accuse nothing.
    apart_too = [repeat(seed, session=0.003) for seed in range(50)]
    assert not any(State.FAIL in each for each in apart_too)


@pytest.mark.parametrize(("change", "rule"), [({"db": 2.0}, 0), ({"slower": 1.05}, 1), ({"mb": 1.0}, 2)])
def test_each_regression_is_found_by_its_own_rule(change: dict[str, float], rule: int) -> None:
    for seed in range(50):
        found = repeat(seed, **change)
        assert found[rule] is State.FAIL
        assert State.FAIL not in found[:rule] + found[rule + 1 :]


# ---- what holds of every release

SEEDS = all_but(*range(12), of=range(100))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_required_rule_without_a_value_is_never_good(seed: int) -> None:
    release = generated(seed)
    for trial in release.judge().trials:
        for rule in trial.rules:
            if rule.value.value is None:
                assert rule.state in (State.INCONCLUSIVE, State.ERROR)
                assert rule.why


@pytest.mark.parametrize("seed", SEEDS)
def test_no_further_attempt_makes_a_fail_good(seed: int) -> None:
    release = generated(seed)
    before = release.judge()
    more = {key: [*tries, facts(key, facts=PLAIN)] for key, tries in release.attempts.items()}
    after = replace(release, attempts=more).judge()
    for old, new in zip(before.trials, after.trials, strict=True):
        if old.state in (State.FAIL, State.FLAKY):
            assert new.state in (State.FAIL, State.FLAKY, State.ERROR)
        for one, two in zip(old.rules, new.rules, strict=True):
            if one.state in (State.FAIL, State.FLAKY):
                assert two.state in (State.FAIL, State.FLAKY)
    if before.state in (State.FAIL, State.FLAKY):
        assert after.state.exit_code != 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rule_more_never_makes_it_better(seed: int) -> None:
    """Unless it names an output: that takes the place, for this output, of the rule without."""
    release = generated(seed)
    spec = release.spec
    extra = spec_of(["rel_max <= 0.1", {"rule": "memory_mb.session <= 5", "required": False}]).rules
    before, after = (
        release.judge(),
        replace(release, spec=spec.model_copy(update={"rules": spec.rules + extra})).judge(),
    )
    assert ORDER.index(after.state) >= ORDER.index(before.state)
    fewer = replace(release, spec=spec.model_copy(update={"deviations": ()})).judge()
    assert ORDER.index(fewer.state) >= ORDER.index(before.state)


@pytest.mark.parametrize("seed", SEEDS)
def test_informative_rules_decide_nothing(seed: int) -> None:
    release = generated(seed)
    spec = release.spec
    without = spec.model_copy(update={"rules": tuple(rule for rule in spec.rules if rule.required)})
    asked = {key: tries for key, tries in release.attempts.items() if key in spec.trials()}
    beside = {key: tries for key, tries in release.attempts.items() if key in without.float_beside()}
    kept = replace(release, spec=without, attempts={**asked, **beside})
    assert kept.judge().state is release.judge().state


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_trials_does_not_matter(seed: int) -> None:
    release = generated(seed)
    turned = replace(release, attempts=dict(reversed(release.attempts.items())))
    assert {each.key: each.state for each in turned.judge().trials} == {
        each.key: each.state for each in release.judge().trials
    }
