"""Text from models inside tables and drawings: what a spreadsheet, a CSV reader or an XML parser would trip over."""

from __future__ import annotations

from edgequant.text import escape, invisible

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are wide ones


def cell(value: object) -> str:
    """A value as a cell of a CSV table; what there is no value for is empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front: names come from model files nobody
    has vetted.  Control characters become escapes: csv leaves a lone carriage return unquoted, and readers end the line
    there.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    text = str(value)
    return f"'{legible(text)}" if isinstance(value, str) and text.startswith(_FORMULA) else legible(text)


def legible(text: str) -> str:
    """The text with escapes like ``\\x1b`` for what XML does not allow, a terminal obeys or a reader does not see; tab
    and line feed stay."""
    escaped = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
    return "".join(escape(c) if invisible(c) and c not in "\t\n" else c for c in escaped)
