"""The templates of pages: whatever is written through them is harmless."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgequant import charts
from edgequant.report.html.figures import Figure
from edgequant.report.html.table import Table, said
from edgequant.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(name: str) -> Template:
    """One of this folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, autoescape=True, finalize=_harmless, undefined=StrictUndefined)
    made.trim_blocks = made.lstrip_blocks = True
    return made.get_template(name)


def _harmless(value: object) -> object:
    """Whatever is written: no text gets past this, whoever forgot it."""
    return value if not isinstance(value, str) or hasattr(value, "__html__") else said(value)


def css() -> str:
    return charts.CSS + (Path(__file__).parent / "style.css").read_text("utf-8")


def plain_page(title: str, lead: Sequence[str], figures: Sequence[Figure], tables: Sequence[Table]) -> str:
    """A page of figures and tables, that is not the report of a run."""
    return template("plain.html.j2").render(
        css=css(), title=title, lead=lead, figures=figures, tables=tables, version=__version__
    )
