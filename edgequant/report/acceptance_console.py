"""An acceptance on a terminal: it fits a screen, worst first."""

from __future__ import annotations

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


def render(
    found: Acceptance, console: Console, *, path: Path | None = None, verbose: bool = False, quiet: bool = False
) -> None:
    """Print it.

    Args:
        path: of acceptance.json, for the last line.
        verbose: every trial, every rule.
        quiet: the verdict and what is broken.
    """
    _Printer(console, max_outputs=0, verbose=verbose, quiet=quiet).acceptance(found, path)


class _Printer(Lines):
    def acceptance(self, found: Acceptance, path: Path | None) -> None:
        folder = "RUN_DIR" if path is None else str(path.parent)
        self.line(self.state(found.state), "  ", self.text(found.name, "bold"), f"  {words.sum_up(found)}")
        self.short_line(words.head(found))
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
            self.line(f"and {len(pairs) - _RULES} more rules that are not simply kept (-v)")
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
                self.line(self.state(rule.state), f"  {words.rule_name(rule)}{mark}: {words.said(rule)}", indent=4)

    def rule(self, found: Acceptance, trial: TrialReport, rule: RuleReport, folder: str) -> None:
        line = f" (line {rule.line})" if rule.line is not None else ""
        self.line(self.state(rule.state), "  ", self.text(rule.rule, "bold"), f"{line}  {words.title(trial)}")
        self.short_line(f"  {words.said(rule)}")
        if rule.state not in (State.ACCEPTED, State.MARGINAL):
            self.line("  -> ", words.next_command(found, trial, rule, folder))

    def state(self, state: State) -> Text:
        return Text(f"{state.value:<{_WIDEST}}", style=STYLE[state])

    def short_line(self, text: str, *before: Text) -> None:
        """One line of the screen, with its middle cut out where it is longer; all of it where everything is shown."""
        if self.verbose:
            self.line(*before, text)
            return
        room = max(self.console.width - sum(each.cell_len for each in before), 20)
        self.console.print(Text().join([*before, self.cut(self.text(text), room)]), soft_wrap=True)
