"""The picture of a search: every model that was tried is in it, and says what it is."""

from __future__ import annotations

from xml.etree import ElementTree

from edgequant.quantize.recipe import Recipe, Rule
from edgequant.quantize.search.front import Point, front_svg


def point(label: str, size: int, margin: float, *, made: bool = True) -> Point:
    return Point(
        label=label, memory="low", size=size, made=made, sqnr_db={"y": 20 + margin}, margin_db=margin, worst="y<",
        recipe=Recipe(rules=(Rule(name=label, bits=8),)),
    )  # fmt: skip


def test_every_model_is_there() -> None:
    points = [point("dynamic:4", 400_000, -60.0), point("auto", 600_000, 1.0, made=False), point("fp16", 900_000, 99.0)]
    root = ElementTree.fromstring(front_svg(points, points[2]))
    told = [each.text or "" for each in root.iter() if each.tag.endswith("title")]
    assert {f"{each.label}, memory low: {each.size} bytes, {each.margin_db:.1f} dB at y<" for each in points} <= set(
        told
    )
    assert {"front", "chosen", "memory low, a file", "memory low, put together only"} <= {
        each.text for each in root.iter() if each.tag.endswith("text")
    }


def test_none_is_no_error() -> None:
    ElementTree.fromstring(front_svg([], None))
