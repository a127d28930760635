"""One metric over the runs, with the places where its level changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgequant import charts, plain
from edgequant.errors import InputError
from edgequant.history.changes import LEVEL, ChangePoint, change_points
from edgequant.history.store import History, Point, Wanted
from edgequant.judge.verdict import Verdict
from edgequant.report.against import shown_value
from edgequant.report.html.figures import Figure
from edgequant.report.html.plain import plain_page
from edgequant.report.html.table import Cell, Table, name, number, said
from edgequant.report.numbers import better

_MOST_DRAWN = 4
"""Variants, each with its level; the tables have all."""
_MOST_POINTS, _MOST_ROWS = 400, 1000


@dataclass(frozen=True)
class Series:
    """One variant.  points: the oldest first.  changes: places among the valid ones."""

    variant: str
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...]

    @property
    def valid(self) -> list[Point]:
        return [each for each in self.points if not each.why]

    def changed(self) -> list[tuple[Point, Point, ChangePoint]]:
        """The last run before and the first behind each change."""
        good = self.valid
        return [(good[each.place - 1], good[each.place], each) for each in self.changes]


@dataclass(frozen=True)
class Trend:
    """The whole.  output: whose; "" for the run's own, None for the worst of all."""

    metric: str
    model: str
    device: str
    output: str | None
    series: tuple[Series, ...]

    @property
    def title(self) -> str:
        return f"{self.metric} of {plain.name(self.model)} on {plain.name(self.device)}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": "edgequant.history.plot/1", "metric": self.metric, "model": self.model, "device": self.device,
            "output": self.output, "better": better(self.metric), "level": LEVEL,
            "series": [
                {
                    "variant": each.variant,
                    "points": [
                        {
                            "id": point.document, "created": point.created, "output": point.output,
                            "value": point.value, "valid": not point.why, "why": point.why or None,
                            "edgequant": point.edgequant, "mnn": point.mnn, "verdict": point.verdict,
                        }
                        for point in each.points
                    ],
                    "changes": [
                        {
                            "last_before": one.document, "first_behind": two.document, "created": two.created,
                            "before": change.before, "after": change.after, "p": change.p,
                        }
                        for one, two, change in each.changed()
                    ],
                }
                for each in self.series
            ],
        }  # fmt: skip


def trend(history: History, metric: str, wanted: Wanted, output: str | None) -> Trend:
    """What is known of a metric.  Raises InputError (HISTORY_NOTHING), with the metrics there are."""
    found = history.points(metric, wanted, output)
    if not found:
        known = ", ".join(history.metrics(wanted))
        raise InputError(
            "HISTORY_NOTHING",
            f"no {metric} of {wanted.model} on {wanted.device}" + (f" for {output}" if output else ""),
            hint=f"Known of it: {known[:600]}." if known else "edgequant history list shows the runs there are.",
        )
    by_variant: dict[str, dict[str, Point]] = {}
    for point in found:
        mine = by_variant.setdefault(point.variant, {})
        was = mine.get(point.document)
        mine[point.document] = point if was is None else _worse(metric, was, point)
    series = [_series(variant, list(points.values())) for variant, points in by_variant.items()]
    several = len({point.output for point in found}) > 1
    whose = output if output is not None else None if several else found[0].output
    return Trend(metric, wanted.model or "", wanted.device or "", whose, tuple(series))


def _worse(metric: str, one: Point, two: Point) -> Point:
    low, high = (one, two) if one.value <= two.value else (two, one)
    return low if better(metric) == ">=" else high


def _series(variant: str, points: list[Point]) -> Series:
    good = [each.value for each in points if not each.why]
    return Series(variant, tuple(points), tuple(change_points(good)))


