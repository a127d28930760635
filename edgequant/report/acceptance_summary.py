"""An acceptance as Markdown for the summary of a CI step: the verdict, a line per trial, and what is broken."""

from __future__ import annotations

from edgequant.judge.acceptance_types import State
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance_model import Acceptance
from edgequant.report.summary import markdown

_MOST_TRIALS, _MOST_RULES = 100, 30


def to_summary(found: Acceptance, folder: str = "RUN_DIR") -> str:
    """GitHub-flavoured Markdown; everything untrusted is escaped.  folder: of the run, for what to type next."""
    trials = words.worst_first(found.trials)
    lines = [
        f"## {found.state}: {markdown(found.name)}",
        "",
        f"{markdown(words.sum_up(found))}. {words.MEANING[found.state]}",
        "",
        markdown(words.head(found)),
        "",
        *([f"**{markdown(words.interrupted(found, folder))}**", ""] if found.interrupted else []),
        "| state | model | variant | device | not kept |",
        "|---|---|---|---|---|",
    ]
    for trial in trials[:_MOST_TRIALS]:
        told = ", ".join(f"{rule.state} {rule.rule}" for rule in words.broken(trial)[:3])
        cells = [
            str(trial.state),
            trial.model,
            trial.variant,
            trial.device,
            "informative" if trial.informative else told,
        ]
        lines.append("| " + " | ".join(map(markdown, cells)) + " |")
    if len(trials) > _MOST_TRIALS:
        lines.append(f"\nand {len(trials) - _MOST_TRIALS} more")
    pairs = [pair for pair in words.every_broken(found) if pair[1].state is not State.MARGINAL]
    for trial, rule in pairs[:_MOST_RULES]:
        then = "" if rule.state is State.ACCEPTED else f" → {markdown(words.next_command(found, trial, rule, folder))}"
        lines.append(
            f"\n- **{rule.state} {markdown(words.rule_name(rule))}** {markdown(words.title(trial))}: "
            f"{markdown(words.said(rule, trial))}{then}"
        )
    if len(pairs) > _MOST_RULES:
        lines.append(f"\nand {len(pairs) - _MOST_RULES} more rules")
    lines += [f"\n- {each.severity} **{each.code}** {markdown(each.message)}" for each in found.findings[:_MOST_RULES]]
    return "\n".join(lines) + "\n"
