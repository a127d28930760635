"""What is different from an earlier report, on a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from edgequant.plain import name, printable
from edgequant.report.against import Against, Change

_MOST = 15
_STYLE = {"worse": "bold red", "new": "yellow", "better": "green", "gone": "green"}


def summary(held: Against) -> str:
    """In one line."""
    counts = Counter(each.says for each in held.changes)
    told = ", ".join(f"{count} {says}" for says, count in counts.items())
    return f"{held.compared} numbers of both were compared: {told or 'nothing is different'}."


def render_against(held: Against, console: Console, *, verbose: bool = False) -> None:
    """Print it: at most a screen, unless all is wanted."""
    console.print()
    console.print(Text("Against ", style="bold") + Text(printable(held.title)), soft_wrap=True)
    shown = held.changes if verbose else held.changes[:_MOST]
    for each in shown:
        console.print(Text("  ") + Text(f"{each.says:<9}", style=_STYLE.get(each.says, "")) + Text(said(each)))
    if more := len(held.changes) - len(shown):
        console.print(Text(f"  and {more} more: --verbose, --json or --html show them"))
    console.print(Text(f"  {summary(held)}"))


def said(each: Change) -> str:
    """One change in words."""
    place = [name(part) for part in (each.where, each.output) if part]
    where = f"{', '.join(place)}: " if place else ""
    ratio = "" if each.ratio is None else f" ({each.ratio:.3f} times)"
    if not each.before or not each.after:
        return f"{where}{name(each.what)} {printable(each.before or each.after)}"
    return f"{where}{name(each.what)} {printable(each.before)} -> {printable(each.after)}{ratio}"
