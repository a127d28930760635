"""A number that is shown beside its bound is on the side of it that the verdict says, in every form and unit."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from typing import Any

import pytest

from edgequant.judge.acceptance import State, Value
from edgequant.plain import against
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance_junit import to_junit
from edgequant.report.acceptance_model import RuleReport
from edgequant.report.acceptance_summary import to_summary
from edgequant.report.html.acceptance import to_html
from edgequant.spec.limits import METRICS
from edgequant.text import apart
from tests.judge.releases import FLOAT, KEY, Release, blocks, facts, spec_of

_NUMBER = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"
_ASKED = re.compile(
    rf"({_NUMBER})(?: [A-Za-z]+)?(?: \(({_NUMBER}) to ({_NUMBER})\))?, ([<>]=) ({_NUMBER})(?: \S+)? is asked"
)
_KEPT = (State.PASS, State.MARGINAL)
RULES = {
    "sqnr_db >= {}": 25.0, "cosine >= {}": 0.995, "max_abs <= {}": 0.01, "size_mb <= {}": 4.0,
    "latency_ms.p50 <= {}": 12.0, "memory_mb.rss_peak <= {}": 300.0, "failing_share_95 <= {}": 0.05,
    "independent_cases >= {}": 12.0, "mismatch <= {}": 0.001, "task:cer <= {}": 0.05,
}  # fmt: skip


def near(draw: random.Random, bound: float) -> float:
    """As near as a float can be, or farther, on either side; or the bound itself."""
    return bound + draw.choice((-1, 0, 1)) * bound * 10 ** draw.uniform(-15.5, -0.5)


def agrees(rule: RuleReport, text: str) -> bool:
    """Whether a shown comparison is the verdict's; False where none is shown."""
    match = _ASKED.search(text)
    if match is None:
        return False
    value, low, high, op, bound = (each if each in (">=", "<=") else None if each is None else float(each)
                                   for each in match.groups())  # fmt: skip
    assert isinstance(value, float)
    assert isinstance(bound, float)
    ends = [value] if low is None or high is None else [float(low), float(high)]
    kept = [end >= bound if op == ">=" else end <= bound for end in ends]
    if rule.state in _KEPT:
        assert set(kept) == {True}, text
    elif rule.state is State.FAIL:
        assert set(kept) == {False}, text
    else:
        assert set(kept) == {True, False}, text
    return True


def test_what_is_shown_of_a_rule_is_what_was_judged() -> None:
    draw = random.Random(5)
    shown = dict.fromkeys(RULES, 0)
    for number in range(1500):
        form = draw.choice(list(RULES))
        bound = float(f"{near(draw, RULES[form]):.{draw.randint(1, 12)}g}")
        if form.startswith("cosine") and bound >= 1:
            continue  # nothing could keep it
        value = near(draw, bound)
        metric = form.split()[0]
        name = f"y:{metric}" if metric in METRICS else metric
        told: Any = Value(value)
        if metric.startswith(("latency", "memory")) and number % 2:
            ends = sorted((near(draw, value), near(draw, value)))
            told = Value(value, low=min(value, ends[0]), high=max(value, ends[1]))
        rule = {"rule": form.format(f"{bound:.12g}"), "margin": draw.choice((None, bound * 1e-6))}
        spec = spec_of([rule], tasks={"cer": {"function": "a.py:f", "better": "lower"}})
        found = Release(spec, {KEY: [facts(facts={name: told})]}).report()
        judged = found.trials[0].rules[-1]
        assert agrees(judged, words.said(judged, found.trials[0])), words.said(judged)
        shown[form] += 1
        if number % 50 == 0:  # every form says the same words
            junit = ElementTree.fromstring(to_junit(found))
            text = " ".join(each.text or "" for each in junit.iter()) + " ".join(
                each.get("message") or "" for each in junit.iter()
            )
            assert words.said(judged) in text
            assert judged.state in _KEPT or words.said(judged).split(";")[0] in unescape(to_summary(found)).replace(
                "\\", ""
            )
            cells = unescape(re.sub(r"<[^>]+>", " ", to_html(found)))
            assert words.number(judged, judged.value) in cells
            assert f"{judged.op} {words.number(judged, judged.bound)}" in cells
    assert min(shown.values()) > 50


def test_a_ratio_of_times_is_not_shown_as_a_comparison_that_says_otherwise() -> None:
    """Block by block it is 6 % slower; the medians of all samples say 4 %."""
    slow, base = blocks(106.0, 0.001, session="s"), blocks(100.0, 0.001, session="s")
    told = Value(104.0, low=103.0, high=107.0, blocks=slow.blocks, session="s")
    spec = spec_of(["latency_ms.p50 <= float + 5 %"], variants=["dynamic:8"])
    found = Release(
        spec,
        {KEY: [facts(facts={"latency_ms.p50": told})],
         FLOAT: [facts(FLOAT, facts={"latency_ms.p50": Value(100.0, low=99.0, high=101.0, blocks=base.blocks,
                                                         session="s")})]},
    ).report()  # fmt: skip
    rule = next(trial for trial in found.trials if not trial.informative).rules[-1]
    assert rule.state is State.FAIL
    assert "is asked" not in words.said(rule)
    assert "times that of float" in words.said(rule)
    page = unescape(re.sub(r"<[^>]+>", " ", to_html(found)))
    assert "<= 105 ms" not in page


def test_what_verify_shows_of_a_limit_is_what_was_judged() -> None:
    draw = random.Random(6)
    for _ in range(5000):
        name = draw.choice(sorted(set(METRICS) - {"device_sqnr_db"}))
        bound = float(f"{near(draw, {'>=': 25.0, '<=': 0.01}[METRICS[name]]):.{draw.randint(1, 9)}g}")
        value = near(draw, bound)
        shown, of = against(name, value, bound)
        assert (float(shown) < float(of), float(shown) > float(of)) == (value < bound, value > bound), (name, shown, of)


@pytest.mark.parametrize("value", [24.9999999, 24.96, 0.0])
def test_a_broken_limit_is_not_said_to_be_kept(value: float) -> None:
    told, bound = apart([value, 25.0])
    assert float(told) < float(bound)


def test_numbers_that_are_the_same_stay_short() -> None:
    assert apart([25.0, 25.0]) == ["25", "25"]
    assert apart([float("nan"), 30.0]) == ["nan", "30"]
    assert len(set(apart([0.1, 0.1 + 2**-54]))) == 2
