"""What every form of an acceptance says: the same words, the same order."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TypeGuard

from edgequant import plain
from edgequant.archive.acceptance import task_name
from edgequant.files import safe_name
from edgequant.judge.acceptance_types import ORDER, State
from edgequant.judge.verdict import Verdict
from edgequant.report.acceptance_model import Acceptance, AttemptReport, RuleReport, TrialReport
from edgequant.spec.rule_metrics import FINDING, INPUTS, TABLE, TASK, VERDICT
from edgequant.text import apart

MEANING = {
    State.PASS: "Every required rule is kept.",
    State.MARGINAL: "Every required rule is kept, but one of them only just.",
    State.ACCEPTED: "What is broken is known and borne, until a day that is named.",
    State.INCONCLUSIVE: "A required rule could not be evaluated.",
    State.FLAKY: "A required rule was broken in one attempt and kept in another.",
    State.ERROR: "A trial could not be run. This says nothing about the model.",
    State.FAIL: "A required rule is broken.",
}
AS_VERDICT = {
    State.PASS: Verdict.PASS,
    State.MARGINAL: Verdict.MARGINAL,
    State.ACCEPTED: Verdict.MARGINAL,
    State.INCONCLUSIVE: Verdict.INCONCLUSIVE,
    State.FLAKY: Verdict.INCONCLUSIVE,
    State.ERROR: Verdict.ERROR,
    State.FAIL: Verdict.FAIL,
}
"""For what knows verdicts only: they end with the same exit code."""


def worst_first(trials: Sequence[TrialReport]) -> list[TrialReport]:
    """Those that decide first, of these the worst."""
    return sorted(trials, key=lambda each: (each.informative, -ORDER.index(each.state)))


def title(trial: TrialReport) -> str:
    return f"{trial.model}, {trial.variant} on {trial.device}"


def broken(trial: TrialReport) -> list[RuleReport]:
    """Required rules that are not simply kept, the worst first; what a trial's own verdict sums up comes last."""
    found = [each for each in trial.rules if each.required and each.state is not State.PASS]
    return sorted(found, key=lambda each: (-ORDER.index(each.state), each.metric == VERDICT))


def every_broken(found: Acceptance) -> Iterator[tuple[TrialReport, RuleReport]]:
    """Of all trials, the worst state first.  Of a trial that could not be run that is said once."""
    pairs = [
        (trial, rule) for trial in worst_first(found.trials) for rule in broken(trial) if not _follows(trial, rule)
    ]
    pairs.sort(key=lambda pair: (-ORDER.index(pair[1].state), pair[1].metric == VERDICT))
    yield from pairs


def _follows(trial: TrialReport, rule: RuleReport) -> bool:
    """Whether it could not be evaluated for the trial could not be run."""
    own = next((each.state for each in trial.rules if each.metric == VERDICT), None)
    return rule.metric != VERDICT and rule.state is own is State.ERROR


def rule_name(rule: RuleReport) -> str:
    """A rule with its scope: unique within a trial, for a spec has none twice."""
    where = str(rule.scope)
    return f"{rule.rule} ({where})" if where else rule.rule


def number(rule: RuleReport, value: bool | float | str | None) -> str:
    """A value or a bound of a rule, in the rule's unit; numbers with so many digits that those of a rule which differ
    look different: 24.9999999 beside 25."""
    if value is None:
        return "nothing"
    if rule.metric.startswith(FINDING):
        return "present" if value else "absent"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    metric = TABLE.get(rule.metric)
    unit = f" {metric.unit}" if metric is not None and metric.unit else ""
    return f"{apart([value, *_numbers(rule)])[0]}{unit}"


def interval(rule: RuleReport) -> str:
    """``11.9 to 12.2``; empty where its value has none."""
    if rule.low is None or rule.high is None:
        return ""
    return " to ".join(apart([rule.low, rule.high, *_numbers(rule)], 4)[:2])


