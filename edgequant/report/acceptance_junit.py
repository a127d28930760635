"""An acceptance as JUnit XML: a suite per trial, a test case per rule; the same conventions as `report.junit`.

An informative rule never fails: what became of it is told beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.judge.verdict import Verdict
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance_model import Acceptance, TrialReport
from edgequant.report.junit import Rule, document


def to_junit(found: Acceptance, folder: str = "RUN_DIR") -> str:
    """The XML document, with a declaration.  folder: of the run."""
    suites = [(words.title(trial), list(_of_trial(trial))) for trial in found.trials]
    return document([*suites, ("the whole", list(_of_whole(found, folder)))], found.name, found.created)


def _of_trial(trial: TrialReport) -> Iterator[Rule]:
    for rule in trial.rules:
        told = f"{rule.state}: {words.said(rule, trial)}"
        if rule.required:
            yield Rule(words.rule_name(rule), words.AS_VERDICT[rule.state], told, rule.metric)
        else:
            yield Rule(f"{words.rule_name(rule)} [informative]", Verdict.PASS, told, rule.metric)
    if trial.informative:
        yield Rule("it is only there to be held against", Verdict.PASS, f"{trial.state}", "verdict")


def _of_whole(found: Acceptance, folder: str) -> Iterator[Rule]:
    for finding in found.findings:
        # What it is about has failed already, in its trial.
        yield Rule(finding.code, Verdict.PASS, f"{finding.message}\n-> {finding.remedy}", finding.code)
    told = f"{found.state}: {words.sum_up(found)}"
    told += f"; {words.interrupted(found, folder)}" if found.interrupted else ""
    yield Rule("verdict", words.AS_VERDICT[found.state], told, "verdict")
