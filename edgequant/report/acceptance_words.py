"""What every form of an acceptance says: the same words, the same order."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from edgequant import plain
from edgequant.judge.acceptance_types import ORDER, State
from edgequant.judge.verdict import Verdict
from edgequant.report.acceptance_model import Acceptance, RuleReport, TrialReport
from edgequant.spec.rule_metrics import FINDING, INPUTS, TABLE, TASK, VERDICT

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
    """A value or a bound of a rule, in the rule's unit."""
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
    alike = [each for each in (rule.value, rule.bound) if isinstance(each, float) and f"{each:.6g}" == f"{value:.6g}"]
    text = f"{value:.12g}" if len(set(alike)) > 1 else f"{value:.6g}"  # 24.9999999 beside 25
    return f"{text}{unit}"


def said(rule: RuleReport) -> str:
    """What became of a rule, in one line without its name."""
    interval = "" if rule.low is None or rule.high is None else f" ({rule.low:.4g} to {rule.high:.4g})"
    parts = []
    if rule.metric not in (VERDICT, INPUTS) and rule.value is not None:
        against = "" if rule.bound is None else f", {rule.op} {number(rule, rule.bound)} is asked"
        parts.append(f"{number(rule, rule.value)}{interval}{against}")
    parts += [rule.why] if rule.why else []
    return ": ".join(parts) or str(rule.state)


def sum_up(found: Acceptance) -> str:
    """``8 trials: 1 FAIL, 7 PASS``."""
    asked = [each for each in found.trials if not each.informative]
    counts = [f"{count} {state}" for state in reversed(ORDER) if (count := sum(each.state is state for each in asked))]
    return f"{len(asked)} trial{'' if len(asked) == 1 else 's'}: {', '.join(counts) or 'nothing was tried'}"


def head(found: Acceptance) -> str:
    spec = f", {found.spec} {found.spec_sha256[:12]}" if found.spec else ""
    baseline = f", baseline {found.baseline.path}" if found.baseline is not None else ""
    return f"edgequant {found.edgequant}, {found.today}{spec}{baseline}"


def next_command(found: Acceptance, trial: TrialReport, rule: RuleReport, folder: str = "RUN_DIR") -> str:
    """What to type, or to write, next."""
    device = found.devices.get(trial.device)
    where = f"{shlex.quote(found.models.get(trial.model, trial.model))} --device " + shlex.quote(
        trial.device if device is None else device.uri
    )
    variant = shlex.quote(trial.method or trial.variant)
    metric = TABLE.get(rule.metric)
    if rule.state is State.ERROR:
        return f"edgequant accept --resume {shlex.quote(folder)}"
    if rule.metric == INPUTS:
        return f"give models.{trial.model}.inputs in the spec"
    if rule.of.of == "baseline" and found.baseline is None:
        return "name a baseline: edgequant accept SPEC --baseline FOLDER"
    if rule.of.of == "baseline" and rule.bound is None and rule.value is not None:
        return "measure the earlier release with this spec: its folder lacks what is asked, or is not alike"
    if rule.state is State.FLAKY or rule.metric.startswith(TASK):
        return f"look at each attempt in {folder}"
    if metric is not None and metric.source == "bench":
        return f"edgequant bench {where} --variant {variant}"
    if rule.state is State.FAIL and (rule.metric == VERDICT or (metric is not None and metric.per_output)):
        return f"edgequant diagnose {where} --variant {variant}"
    return f"edgequant report {shlex.quote(_attempt(trial, folder))}"


def _attempt(trial: TrialReport, folder: str) -> str:
    last = next((each.folder for each in reversed(trial.attempts) if each.folder), "")
    return f"{folder}/{last}" if last else folder


def harmless(text: str) -> str:
    return plain.printable(text)
