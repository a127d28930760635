"""Names nobody has vetted, in tables and drawings."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant.cells import cell, legible


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_text_is_no_formula(start: str) -> None:
    assert cell(f"{start}cmd").startswith("'")


def test_values() -> None:
    assert [cell(value) for value in (None, "", 1, -2.5, True, "a\x1b[31m", "\0")] == [
        "", "", "1", "-2.5", "True", "a\\x1b[31m", "\\0",
    ]  # fmt: skip


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_rows_and_drawings_stay_whole(text: str) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[cell(text), "end"]] * 2)
    raw = out.getvalue().encode("utf-8").decode("utf-8")
    assert list(csv.reader(io.StringIO(raw, newline=""))) == [[cell(text), "end"]] * 2
    assert ET.fromstring(f"<title>{escape(legible(text))}</title>").text in (legible(text), None)
