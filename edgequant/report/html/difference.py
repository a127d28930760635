"""What is different from an earlier report, as a section of a page."""

from __future__ import annotations

from dataclasses import dataclass

from edgequant import plain
from edgequant.report.against import Against
from edgequant.report.difference import summary
from edgequant.report.html.table import Cell, Table, name, number, said

_MOST = 300


@dataclass(frozen=True)
class Section:
    """title: what it is held against.  table: None where nothing is different."""

    title: str
    summary: str
    table: Table | None


def section(held: Against) -> Section:
    """Of everything that changed the first lines: verdicts and findings, then what is worse."""
    heads = ["run", "output", "what", "before", "after", "ratio", "says"]
    table = Table("against-table", "What changed: verdicts, findings, then numbers, the worse ones first", heads)
    for each in held.changes[:_MOST]:
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        why = ["one of the two numbers is not valid"] if each.says == "not valid" else []
        table.add(
            [
                name(each.where or "all", head=True),
                name(each.output) if each.output else Cell(""),
                Cell(said(each.what)),
                number(said(each.before), why=why),
                number(said(each.after), why=why),
                Cell(ratio, "num"),
                Cell(each.says),
            ]
        )
    if (more := len(held.changes) - _MOST) > 0:
        table.after = f"and {more} more: edgequant report --against ... --json has them all"
    return Section(f"Held against {plain.printable(held.title)}", summary(held), table if table.rows else None)
