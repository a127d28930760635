"""Plots as SVG: nothing in them runs or is loaded, colours come from CSS, and every point says what it is.

pygal draws.  What it puts around its drawings (scripts with all their data, style sheets, date, addresses) is left out;
where a mouse would have run a script, the value is the element's title, which browsers show and screen readers read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from edgequant.cells import legible
from edgequant.text import shortened

WIDTH, HEIGHT = 640, 340
MOST_SERIES = 8
"""So many colours there are.  Who draws says what is left out."""
_MOST_NAME = 34
_MOST_IN_BOX, _MOST_SAID = 401, 600
_LIGHT = ("#1f5fbf", "#b3460b", "#1a7f5a", "#8e3aa8", "#a8133b", "#56620b", "#0e7490", "#6b5344")
_DARK = ("#79b0ff", "#ff9f63", "#5cd6a4", "#d79bff", "#ff8fa8", "#c9d35b", "#62d0ea", "#d3b8a4")

CSS = (
    ":root{--ink:#1b1f24;--quiet:#59616b;--rule:#d5dae0;--paper:#ffffff;"
    + "".join(f"--c{number}:{colour};" for number, colour in enumerate(_LIGHT))
    + "}@media(prefers-color-scheme:dark){:root{--ink:#e8ebef;--quiet:#a5adb8;--rule:#3a424d;--paper:#161a20;"
    + "".join(f"--c{number}:{colour};" for number, colour in enumerate(_DARK))
    + "}}"
    + """