def _numbers(rule: RuleReport) -> list[float]:
    """What its numbers stand beside: its value, its bound, and where its margin ends."""
    margin = (rule.margin or 0.0) * (1 if rule.op == ">=" else -1)
    near = [rule.bound, rule.bound + margin] if _is_number(rule.bound) else []
    return [*(each for each in (rule.value, rule.low, rule.high) if _is_number(each)), *near]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_beside(rule: RuleReport) -> bool:
    """Whether value and bound, as they are, say what became of it.  They need not where a ratio of times was judged,
    block by block: then `why` does."""
    value, bound = rule.value, rule.bound
    if rule.of.of == "absolute" or not _is_number(value) or not _is_number(bound):
        return bound is not None
    kept = value >= bound if rule.op == ">=" else value <= bound
    return kept if rule.state in (State.PASS, State.MARGINAL) else not kept or rule.state is State.INCONCLUSIVE


def said(rule: RuleReport, trial: TrialReport | None = None) -> str:
    """What became of a rule, in one line without its name.  trial: that it is of, for what its verdict sums up."""
    if rule.metric == INPUTS and rule.state is State.PASS:
        return "inputs are real"
    if rule.metric == VERDICT:
        return _of_verdict(rule, trial)
    if rule.metric == INPUTS or rule.value is None:
        return rule.why or str(rule.state)
    value = number(rule, rule.value) + (f" ({told})" if (told := interval(rule)) else "")
    if not is_beside(rule):
        return f"{rule.why}; here it is {value}" if rule.why else value
    asked = f"{value}, {rule.op} {number(rule, rule.bound)} is asked"
    return f"{asked}; {rule.why}" if rule.why else asked


def is_internal(rule: RuleReport) -> bool:
    """Whether it is kept, and one of those that nobody has written: what is said of it says all."""
    return rule.metric in (VERDICT, INPUTS) and rule.state is State.PASS and len(rule.attempts) < 2


def _of_verdict(rule: RuleReport, trial: TrialReport | None) -> str:
    if rule.why in ("", rule.value):
        return f"verdict {rule.value or rule.state}"
    shown = None if trial is None else attempt_of(trial, rule)
    if rule.state is State.FAIL and trial is not None and shown is not None and shown.against:
        limits = [each for each in shown.against if each.startswith("limit:") and each in rule.why]
        if ", ".join(limits) == rule.why.rpartition("failed: ")[2]:
            if all(any(_breaks(each, limit) for each in trial.rules) for limit in limits):
                whose = "that of a broken rule" if len(limits) == 1 else "all those of broken rules"
                return f"{_limits(len(limits))}, {whose} beside it"
            named = [each.removeprefix("limit:") for each in limits]
            more = f" and {len(named) - 3} more" if len(named) > 3 else ""
            return f"{_limits(len(named))}: {', '.join(named[:3])}{more}"
    return rule.why


def _limits(count: int) -> str:
    return f"it breaks {count} limit{'' if count == 1 else 's'}"


def _breaks(rule: RuleReport, limit: str) -> bool:
    """Whether a rule is broken that is this limit: ``limit:OUTPUT:METRIC>=BOUND``."""
    output, _, told = limit.removeprefix("limit:").rpartition(":")
    bound = rule.of.value
    absolute = rule.of.of == "absolute" and isinstance(bound, (int, float)) and not isinstance(bound, bool)
    return (
        rule.state is State.FAIL
        and absolute
        and rule.output in (None, output)
        and told == f"{rule.metric}{rule.op}{bound:g}"
    )


def sum_up(found: Acceptance) -> str:
    """``8 trials: 1 FAIL, 7 PASS``."""
    asked = [each for each in found.trials if not each.informative]
    counts = [f"{count} {state}" for state in reversed(ORDER) if (count := sum(each.state is state for each in asked))]
    return f"{len(asked)} trial{'' if len(asked) == 1 else 's'}: {', '.join(counts) or 'nothing was tried'}"


def head(found: Acceptance) -> str:
    spec = f", {found.spec} {found.spec_sha256[:12]}" if found.spec else ""
    baseline = f", baseline {found.baseline.path}" if found.baseline is not None else ""
    return f"edgequant {found.edgequant}, {found.today}{spec}{baseline}"


