"""Plots as SVG: well-formed whatever the names are, nothing in them runs, and every value is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from edgequant import charts
from edgequant.charts import Dot, Said

NAME = '"><script>x</script>\u202e\x1b'
SAID = Said(NAME, NAME, NAME, NAME)
EVERY = {
    "scatter": lambda: charts.scatter({NAME: [Dot(1, 2, NAME)], "b": [Dot(2, 3, "there")]}, SAID, joined=["b"]),
    "curves": lambda: charts.curves({NAME: [1.0, None, 3.0]}, SAID, labels=[NAME, "2", "3"], dots=True),
    "boxes": lambda: charts.boxes({NAME: [1.0, 2.0, 9.0]}, SAID),
    "bars": lambda: charts.bars([NAME], {"a": [None], "b": [0.0]}, SAID),
    "nothing": lambda: charts.scatter({}, SAID),
    "one number": lambda: charts.boxes({"a": [0.0] * 900}, SAID),
}


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_it_is_a_drawing_and_nothing_else(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    tags = {each.tag.rpartition("}")[2] for each in root.iter()}
    assert tags <= {"svg", "g", "rect", "path", "circle", "line", "text", "title", "desc"}
    assert not any(key.startswith("on") or "href" in key for each in root.iter() for key in each.attrib)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == '"><script>x</script>\\u202e\\x1b. "><script>x</script>\\u202e\\x1b'
    assert draw() == svg


def test_every_value_is_said_as_it_is_shown_elsewhere() -> None:
    said = Said("a", "b", shown=lambda value: f"{value:.1f} MB")
    root = ElementTree.fromstring(charts.bars(["one"], {"file": [2.04], "rss": [30.0]}, said))
    titles = [each.text or "" for each in root.iter() if each.tag.endswith("title")]
    assert sorted(each for each in titles if "MB" in each) == ["one: 2.0 MB", "one: 30.0 MB"]


def test_by_itself_it_brings_its_colours() -> None:
    svg = charts.standalone(EVERY["boxes"]())
    assert "prefers-color-scheme:dark" in (ElementTree.fromstring(svg)[0].text or "")
    assert svg.startswith("<svg")
