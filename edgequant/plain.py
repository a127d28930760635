"""Text from model files made harmless, and numbers made readable."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgequant.compare.table import TABLE
from edgequant.text import NAME, apart, escape, shortened
from edgequant.text import printable as printable


def name(text: str, encoding: str = "utf-8") -> str:
    """A tensor or case name, such that two different names never look the same.

    Backslashes are doubled, so that an escape cannot be imitated; blanks other than single inner spaces would get
    lost, so such a name is quoted and its blanks are escaped.  A name that starts with a quote is quoted too.  Of a
    long one the middle is left out.
    """
    text = shortened(text, NAME)
    shown = printable(text.replace("\\", "\\\\"), encoding)
    odd = (
        shown.startswith('"') or any(c.isspace() and c != " " for c in shown) or "  " in shown or shown != shown.strip()
    )
    if not shown or odd:
        return '"' + "".join(escape(c) if c.isspace() else c for c in shown) + '"'
    return shown


def metric(name: str, value: float | None) -> str:
    """Of a metric as the table of metrics says; decimals are rounded down: 19.97 must not look like 20.0 beside 20."""
    decimals = TABLE[name].decimals
    if value is None or decimals is None:
        return amount(value)
    return f"{math.floor(value * 10**decimals) / 10**decimals:.{decimals}f}"


def against(name: str, value: float, bound: float) -> tuple[str, str]:
    """A value of a metric and its bound, with as many digits as say on which side of the bound it is."""
    shown, of = metric(name, value), f"{bound:g}"
    number = float(shown)
    if (number < float(of), number > float(of)) == (value < bound, value > bound):
        return shown, of
    told, of = apart([value, bound])
    return told, of


def decibel(value: float | None) -> str:
    return metric("sqnr_db", value)


def amount(value: float | None) -> str:
    """Three significant digits."""
    return "-" if value is None else "0" if value == 0 else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """Three digits, but never fewer than the whole part has: 1234, 99.9, 0.0123."""
    if value is None:
        return "-"
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    shown = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{min(max(shown, 0), 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} MB"


def joined(names: Sequence[str], word: str = "and") -> str:
    """As one says it: ``a``, ``a and b``, ``a, b and c``."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