def interrupted(found: Acceptance, folder: str = "RUN_DIR") -> str:
    """What to say of one that has not come to its end; empty of any other."""
    return f"interrupted; the rest: {_resume(folder)}" if found.interrupted else ""


def _resume(folder: str) -> str:
    return f"edgequant accept --resume {shlex.quote(folder)}"


def next_command(found: Acceptance, trial: TrialReport, rule: RuleReport, folder: str = "RUN_DIR") -> str:
    """What to type, or to write, next."""
    metric = TABLE.get(rule.metric)
    attempt = attempt_of(trial, rule)
    place = shlex.quote(f"{folder}/{attempt.folder}" if attempt is not None and attempt.folder else folder)
    if rule.state is State.ERROR or (found.interrupted and rule.value is None and rule.state is State.INCONCLUSIVE):
        return _resume(folder)
    if rule.metric == INPUTS:
        return f"give models.{trial.model}.inputs in the spec"
    if rule.of.of == "baseline" and found.baseline is None:
        return "name a baseline: edgequant accept SPEC --baseline FOLDER"
    if rule.of.of == "baseline" and rule.bound is None and rule.value is not None:
        return "measure the earlier release with this spec: its folder lacks what is asked, or is not alike"
    if rule.state is State.FLAKY and len(trial.attempts) > 1:
        return f"look at each attempt: {shlex.quote(str(PurePosixPath(folder, _part(attempt))))}"
    if rule.metric.startswith(TASK):
        # Of which attempt: the last where none says more.
        number = rule.attempts.index(rule.state) + 1 if rule.state in rule.attempts else len(trial.attempts)
        name = task_name(rule.metric.removeprefix(TASK).partition(".")[0], trial.key, number)
        record, log = f"{folder}/tasks/{name}.json", f"{folder}/logs/{safe_name(name)}.log"
        return f"see {shlex.quote(record)}, and what it printed: {shlex.quote(log)}"
    if metric is not None and metric.source == "bench":
        session = "" if attempt is None else next((each.session for each in attempt.facts.values() if each.session), "")
        return f"edgequant report {shlex.quote(f'{folder}/{session}')}" if session else _resume(folder)
    if rule.state is State.FAIL and rule.metric in ("size_mb", "memory_mb.model_file"):
        model = shlex.quote(found.models.get(trial.model, trial.model))
        return f"take fewer bits, or larger blocks; what is in it: edgequant inspect {model}"
    accuracy = rule.metric == VERDICT or (metric is not None and metric.per_output)
    if rule.state is State.FAIL and accuracy and attempt is not None and attempt.folder and not attempt.error:
        return f"edgequant diagnose {place}{_which(found, trial, attempt.folder)}"
    return f"edgequant report {place}"


def attempt_of(trial: TrialReport, rule: RuleReport) -> AttemptReport | None:
    """The attempt that says why: of what is FLAKY one that failed, else the last that came to this."""
    says = State.FAIL if rule.state is State.FLAKY else rule.state
    pairs = list(zip(trial.attempts, rule.attempts, strict=False))
    return next((each for each, state in reversed(pairs) if state is says), None)


def _part(attempt: AttemptReport | None) -> str:
    return "" if attempt is None or not attempt.folder else str(PurePosixPath(attempt.folder).parent)


def _which(found: Acceptance, trial: TrialReport, folder: str) -> str:
    """The options that tell a trial from the others in its folder."""
    there = [each for each in found.trials if any(other.folder == folder for other in each.attempts)]
    told = ""
    if len({each.device for each in there}) > 1:
        device = found.devices.get(trial.device)
        told += f" --device {shlex.quote(trial.device if device is None else device.uri)}"
    if len({each.variant for each in there}) > 1:
        told += f" --variant {shlex.quote(trial.method or trial.variant)}"
    return told


def harmless(text: str) -> str:
    return plain.printable(text)
