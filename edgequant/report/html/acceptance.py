"""The page of an acceptance: verdict, matrix of models and devices, every rule; no script, no network."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from edgequant.judge.acceptance_types import State, worst_state
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance_model import Acceptance, RuleReport, TrialReport
from edgequant.report.html.page import style, template
from edgequant.report.html.table import Cell, Table, name, said
from edgequant.spec.accept import TrialKey
from edgequant.spec.rule_metrics import INPUTS, VERDICT

_MOST_RULES = 4000
"""Rows of rules on the page; the worst come first, acceptance.json has them all."""


def to_html(found: Acceptance, folder: str = "RUN_DIR") -> str:
    """One HTML document.  folder: of the run, for the commands that are shown."""
    trials = words.worst_first(found.trials)
    room = _MOST_RULES
    tables = []
    for number, trial in enumerate(trials):
        rules = sorted(
            trial.rules, key=lambda each: words.broken(trial).index(each) if each in words.broken(trial) else 999
        )
        tables.append((f"trial-{number}", trial, _rules(f"rules-{number}", trial, rules[:room])))
        room = max(room - len(rules), 0)
    ids = {trial.key: key for key, trial, _ in tables}
    pairs = list(words.every_broken(found))
    asked = [(trial, rule) for trial, rule in pairs if rule.state not in (State.MARGINAL, State.ACCEPTED)]
    return template("acceptance.html.j2").render(
        made_by=found.edgequant,
        product="edgequant accept",
        verdict=found.state.value,
        model=found.name,
        title=f"{found.state}: {found.name}",
        css=style(),
        meaning=words.MEANING[found.state],
        sum_up=words.sum_up(found),
        interrupted=words.interrupted(found, folder),
        head=_head(found),
        matrix=_matrix(found, ids),
        broken=[
            (rule.state.value, words.rule_name(rule), words.title(trial), ids[trial.key], words.said(rule, trial),
             words.next_command(found, trial, rule, folder))
            for trial, rule in asked[:100]
        ],
        more=max(len(asked) - 100, 0),
        trials=[(key, trial.state.value, words.title(trial), _about(trial), table) for key, trial, table in tables],
        deviations=_deviations(found) if found.deviations else None,
        findings=[(each.severity, each.code, each.message, each.remedy or "") for each in found.findings[:100]],
        again=f"edgequant judge {shlex.quote(folder)}",
    )  # fmt: skip


def _head(found: Acceptance) -> list[tuple[str, str]]:
    told = [("judged", f"{found.today}, by edgequant {found.edgequant}")]
    told += [("spec", f"{found.spec} (sha256 {found.spec_sha256[:12] or 'not known'})")] if found.spec else []
    told += [("baseline", found.baseline.path)] if found.baseline is not None else []
    return [(key, said(value)) for key, value in told]


def state_cell(state: State, *, href: str = "") -> Cell:
    return Cell(state.value, f"verdict {state.value}", href=href)


def _matrix(found: Acceptance, ids: Mapping[TrialKey, str]) -> Table:
    """Models and variants down, devices across."""
    devices = list(dict.fromkeys(trial.device for trial in found.trials))
    table = Table("matrix", "Models and variants, by device", ["model", "variant", *map(said, devices)])
    by_key = {(trial.model, trial.variant, trial.device): trial for trial in found.trials}
    for model, variant in dict.fromkeys((trial.model, trial.variant) for trial in found.trials):
        row = [name(model, head=True), name(variant)]
        for device in devices:
            trial = by_key.get((model, variant, device))
            if trial is None:
                row.append(Cell("-", "missing"))
            else:
                cell = state_cell(trial.state, href=ids[trial.key])
                kept = sum(rule.state is State.PASS for rule in trial.rules)
                aside = "only to be held against" if trial.informative else f"{kept} of {len(trial.rules)} rules"
                row.append(Cell(cell.text, cell.kind, href=cell.href, more=aside))
        table.add(row)
    return table


def _rules(key: str, trial: TrialReport, rules: Sequence[RuleReport]) -> Table:
    heads = ["state", "rule", "value", "bound", "line", "attempts", "why"]
    table = Table(key, "Every rule, the worst first", heads)
    for rule in rules:
        written = rule.metric not in (VERDICT, INPUTS)
        why = rule.why if written else words.said(rule, trial)
        value = words.number(rule, rule.value) if written and rule.value is not None else "-"
        bound = f"{rule.op} {words.number(rule, rule.bound)}" if written and words.is_beside(rule) else "-"
        interval = f"{told} (95 %)" if (told := words.interval(rule)) else ""
        table.add(
            [
                state_cell(rule.state),
                Cell(words.rule_name(rule), "name", head=True, more="" if rule.required else "informative"),
                Cell(value, "num", more=interval),
                Cell(bound, "num"),
                Cell("" if rule.line is None else str(rule.line), "num"),
                Cell(", ".join(map(str, rule.attempts)) if len(rule.attempts) > 1 else ""),
                Cell(why),
            ]
        )
    return table


def _about(trial: TrialReport) -> list[str]:
    told = []
    if trial.informative:
        told.append("It is only there for others to be held against, and decides nothing.")
    for at, each in enumerate(trial.attempts, 1):
        told.append(f"Attempt {at}: {each.state}{f', {each.folder}' if each.folder else ''}"
                    f"{f': {each.error}' if each.error else ''}")  # fmt: skip
    if (
        trial.attempts
        and (worst_state(each.state for each in trial.attempts) is State.FAIL)
        and len(trial.attempts) > 1
    ):
        told.append("No later attempt makes a FAIL good.")
    return told


def _deviations(found: Acceptance) -> Table:
    table = Table("deviations", "Deviations that are accepted", ["what", "where", "until", "used", "reason"])
    for each in found.deviations:
        used = "expired" if each.expired else "yes" if each.used else "no"
        what = each.rule or f"finding {each.finding}"
        table.add(
            [name(what, head=True), Cell(str(each.scope) or "everywhere"), Cell(each.expires.isoformat()), Cell(used),
             Cell(each.reason)]
        )  # fmt: skip
    return table
