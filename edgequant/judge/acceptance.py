"""From facts and rules to the verdict on a release.  Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

from edgequant.findings import Finding
from edgequant.judge.acceptance_bounds import against_base, against_bound
from edgequant.judge.acceptance_types import (
    AcceptanceJudgement,
    Facts,
    RuleResult,
    State,
    TrialFacts,
    TrialResult,
    Value,
    worst_state,
)
from edgequant.judge.verdict import Verdict
from edgequant.spec.accept import FLOAT, Deviation, TaskEntry, TrialKey, applies, in_scope
from edgequant.spec.rule_metrics import FINDING, INPUTS, TABLE, VERDICT, Metric
from edgequant.spec.rules import Bound, Rule, Scope

__all__ = ["AcceptanceJudgement", "Facts", "RuleResult", "State", "TrialFacts", "TrialKey", "TrialResult", "Value",
           "judge_acceptance", "worst_state"]  # fmt: skip

VERDICT_RULE = Rule.model_construct(
    text="verdict", metric=VERDICT, op="==", bound=Bound(value="PASS"), output=None, scope=Scope(), required=True,
    margin=None, line=None,
)  # fmt: skip
"""Every trial has it: its own verdict is PASS or MARGINAL."""
INPUTS_RULE = VERDICT_RULE.model_copy(update={"text": "inputs", "metric": INPUTS, "bound": Bound(value="real")})
"""Every trial has it, unless the spec takes random inputs: what it was judged on was real."""


def judge_acceptance(
    rules: Sequence[Rule],
    deviations: Sequence[Deviation],
    attempts: Mapping[TrialKey, Sequence[TrialFacts]],
    baseline: Mapping[TrialKey, TrialFacts] | None,
    today: date,
    *,
    aliases: Mapping[str, tuple[str, ...]] | None = None,
    tasks: Mapping[str, TaskEntry] | None = None,
    informative: Iterable[TrialKey] = (),
    random_inputs: str = "inconclusive",
) -> AcceptanceJudgement:
    """Judge a release.

    Args:
        attempts: of each trial, in the order they were made; those of `informative` trials as well.  A trial without
            any is ERROR.
        baseline: the facts of an earlier release; None where there is none.
        today: the day of the run, against which deviations expire.
        aliases: device -> its URI and tags.  tasks: of the spec.
        informative: trials that decide nothing.
        random_inputs: "accepted": a trial on random inputs alone may PASS.
    """
    judge = _Judge(tuple(rules), tuple(deviations), attempts, baseline, today, aliases or {}, tasks or {})
    aside = set(informative)
    trials = [judge.aside(key) if key in aside else judge.trial(key, random_inputs) for key in attempts]
    state = worst_state(each.state for each in trials if not each.informative)
    used = tuple(each for each in deviations if str(each) in judge.used)
    return AcceptanceJudgement(state, tuple(trials), tuple(judge.findings()), used)


def over_attempts(states: Sequence[State]) -> State:
    """FAIL in one and kept in another is FLAKY: no later attempt makes a FAIL good.  What could not be told or run may
    be told later.  No attempt at all is ERROR."""
    good = [state for state in states if state in GOOD]
    if State.FAIL in states:
        return State.FLAKY if good else State.FAIL
    return worst_state(good or states)


class _Judge:
    def __init__(
        self,
        rules: tuple[Rule, ...],
        deviations: tuple[Deviation, ...],
        attempts: Mapping[TrialKey, Sequence[TrialFacts]],
        baseline: Mapping[TrialKey, TrialFacts] | None,
        today: date,
        aliases: Mapping[str, tuple[str, ...]],
        tasks: Mapping[str, TaskEntry],
    ) -> None:
        self._rules = rules
        self._deviations = deviations
        self._attempts = attempts
        self._baseline = baseline
        self._today = today
        self._aliases = aliases
        self._tasks = tasks
        self.used: set[str] = set()
        self._expired: dict[str, list[TrialKey]] = {}

    def trial(self, key: TrialKey, random_inputs: str) -> TrialResult:
        rules = [rule for rule in self._rules if applies(rule, key, self._aliases, self._tasks)]
        made = [VERDICT_RULE, *([INPUTS_RULE] if random_inputs == "inconclusive" else [])]
        results = [self._rule(rule, key, rules) for rule in [*made, *rules]]
        counted = [each for each in results if each.rule.required]
        state = worst_state(each.state for each in counted)
        tries = tuple(worst_state(each.attempts[at] for each in counted) for at in range(len(self._attempts[key])))
        return TrialResult(key, state, tuple(results), tries)

    def aside(self, key: TrialKey) -> TrialResult:
        """A trial that decides nothing: shown by its own verdict."""
        states = tuple(State(each.verdict.value) for each in self._attempts[key])
        return TrialResult(key, over_attempts(states), (), states, informative=True)

    def _rule(self, rule: Rule, key: TrialKey, beside: Sequence[Rule]) -> RuleResult:
        tries = [self._once(rule, key, facts, beside) for facts in self._attempts[key]]
        states = tuple(each.state for each in tries)
        state = over_attempts(states)
        if not tries:
            return RuleResult(rule, key, state, Value(None, NOT_RUN), None, NOT_RUN, attempts=())
        # The attempt that says why: of what is FLAKY the one that failed, else the last that came to this.
        says = State.FAIL if state is State.FLAKY else state
        shown = next(each for each in reversed(tries) if each.state is says)
        why = shown.why
        if state is State.FLAKY:
            why = f"{states.count(State.FAIL)} of {len(states)} attempts failed: {why}"
        elif state in GOOD and len(states) > 1:
            why = _joined(f"attempts: {', '.join(states)}", why)
        return replace(shown, state=state, why=why, attempts=states)

    def _once(self, rule: Rule, key: TrialKey, facts: TrialFacts, beside: Sequence[Rule]) -> RuleResult:
        found = self._verdict(key, facts) if rule is VERDICT_RULE else self._evaluate(rule, key, facts, beside)
        if found.state is not State.FAIL or found.deviation is not None or rule is VERDICT_RULE:
            return found
        deviation = self._accepting(rule, key)
        if deviation is None:
            return found
        return replace(found, state=State.ACCEPTED, deviation=deviation, why=_joined(found.why, _borne(deviation)))

    # ---- deviations

    def _accepting(self, rule: Rule, key: TrialKey) -> Deviation | None:
        finding = rule.metric.removeprefix(FINDING) if rule.metric.startswith(FINDING) else None
        return self._first(
            key, lambda each: each.rule == rule.text or (finding is not None and each.finding == finding)
        )

    def _first(self, key: TrialKey, means: Callable[[Deviation], bool]) -> Deviation | None:
        meant = [each for each in self._deviations if means(each) and in_scope(each.scope, key, self._aliases)]
        found = next((each for each in meant if each.expires >= self._today), None)
        if found is not None:
            self.used.add(str(found))
            return found
        for each in meant:
            self._expired.setdefault(str(each), []).append(key)
        return None

    def _bears(self, key: TrialKey, against: str) -> Deviation | None:
        """The deviation that accepts one thing that speaks against a trial."""
        if against.startswith(FINDING):
            code = against.removeprefix(FINDING)
            return self._first(key, lambda each: each.finding == code)
        output, _, limit = against.removeprefix("limit:").rpartition(":")
        texts = {
            rule.text
            for rule in self._rules
            if applies(rule, key, self._aliases, self._tasks)
            and (told := rule.limit) is not None
            and told.output in (None, output)
            and f"{told.metric}{told.op}{told.value:g}" == limit
        }
        return self._first(key, lambda each: each.rule in texts)

    def findings(self) -> Iterator[Finding]:
        for each in self._deviations:
            if str(each) in self._expired:
                keys = list(dict.fromkeys(self._expired[str(each)]))
                yield Finding(
                    code="DEVIATION_EXPIRED",
                    severity="fail",
                    where=str(keys[0]),
                    message=f"what was accepted for {each} until {each.expires} is accepted no more: {each.reason}",
                    evidence={
                        "expires": each.expires.isoformat(),
                        "trials": [str(key) for key in keys],
                        "line": each.line,
                    },
                    remedy="Mend what it was for; or give it a new day, and a reason that still holds.",
                )
            elif str(each) not in self.used:
                yield Finding(
                    code="DEVIATION_UNUSED",
                    severity="warn",
                    message=f"the deviation for {each} accepts nothing: {each.reason}",
                    evidence={"expires": each.expires.isoformat(), "line": each.line},
                    remedy="Take it out of the spec, so that it does not accept the next thing that breaks.",
                )

    # ---- one rule, one attempt

    def _verdict(self, key: TrialKey, facts: TrialFacts) -> RuleResult:
        state, value = State(facts.verdict.value), Value(facts.verdict.value)
        why = facts.error or ", ".join([*facts.against, *facts.doubts]) or f"{facts.verdict}"
        if state is not State.FAIL:
            return RuleResult(VERDICT_RULE, key, state, value, "PASS", why)
        bearing = [self._bears(key, each) for each in facts.against]
        if not bearing or None in bearing:
            left = [each for each, by in zip(facts.against, bearing, strict=True) if by is None]
            return RuleResult(VERDICT_RULE, key, state, value, "PASS", facts.error or ", ".join(left) or why)
        if facts.doubts:
            # What it hid comes to light: it could not be judged as a whole.
            why = f"what is accepted aside, it could not be judged: {', '.join(facts.doubts)}"
            return RuleResult(VERDICT_RULE, key, State.INCONCLUSIVE, value, "PASS", why)
        first = next(each for each in bearing if each is not None)
        return RuleResult(VERDICT_RULE, key, State.ACCEPTED, value, "PASS", f"{why}; {_borne(first)}", first)

    def _evaluate(self, rule: Rule, key: TrialKey, facts: TrialFacts, beside: Sequence[Rule]) -> RuleResult:
        if rule is INPUTS_RULE:
            if facts.random_inputs:
                why = "random inputs alone do not make a release: give real cases, or write random_inputs: accepted"
                return RuleResult(rule, key, State.INCONCLUSIVE, Value("random"), "real", why)
            if facts.error and not facts.facts:
                return RuleResult(rule, key, State.ERROR, Value(None, facts.error), "real", facts.error)
            return RuleResult(rule, key, State.PASS, Value("real"), "real", "")
        if rule.metric.startswith(FINDING):
            return self._presence(rule, key, facts)
        places = [rule.metric if rule.output is None else f"{rule.output}:{rule.metric}"]
        if rule.output is None and TABLE.get(rule.metric, _TASK).per_output:
            places = outputs_meant(rule, facts.facts, beside)
        found = [self._number(rule, key, facts, place) for place in places]
        if not found:
            return self._nothing(rule, key, facts, "no output has it")
        return worst_of(found, rule.op)

    def _nothing(self, rule: Rule, key: TrialKey, facts: TrialFacts, why: str) -> RuleResult:
        if facts.error:
            return RuleResult(rule, key, State.ERROR, Value(None, facts.error), None, facts.error)
        return RuleResult(rule, key, State.INCONCLUSIVE, Value(None, why), None, why)

    def _presence(self, rule: Rule, key: TrialKey, facts: TrialFacts) -> RuleResult:
        present = rule.metric in facts.facts
        if facts.error and not present:
            return self._nothing(rule, key, facts, "")
        kept = present == rule.bound.value
        why = "" if kept else f"{rule.metric.removeprefix(FINDING)} is {'present' if present else 'absent'}"
        return RuleResult(rule, key, State.PASS if kept else State.FAIL, Value(present), rule.bound.value, why)

    def _number(self, rule: Rule, key: TrialKey, facts: TrialFacts, place: str) -> RuleResult:
        value = facts.facts.get(place)
        if value is None or value.value is None:
            return self._nothing(rule, key, facts, "it was not measured" if value is None else value.why)
        if rule.bound.of == "absolute":
            held = against_bound(rule, value)
            if held.state is State.FAIL and rule.limit is not None and facts.verdict is Verdict.INCONCLUSIVE:
                # The trial breaks it and is no FAIL: it proves nothing, such as with the reference of other cases.
                return self._nothing(rule, key, facts, f"the trial proves nothing: {', '.join(facts.doubts)}")
            return RuleResult(rule, key, held.state, value, rule.bound.value, _said(place, held.why, value, rule))
        base = self._base(rule, key, facts, place)
        if isinstance(base, str):
            return RuleResult(rule, key, State.INCONCLUSIVE, value, None, base)
        held = against_base(rule, value, base)
        return RuleResult(rule, key, held.state, value, held.bound, _said(place, held.why, value, rule))

    def _base(self, rule: Rule, key: TrialKey, facts: TrialFacts, place: str) -> Value | str:
        """The value a relative rule is held against, or why there is none."""
        metric = TABLE.get(rule.metric, _TASK)
        of = rule.bound.of
        if of == "float":
            there = self._attempts.get(TrialKey(key.model, FLOAT, key.device), ())
            bases = [each for each in there if (held := each.facts.get(place)) is not None and held.value is not None]
            if not bases:
                return f"float was not measured on {key.device}"
            base = next((each for each in bases if _session(each, place) == _session(facts, place)), bases[-1])
            alike: tuple[str, ...] = ("threads", "cores") if metric.alike == "timing" else ()
        else:
            if self._baseline is None:
                return "there is no baseline: name one in the spec (baseline: FOLDER) or with --baseline"
            kept = self._baseline.get(key)
            if kept is None:
                return f"the baseline has nothing of {key}"
            base, alike = kept, ALIKE[metric.alike]
        value = base.facts.get(place)
        if value is None or value.value is None:
            return f"{of} has no {place}{f': {value.why}' if value is not None and value.why else ''}"
        for name in alike:
            if facts.identity.get(name) != base.identity.get(name):
                now, then = (each.identity.get(name, "not known") for each in (facts, base))
                return f"not comparable with {of}: {name} is {now[:60]}, was {then[:60]}"
        # Parts of two runs may be called alike: they are two sessions all the same.
        return replace(value, session="") if of == "baseline" else value


ALIKE: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "accuracy": ("cases", "memory", "precision", "cpu"),
    "timing": ("cases", "memory", "precision", "cpu", "threads", "cores", "device"),
}
"""What must be the same before a number may be held against that of another run."""
GOOD = (State.PASS, State.MARGINAL, State.ACCEPTED)
NOT_RUN = "it was not run"
_TASK = Metric("task", "", source="task", alike="accuracy")


def outputs_named(rule: Rule, beside: Sequence[Rule]) -> set[str | None]:
    """The outputs of which a required rule stands in the place of one without an output."""
    return {
        other.output
        for other in beside
        if other.required and other.metric == rule.metric and other.bound.of == rule.bound.of
    }


def outputs_meant(rule: Rule, facts: Facts, beside: Sequence[Rule]) -> list[str]:
    """The outputs a rule without one is for: all that have its metric, but those which a required rule names."""
    named = outputs_named(rule, beside)
    found = [name for name in facts if name.rpartition(":")[2] == rule.metric and ":" in name]
    return [name for name in found if name.rpartition(":")[0] not in named]


def worst_of(found: Sequence[RuleResult], op: str) -> RuleResult:
    """Of several outputs the one that decides: the worst state, then the worst number."""
    state = worst_state(each.state for each in found)
    there = [each for each in found if each.state is state]

    def number(each: RuleResult) -> float:
        value = each.value.value
        return float(value) if isinstance(value, (int, float)) else math.nan

    numbers = [each for each in there if not math.isnan(number(each))]
    if not numbers:
        return there[0]
    return min(numbers, key=number) if op == ">=" else max(numbers, key=number)


def _session(facts: TrialFacts, place: str) -> str:
    value = facts.facts.get(place)
    return "" if value is None else value.session


def _borne(deviation: Deviation) -> str:
    return f"accepted until {deviation.expires}: {deviation.reason}"


def _said(place: str, why: str, value: Value, rule: Rule) -> str:
    output = place.rpartition(":")[0] if rule.output is None and not rule.metric.startswith("task:") else ""
    return _joined(f"output {output}" if output else "", why, value.why)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
