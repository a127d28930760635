"""An acceptance as OpenMetrics text: the state of all, of each trial and of each rule, and what was measured for it."""

from __future__ import annotations

from edgequant.judge.acceptance_types import ORDER, State
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance_model import Acceptance
from edgequant.report.openmetrics import Family, Labels, text


def to_openmetrics(found: Acceptance) -> str:
    """The whole, with a line for the end.  The value of a rule that is not a number, or could not be told, is not
    there; its state is."""
    release = Family("acceptance", "info", "What was checked.")
    told = {"name": found.name, "spec_sha256": found.spec_sha256, "edgequant": found.edgequant}
    release.add(told.items(), 1, "_info")
    whole = Family("acceptance_state", "stateset", "Of the release.")
    whole.states((), found.state)
    grade = Family("acceptance_severity", "gauge", f"Place in {', '.join(each.value for each in ORDER)}; 0 the first.")
    grade.add((), ORDER.index(found.state))
    trials = Family("trial_state", "stateset", "Of a model in a variant on a device.")
    rules = Family("rule_state", "stateset", "Of a rule on such a trial.")
    values = Family("rule_value", "gauge", "What a rule was evaluated by, in the unit of its metric.")
    bounds = Family("rule_bound", "gauge", "What it was held against.")
    for trial in found.trials:
        of: Labels = (("model", trial.model), ("variant", trial.variant), ("device", trial.device))
        trials.states((*of, ("informative", str(trial.informative).lower())), trial.state)
        for rule in trial.rules:
            labels = (*of, ("rule", words.rule_name(rule)), ("required", str(rule.required).lower()))
            rules.states(labels, rule.state)
            told_by = rule.state not in (State.INCONCLUSIVE, State.ERROR)
            for family, number in ((values, rule.value), (bounds, rule.bound)):
                if told_by and isinstance(number, (int, float)):
                    family.add(labels, float(number))
    return text([release, whole, grade, trials, rules, values, bounds])
