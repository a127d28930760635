"""Lines of a report: folded to the screen, and harmless whatever is in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from edgequant import plain
from edgequant.judge.verdict import Verdict

STYLE = {
    Verdict.PASS: "green",
    Verdict.MARGINAL: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold magenta",
    Verdict.INCONCLUSIVE: "bold yellow",
}
MAX_CASE = 20


@dataclass
class Lines:
    """Prints on a console.

    Attributes:
        max_outputs: rows per table.
        verbose: everything; quiet: nothing that is merely worth knowing.
    """

    console: Console
    max_outputs: int
    verbose: bool
    quiet: bool = False

    def text(self, text: str, style: str = "") -> Text:
        return Text(plain.printable(text, self.console.encoding), style=style)

    def name(self, text: str, style: str = "") -> Text:
        return Text(plain.name(text, self.console.encoding), style=style, overflow="fold")

    def join(self, parts: Iterable[Text | str]) -> Text:
        return Text().join(part if isinstance(part, Text) else self.text(part) for part in parts)

    def line(self, *parts: Text | str, indent: int = 0) -> None:
        self.hang(Text(" " * indent), self.join(parts))

    def field(self, label: str, *parts: Text | str) -> None:
        self.hang(Text(f"{label:<10} ", style="dim"), self.join(parts))

    def hang(self, lead: Text, body: Text) -> None:
        """Print folded lines that stay right of `lead`; without the blanks at their ends that a table would leave."""
        room = max(self.console.width - lead.cell_len, 20)
        for number, part in enumerate(body.wrap(self.console, room, overflow="fold") or [Text()]):
            part.rstrip()
            self.console.print(Text().join([lead if not number else Text(" " * lead.cell_len), part]), soft_wrap=True)

    def verdict(self, verdict: Verdict) -> Text:
        return Text(verdict.value, style=STYLE[verdict])

    def short(self, name: str) -> Text:
        """A name cut in the middle where it is long, for what stands in full elsewhere."""
        shown = self.name(name)
        return shown if shown.cell_len <= MAX_CASE else Text.assemble(shown[:12], "...", shown[-(MAX_CASE - 15) :])

    def cut(self, text: Text, room: int) -> Text:
        """Cut in the middle to `room` columns of the screen; the end says as much as the beginning."""
        if text.cell_len <= room:
            return text
        head, tail = text.copy(), len(text)
        head.truncate((room - 3) // 2 + (room - 3) % 2)
        while text[tail - 1 :].cell_len <= (room - 3) // 2:  # a character may take two columns, or none
            tail -= 1
        return Text.assemble(head, "...", text[tail:])