def to_svg(found: Trend) -> str:
    """Values by run, each variant with the level it has between changes; what is not valid by itself."""
    drawn = found.series[:_MOST_DRAWN]
    runs = sorted({(point.created, point.document) for each in drawn for point in each.points})[-_MOST_POINTS:]
    lines: dict[str, Sequence[float | None]] = {}
    invalid: dict[str, float] = {}
    for each in drawn:
        values = {point.document: point.value for point in each.valid}
        invalid |= {point.document: point.value for point in each.points if point.why}
        label = plain.name(each.variant)
        lines[label] = [values.get(document) for _, document in runs]
        if each.changes:
            levels = _levels(each)
            lines[f"{label}: level"] = [levels.get(document) for _, document in runs]
    lines = dict(list(lines.items())[: charts.MOST_SERIES - 1])
    low, high = _edges([value for values in lines.values() for value in values if value is not None])
    if invalid:
        capped = {document: min(max(value, low), high) for document, value in invalid.items()}
        lines["not valid"] = [capped.get(document) for _, document in runs]
    changes = sum(len(each.changes) for each in found.series)
    told = f"{changes} change{'s' if changes != 1 else ''} of level."
    direction = {">=": "More is better.", "<=": "Less is better."}.get(better(found.metric), "")
    said_of = charts.Said(
        found.title,
        f"A point is a run, the oldest to the left. {direction} {told}",
        "run, by its day and its id"
        if len({created[:4] for created, _ in runs}) == 1
        else "run, by its month and its id",
        found.metric,
        shown=lambda value: shown_value(found.metric, value),
    )
    # Of two runs of a day the labels are to be two: what has the label of another is written where that is.
    part = slice(5, 10) if len({created[:4] for created, _ in runs}) == 1 else slice(2, 7)
    labels = [f"{created[part]} {document[:4]}" for created, document in runs]
    return charts.curves(lines, said_of, labels=labels, dots=True, wide=True)


def _edges(valid: Sequence[float]) -> tuple[float, float]:
    """What is not valid and lies beyond them is drawn there: it would press all others together."""
    if not valid:
        return float("-inf"), float("inf")
    room = (max(valid) - min(valid)) / 3 or abs(valid[0]) / 3 or 1.0
    return min(valid) - room, max(valid) + room


def _levels(series: Series) -> dict[str, float]:
    good = series.valid
    first = series.changes[0].before
    levels = {point.document: first for point in good}
    for change in series.changes:
        levels |= {point.document: change.after for point in good[change.place :]}
    return levels


def to_html(found: Trend) -> str:
    """The plot, the changes and every value."""
    figure = Figure(to_svg(found), found.title, _about(found))
    changes = Table("changes", "Changes of level", ["variant", "from run", "on", "before", "after", "p"])
    values = Table("values", "Every run", ["run", "when", "variant", "output", "value", "verdict", "edgequant", "MNN"])
    for each in found.series:
        for _, point, change in each.changed():
            changes.add(
                [
                    name(each.variant, head=True), Cell(point.document[:12]), Cell(said(point.created)),
                    number(shown_value(found.metric, change.before)), number(shown_value(found.metric, change.after)),
                    number(f"{change.p:.4f}"),
                ]
            )  # fmt: skip
        for point in each.points[-_MOST_ROWS // len(found.series) :]:
            verdict = Cell(point.verdict, f"verdict {point.verdict}" if point.verdict in set(Verdict) else "")
            values.add(
                [
                    Cell(point.document[:12], head=True), Cell(said(point.created)), name(point.variant),
                    name(point.output) if point.output else Cell(""),
                    number(shown_value(found.metric, point.value), why=[point.why]), verdict,
                    Cell(said(point.edgequant)), Cell(said(point.mnn)),
                ]
            )  # fmt: skip
    return plain_page(
        "edgequant history", found.title, _about(found), [figure], [table for table in (changes, values) if table.rows]
    )


def _about(found: Trend) -> str:
    left_out = len(found.series) - _MOST_DRAWN
    more = f" {left_out} more variants are in the table only." if left_out > 0 else ""
    whose = "the worst output" if found.output is None else f"output {plain.name(found.output)}" if found.output else ""
    return (
        f"{f'Of {whose}. ' if whose else ''}"
        "Numbers that are not valid are marked, drawn at the edge where they are far off, and take no part in looking "
        "for changes; "
        f"of series without a change, {LEVEL:.0%} are said to have one.{more}"
    )
