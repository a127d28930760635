"""An acceptance on a terminal: it fits a screen, worst first."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from edgequant.judge.acceptance_types import State
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance_model import Acceptance, RuleReport, TrialReport
from edgequant.report.lines import Lines
from edgequant.spec.rule_metrics import VERDICT

STYLE = {
    State.PASS: "green",
    State.MARGINAL: "yellow",
    State.ACCEPTED: "yellow",
    State.INCONCLUSIVE: "bold yellow",
    State.FLAKY: "bold yellow",
    State.ERROR: "bold magenta",
    State.FAIL: "bold red",
}
_TRIALS, _RULES, _FINDINGS = 8, 4, 2
_WIDEST = 12
"""Characters of the longest state."""
_KEPT = re.compile(r"\d{4}-\d\d-\d\d|\b[0-9a-f]{12}\b|(>=|<=|==) \S+( \S+ is asked)?")
"""What is never cut: days, hashes, bounds."""


def render(
    found: Acceptance,
    console: Console,
    *,
    path: Path | None = None,
    folder: Path | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Print it: folded and cut to a terminal, or to $COLUMNS; whole lines where nothing is that wide.

    Args:
        path: of acceptance.json, for the last line.
        folder: of the run, for what to type next; that of `path` unless it is given.
        verbose: every trial, every rule.
        quiet: the verdict and what is broken.
    """
    _Printer(console, max_outputs=0, verbose=verbose, quiet=quiet).acceptance(found, path, folder)


def has_width(console: Console) -> bool:
    """Whether its lines have a width: in the log of a CI they have none."""
    return console.is_terminal or "COLUMNS" in os.environ


class _Printer(Lines):
    def acceptance(self, found: Acceptance, path: Path | None, of: Path | None) -> None:
        folder = str(of or (path.parent if path is not None else "RUN_DIR"))
        self.line(self.state(found.state), "  ", self.text(found.name, "bold"), f"  {words.sum_up(found)}")
        self.short_line(words.head(found))
        if told := words.interrupted(found, folder):
            self.command(told)
        trials = words.worst_first(found.trials)
        if not self.quiet:
            self.console.print()
            shown = trials if self.verbose else trials[:_TRIALS]
            for trial in shown:
                self.trial(trial)
            if len(trials) > len(shown):
                rest = len(trials) - len(shown)
                self.line(f"and {rest} more trial{'s' if rest > 1 else ''}, none worse (-v)", indent=2)
        pairs = [pair for pair in words.every_broken(found) if pair[1].state is not State.MARGINAL or self.verbose]
        if pairs:
            self.console.print()
        for trial, rule in pairs if self.verbose else pairs[:_RULES]:
            self.rule(found, trial, rule, folder)
        if len(pairs) > _RULES and not self.verbose:
            self.line(f"and {len(pairs) - _RULES} more rules that are not kept (-v)")
        findings = found.findings if self.verbose else found.findings[:_FINDINGS]
        for finding in findings:
            self.short_line(f"{finding.severity}  {finding.code}: {finding.message}")
        if len(found.findings) > len(findings):
            self.line(f"and {len(found.findings) - len(findings)} more findings (-v)")
        if path is not None:
            self.console.print()
            self.line(f"all of it: {path}")

    def trial(self, trial: TrialReport) -> None:
        """One line."""
        broken = words.broken(trial)
        told = f"  {broken[0].rule}{f' and {len(broken) - 1} more' if len(broken) > 1 else ''}" if broken else ""
        if any(each.metric == VERDICT and each.state is State.ERROR for each in broken):
            told = ""  # nothing of it could be evaluated
        attempts = f"  ({', '.join(str(each.state) for each in trial.attempts)})" if len(trial.attempts) > 1 else ""
        aside = "  only to be held against" if trial.informative else ""
        self.short_line(f"  {words.title(trial)}{aside}{told}{attempts}", self.state(trial.state))
        if self.verbose:
            for rule in trial.rules:
                mark = "" if rule.required else ", informative"
                told = f"  {words.rule_name(rule)}{mark}: {words.said(rule, trial)}"
                told = f"  {words.said(rule)}" if words.is_internal(rule) else told
                self.line(self.state(rule.state), told, indent=4)

    def rule(self, found: Acceptance, trial: TrialReport, rule: RuleReport, folder: str) -> None:
        line = f" (line {rule.line})" if rule.line is not None else ""
        self.line(self.state(rule.state), "  ", self.text(rule.rule, "bold"), f"{line}  {words.title(trial)}")
        self.short_line(f"  {words.said(rule, trial)}")
        if rule.state not in (State.ACCEPTED, State.MARGINAL):
            self.command(f"  -> {words.next_command(found, trial, rule, folder)}")

    def state(self, state: State) -> Text:
        return Text(f"{state.value:<{_WIDEST}}", style=STYLE[state])

    def hang(self, lead: Text, body: Text) -> None:
        if has_width(self.console):
            super().hang(lead, body)
        else:
            self.console.print(Text().join([lead, body]), soft_wrap=True)

    def command(self, text: str) -> None:
        """What may be copied: in one line, however long."""
        self.console.print(self.text(text), soft_wrap=True)

    def short_line(self, text: str, *before: Text) -> None:
        """One line of the screen, cut at its end where it is longer, but behind the last bound, day or hash; all of it
        where everything is shown."""
        room = self.console.width - sum(each.cell_len for each in before)
        shown = self.text(text)
        if has_width(self.console) and not self.verbose and shown.cell_len > room:
            kept = max((found.end() for found in _KEPT.finditer(shown.plain)), default=0)
            cut = shown.copy()
            cut.truncate(max(room - 3, 20, shown[:kept].cell_len))
            shown = Text.assemble(cut, "...")
        self.line(*before, shown)
