"""One value held against one bound.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from edgequant.compare.blocks import Ratio, of_two_sessions, ratio
from edgequant.errors import ToolError
from edgequant.judge.acceptance_types import State, Value
from edgequant.mnn_version import parse_version
from edgequant.spec.rule_metrics import TABLE
from edgequant.spec.rules import Rule
from edgequant.text import apart

RATIO_LEVEL = 0.99
"""Of the interval of a ratio of times, as of those of bench."""


@dataclass(frozen=True)
class Held:
    """A value held against a bound."""

    state: State
    bound: float | str | bool | None
    why: str


def against_bound(rule: Rule, value: Value) -> Held:
    """An absolute bound; a value with an interval by the whole of it."""
    bound = rule.bound.value
    if value.excused:
        return Held(State.PASS, bound, value.excused)
    if isinstance(value.value, bool) or isinstance(bound, bool):
        return Held(State.PASS if value.value is bound else State.FAIL, bound, "")
    if isinstance(bound, str) or isinstance(value.value, str):
        try:
            now, than = parse_version(str(value.value)), parse_version(str(bound))
        except ToolError as error:
            return Held(State.INCONCLUSIVE, bound, error.message)
        kept = now >= than if rule.op == ">=" else now <= than if rule.op == "<=" else now == than
        return Held(State.PASS if kept else State.FAIL, bound, "")
    if value.value is None or bound is None:
        return Held(State.INCONCLUSIVE, bound, value.why)
    return _interval(rule, float(value.value), value.low, value.high, float(bound))


def against_base(rule: Rule, value: Value, base: Value) -> Held:
    """``factor * base + add``.  Times by the interval of their ratio, where both have blocks; other numbers with
    intervals by what both leave possible; what repeats itself by the numbers."""
    now, then = value.value, base.value
    if isinstance(now, (bool, str)) or isinstance(then, (bool, str)) or now is None or then is None:
        return Held(State.INCONCLUSIVE, None, "not a number")
    bound = _bound(rule, then)
    if value.blocks and base.blocks and then > 0:
        found = ratio_of(value, base)
        if found is not None:
            return _by_ratio(rule, base, bound, found)
    good, bad = (base.high, base.low) if rule.op == ">=" else (base.low, base.high)
    lenient, strict = (bound if each is None else _bound(rule, each) for each in (bad, good))
    # What the baseline's own attempts spread over is no regression.
    held = _interval(rule, now, value.low, value.high, lenient)
    if timed(rule) and held.state in (State.PASS, State.MARGINAL) and lenient != strict:
        # Of a time that is known from to, the baseline may have had either end.
        surely = _interval(rule, now, value.low, value.high, strict)
        if surely.state not in (State.PASS, State.MARGINAL):
            return Held(State.INCONCLUSIVE, bound, "it cannot be told: the intervals of both leave it open")
    return replace(held, bound=bound if timed(rule) else lenient)


def _bound(rule: Rule, base: float) -> float:
    """``factor * base + add``; a percentage is of the size of what it is of: 5 % more than -10 is -9.5."""
    of = rule.bound
    return base + (of.factor - 1) * abs(base) if of.percent and base < 0 else of.factor * base + of.add


def timed(rule: Rule) -> bool:
    """Whether it is a time or what varies like one."""
    metric = TABLE.get(rule.metric)
    return metric is not None and metric.alike == "timing"


def _by_ratio(rule: Rule, base: Value, bound: float, found: Ratio) -> Held:
    most = bound / cast("float", base.value)
    value, low, high, asked = apart([found.value, cast("float", found.low), cast("float", found.high), most], 4)
    said = f"{value} times that of {rule.bound.of} (99 %: {low} to {high}), {asked} asked"
    margin = (rule.margin or 0.0) / cast("float", base.value)
    held = _interval(rule.model_copy(update={"margin": margin or None}), found.value, found.low, found.high, most)
    return Held(held.state, bound, f"{said}; more blocks may tell" if held.state is State.INCONCLUSIVE else said)


def _interval(rule: Rule, value: float, low: float | None, high: float | None, bound: float) -> Held:
    low, high = value if low is None else low, value if high is None else high
    # From the good end to the bad one.
    sign = 1 if rule.op == "<=" else -1
    best, worst = (low, high) if rule.op == "<=" else (high, low)
    if sign * best > sign * bound:
        return Held(State.FAIL, bound, "")
    if sign * worst > sign * bound:
        least, most, _ = apart([low, high, bound], 4)
        return Held(State.INCONCLUSIVE, bound, f"it cannot be told: {least} to {most} is on both sides")
    near = rule.margin is not None and sign * worst > sign * bound - rule.margin
    return Held(State.MARGINAL, bound, f"by less than {rule.margin:.12g}") if near else Held(State.PASS, bound, "")


def ratio_of(value: Value, base: Value) -> Ratio | None:
    """How many times as long as `base`: blocks of one session round by round, those of two by Welch's interval of the
    means of their logarithms.  None where there are too few blocks, or a time that is none."""
    mine, theirs = dict(value.blocks), dict(base.blocks)
    if any(each <= 0 for each in (*mine.values(), *theirs.values())):
        return None
    if value.session and value.session == base.session:
        rounds = [number for number in mine if number in theirs]
        if len(rounds) < 2:
            return None
        return ratio([[theirs[number]] for number in rounds], [[mine[number]] for number in rounds], RATIO_LEVEL)
    if len(mine) < 2 or len(theirs) < 2:
        return None
    return of_two_sessions(list(theirs.values()), list(mine.values()), RATIO_LEVEL)
