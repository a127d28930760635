"""A page of figures and tables, that is not the report of a run."""

from __future__ import annotations

from collections.abc import Sequence

from edgequant.report.html.figures import Figure
from edgequant.report.html.page import style, template
from edgequant.report.html.table import Table
from edgequant.version import __version__


def plain_page(product: str, title: str, lead: str, figures: Sequence[Figure], tables: Sequence[Table]) -> str:
    """The whole document; lead: one sentence or two below the title."""
    return template("plain.html.j2").render(
        made_by=__version__, product=product, css=style(), title=title, model=title, verdict="", sum_up=lead, head=[],
        figures=figures, tables=tables,
    )  # fmt: skip