.pygal-chart{display:block;width:100%;height:auto;font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.pygal-chart text{fill:var(--ink);stroke:none;font-size:12px}
.pygal-chart .background{fill:none;stroke:none}
.pygal-chart .axis text{fill:var(--quiet)}
.pygal-chart .axis .line{stroke:var(--rule);fill:none;stroke-width:1}
.pygal-chart .axis .guide{stroke-dasharray:none}
.pygal-chart .axis.x text,.pygal-chart text.title,.pygal-chart .centered{text-anchor:middle}
.pygal-chart .axis.y text{text-anchor:end}
.pygal-chart .horizontal .axis.y .guide.line,.pygal-chart .vertical .axis.x .guide.line{opacity:0}
.pygal-chart .reactive{stroke-width:1.8}
.pygal-chart .nofill,.pygal-chart path.line.reactive{fill:none}
.pygal-chart .subtle-fill{fill-opacity:.22}
.pygal-chart .title{fill:var(--quiet)}
.pygal-chart .bar rect,.pygal-chart .dot{stroke-width:1}
"""
    + "".join(f".pygal-chart .color-{n}{{stroke:var(--c{n});fill:var(--c{n})}}" for n in range(MOST_SERIES))
    + ".pygal-chart .color-1 .line{stroke-dasharray:7 3}.pygal-chart .color-2 .line{stroke-dasharray:2 3}"
    + ".pygal-chart .color-3 .line{stroke-dasharray:9 3 2 3}.pygal-chart .color-5 .line{stroke-dasharray:4 2}"
)
"""Of all plots, light and dark.  Colours have a contrast of at least 4.5 on their paper."""


def _figure(value: float) -> str:
    return f"{value:.4g}"


@dataclass(frozen=True)
class Said:
    """What is said of a plot to who cannot see it, and along its axes.  shown: a value, as text."""

    title: str
    text: str
    x: str = ""
    y: str = ""
    shown: Callable[[float], str] = _figure


@dataclass(frozen=True)
class Dot:
    """label: what it is, with its numbers as they are shown elsewhere."""

    x: float
    y: float
    label: str


def scatter(series: Mapping[str, Sequence[Dot]], said: Said, *, joined: Sequence[str] = ()) -> str:
    """Points; series that are `joined` are a line and no points."""
    import pygal

    every = [dot for dots in series.values() for dot in dots]
    ranges = {"xrange": _padded([dot.x for dot in every]), "range": _padded([dot.y for dot in every])}
    chart = pygal.XY(**_options(said, series), **ranges, show_dots=True, dots_size=5, stroke=False)
    for name, dots in series.items():
        values = [{"value": (dot.x, dot.y), "label": _said(dot.label), "formatter": lambda _: ""} for dot in dots]
        chart.add(_short(name), values, stroke=name in joined, show_dots=name not in joined)
    return _svg(chart, said)


def curves(
    series: Mapping[str, Sequence[float | None]],
    said: Said,
    *,
    labels: Sequence[str] = (),
    dots: bool = False,
    wide: bool = False,
    apart: Sequence[str] = (),
    logarithmic: bool = False,
) -> str:
    """Values by place; labels: of the places, so many of which are written as there is room for.

    apart: series that are points and no line.  logarithmic: then values are above 0.
    """
    import pygal

    chart = pygal.Line(**_options(said, series), show_dots=dots, dots_size=3, logarithmic=logarithmic)
    chart.width = WIDTH * 2 if wide else WIDTH
    if labels:
        chart.x_labels = [_said(each) for each in labels]
        step = max(1, math.ceil(len(labels) / (18 if wide else 9)))
        chart.x_labels_major = list(chart.x_labels[::step])
        chart.show_minor_x_labels = False
    if logarithmic:
        every = [value for values in series.values() for value in values if value]
        powers = range(math.floor(math.log10(min(every))), math.ceil(math.log10(max(every))) + 1)
        chart.y_labels = [10.0**power for power in powers]
    for name, values in series.items():
        points = name in apart
        chart.add(_short(name), list(values), formatter=said.shown, stroke=not points, show_dots=dots or points)
    return _svg(chart, said)


def boxes(series: Mapping[str, Sequence[float]], said: Said) -> str:
    """Quartiles, the farthest samples within one and a half times their distance, and those beyond as dots."""
    import pygal

    span = _padded([value for values in series.values() for value in values])
    low = max(span[0], 0.0)
    chart = pygal.Box(**_options(said, series), box_mode="tukey", range=(low, span[1]), zero=low)
    for name, values in series.items():
        chart.add(_short(name), _thinned(values))
    return _svg(chart, said, titled=False)  # pygal's quartiles are others than ours


def bars(labels: Sequence[str], series: Mapping[str, Sequence[float | None]], said: Said) -> str:
    """Horizontal bars, a group for each label, the first on top."""
    import pygal

    tall = 110 + len(labels) * (14 + 14 * len(series)) + 18 * len(series)
    # Its labels leave less room below for two names beside each other.
    options = _options(said, series, room=44 - max(map(len, map(_short, labels)), default=0))
    chart = pygal.HorizontalBar(**(options | {"height": tall}))
    chart.x_labels = [_short(each) for each in reversed(labels)]
    for name, values in series.items():
        chart.add(_short(name), list(reversed(values)), formatter=said.shown)
    return _svg(chart, said)


def standalone(svg: str) -> str:
    """As a file of its own, on its own paper."""
    return svg.replace(">", f"><style>{CSS}svg{{background:var(--paper)}}</style>", 1) + "\n"


def _thinned(values: Sequence[float]) -> list[float]:
    """Few enough to draw, with the smallest, the largest and the quartiles where they were."""
    ordered = sorted(values)
    if len(ordered) <= _MOST_IN_BOX:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / (_MOST_IN_BOX - 1))] for place in range(_MOST_IN_BOX)]


def _said(text: str) -> str:
    return legible(shortened(text, _MOST_SAID))


def _short(name: str) -> str:
    text = _said(name)
    return text if len(text) <= _MOST_NAME else f"{text[: _MOST_NAME - 12]}...{text[-9:]}"


def _options(said: Said, series: Iterable[str], room: int = 38) -> dict[str, Any]:
    """room: letters that a name in the legend may have, where two stand beside each other."""
    from pygal.style import Style

    lengths = [len(_short(name)) for name in series]
    columns = 2 if max(lengths, default=0) <= room else 1
    rows = math.ceil(len(lengths) / columns)
    # pygal leaves room for the rows that are full, less one.
    below = 21 * (rows - len(lengths) // columns + 1)
    fonts = {f"{part}_font_size": 12 for part in ("label", "major_label", "legend", "value", "title")}
    return {
        "width": WIDTH,
        "height": HEIGHT + 18 * rows,
        "margin": 10,
        "margin_bottom": below,
        "js": [],
        "css": [],
        "explicit_size": False,
        "disable_xml_declaration": True,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": columns,
        "legend_box_size": 10,
        "x_title": _said(said.x) or None,
        "y_title": _said(said.y) or None,
        "truncate_label": 60,
        "truncate_legend": _MOST_NAME + 1,
        "style": Style(**fonts),
        "value_formatter": _figure,
        "x_value_formatter": _figure,
        "no_data_text": "",
    }


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * 0.06 or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _svg(chart: Any, said: Said, *, titled: bool = True) -> str:
    chart.add_xml_filter(lambda root: _bare(root, said, titled=titled))
    return str(chart.render(is_unicode=True))


_PLACES = frozenset({"d", "x", "y", "cx", "cy", "width", "height", "transform"})
_LONG = re.compile(r"-?[0-9]+\.[0-9]{3,}")
_EMPTY = ("tooltip", "plot text-overlay", "plot tooltip-overlay")


def _bare(root: ElementTree.Element, said: Said, *, titled: bool) -> ElementTree.Element:
    """The drawing alone, with its name and its description in front."""
    for parent in list(root.iter()):
        parent.attrib.pop("id", None)  # which are the same in every plot of a page
        for key in _PLACES & parent.attrib.keys():
            parent.set(key, _LONG.sub(lambda found: f"{float(found[0]):.2f}", parent.get(key, "")))
        for child in list(parent):
            known = isinstance(child.tag, str)  # a comment's tag is a function
            if not known or child.tag in ("defs", "title", "script", "style") or child.get("class", "") in _EMPTY:
                parent.remove(child)
        told = [child for child in parent if child.tag == "desc"]
        words = {child.get("class", ""): child.text or "" for child in told}
        for child in told:
            parent.remove(child)
        if titled and "value" in words:
            label = words.get("label") or words.get("x_label") or ""
            title = ElementTree.Element("title")
            title.text = ": ".join(part for part in (label, words["value"]) if part)
            parent.insert(0, title)
    root.set("role", "img")
    root.set("aria-label", _said(f"{said.title}. {said.text}"))
    for place, (tag, text) in enumerate((("title", said.title), ("desc", said.text))):
        made = ElementTree.Element(tag)
        made.text = _said(text)
        root.insert(place, made)
    return root
