"""Tables for a page, whose numbers that are missing or not valid say why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgequant import plain
from edgequant.judge.verdict import Verdict
from edgequant.text import MESSAGE, shortened

NOT_MEASURED = "-"
_NONE = (NOT_MEASURED, "not measured", "not known")


def said(text: object) -> str:
    """What anybody wrote, harmless and with an end."""
    whole = str(text)
    short = len(whole) <= MESSAGE and whole.isascii() and whole.isprintable()
    return whole if short else plain.printable(shortened(whole))


@dataclass(frozen=True)
class Cell:
    """text: what stands there.  more: below it.  kind: CSS classes, of which none says what the text does not.  why: it
    is missing, or not valid.  href: of a place on the page.  head: of its row."""

    text: str
    kind: str = ""
    why: tuple[str, ...] = ()
    href: str = ""
    head: bool = False
    more: str = ""


@dataclass
class Table:
    """id: of the page.  notes: why numbers are missing, numbered from 1; cells refer to them."""

    id: str
    caption: str
    heads: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    after: str = ""

    def add(self, cells: Iterable[Cell]) -> None:
        self.rows.append(list(cells))

    def numeric(self, column: int) -> bool:
        """Whether numbers stand below that head."""
        return any("num" in row[column].kind.split() for row in self.rows[:1])

    def numbers(self, cell: Cell) -> list[int]:
        """Of its notes, which are made here; equal ones share a number."""
        found = []
        for why in map(said, cell.why):
            if why not in self.notes:
                self.notes.append(why)
            found.append(self.notes.index(why) + 1)
        return found


def name(text: str, *, href: str = "", head: bool = False, kind: str = "") -> Cell:
    """A name that came from a model or a device."""
    return Cell(plain.name(text), f"name {kind}".strip(), href=href, head=head)


def number(text: str, *, why: Iterable[str | None] = (), kind: str = "") -> Cell:
    """why: it is missing or not valid; nothing where it is as it should be."""
    reasons = tuple(each for each in why if each)
    missing = "missing" if text in _NONE else "invalid" if reasons else ""
    return Cell(text, " ".join(part for part in ("num", kind, missing) if part), reasons)


def verdict(found: Verdict, *, href: str = "") -> Cell:
    return Cell(found.value, f"verdict {found.value}", href=href)
