"""The plots of a page; every number in them stands in a table as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from edgequant import charts, plain
from edgequant.archive.layers import Spread
from edgequant.report import words
from edgequant.report.html.archive import Kept
from edgequant.report.html.layers import Looked
from edgequant.report.html.runs import Named
from edgequant.report.model import OutputDrift
from edgequant.report.tables import costs, worst_first

MOST_POINTS = 300
MOST_GROUPS = 16
CEILING_DB = 120.0
"""What is better is exact for every purpose, and would press all others together."""


@dataclass(frozen=True)
class Figure:
    """svg: made by `charts`, which escapes.  about: below it; it says what the picture leaves out."""

    svg: str
    title: str
    about: str


def figure(svg: str, said: charts.Said, *more: str) -> Figure:
    """more: what is said below it, where there is any."""
    return Figure(svg, said.title, " ".join([said.text, *filter(None, more)]))


def size_against_error(runs: Sequence[Named]) -> Figure | None:
    """A dot for each run whose file is known and whose worst output has an SQNR."""
    series: dict[str, list[charts.Dot]] = {}
    for each in runs:
        memory, ordered = each.run.memory_mb, worst_first(each.run)
        db = ordered[0][1].sqnr_db if ordered else None
        if memory is None or memory.model_file is None or db is None:
            continue
        label = f"{each.title}: {costs(each.run, ordered[0][1])['file MB']} MB, {plain.decibel(db)} dB"
        series.setdefault(each.run.variant, []).append(charts.Dot(memory.model_file, db, label))
    series = dict(list(series.items())[: charts.MOST_SERIES])
    if len({dot.x for dots in series.values() for dot in dots}) < 2:
        return None
    said = charts.Said(
        "Size against error",
        "To the left is smaller, up is better. A dot is a run, by the worst case of its worst output.",
        "file, MB",
        "worst output, SQNR dB",
    )
    return figure(charts.scatter(series, said), said)


def accuracy(runs: Sequence[Named]) -> Figure | None:
    """SQNR of each output of each run."""
    shown = [each for each in runs if each.run.outputs][: charts.MOST_SERIES]
    labels = list(dict.fromkeys(name for each in shown for name, _ in worst_first(each.run)))[:MOST_GROUPS]
    series = {
        each.title: [_length(each.run.outputs[name].sqnr_db) if name in each.run.outputs else None for name in labels]
        for each in shown
    }
    if not any(value is not None for values in series.values() for value in values):
        return None
    said = charts.Said(
        "Accuracy of each output",
        "SQNR in dB of the worst case; longer is better, and no bar is an error as large as the signal or larger (0 "
        "dB or less: its number is in the table).",
        "SQNR, dB",
        shown=_shown_db,
    )
    more = sum(1 for each in runs if each.run.outputs) - len(shown)
    return figure(charts.bars(labels, series, said), said, left_out(more, "runs"))


def latency_spread(runs: Sequence[Named], kept: Kept) -> Figure | None:
    series = {_timed(each): kept.samples(each.run) for each in runs}
    series = {name: samples for name, samples in series.items() if len(samples) > 1}
    if not series:
        return None
    shown = dict(list(series.items())[: charts.MOST_SERIES])
    edge = max(edge_of(samples) for samples in shown.values())
    beyond = [value for samples in shown.values() for value in samples if value > edge]
    drawn = {name: [min(value, edge) for value in samples] for name, samples in shown.items()}
    said = charts.Said(
        "Latency: spread",
        "Box: the middle half of the inferences, with their median; dots: inferences far from it.",
        y="ms an inference",
    )
    farther = ""
    if beyond:
        slowest = plain.milliseconds(max(beyond))
        farther = f"{len(beyond)} slower, up to {slowest} ms, are drawn at the upper edge."
    return figure(charts.boxes(drawn, said), said, farther, left_out(len(series) - len(shown), "runs"))


def edge_of(samples: Sequence[float]) -> float:
    """Above it a picture would show few inferences, and nothing of the others."""
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return max(high + 8 * (high - low), 1.1 * high)


def latency_series(runs: Sequence[Named], kept: Kept) -> Figure | None:
    series = {_timed(each): kept.samples(each.run) for each in runs}
    series = {name: samples for name, samples in series.items() if len(samples) > 1}
    if not series:
        return None
    longest = max(len(samples) for samples in series.values())
    every = math.ceil(longest / MOST_POINTS)
    thinned = f"Each point is the slowest of {every} in a row." if every > 1 else ""
    said = charts.Said(
        "Latency: one inference after the other", f"In the order they were timed. {thinned}".strip(), "inference",
        "ms an inference",
    )  # fmt: skip
    shown = dict(list(series.items())[: charts.MOST_SERIES])
    values = {
        name: [max(samples[at : at + every]) for at in range(0, len(samples), every)]
        for name, samples in shown.items()
    }  # fmt: skip
    labels = [str(at + 1) for at in range(0, longest, every)]
    return figure(charts.curves(values, said, labels=labels), said, left_out(len(series) - len(shown), "runs"))


def memory(runs: Sequence[Named]) -> Figure | None:
    known = [each for each in runs if each.run.memory_mb is not None]
    shown = known[:MOST_GROUPS]
    series: dict[str, list[float | None]] = {}
    for key, label in words.MEMORY.items():
        values = [getattr(each.run.memory_mb, key) for each in shown]
        if any(value is not None for value in values):
            series[label] = values
    if not series:
        return None
    said = charts.Said("Memory", "File, MNN's session, and the process that ran it.", "MB", shown=plain.megabytes)
    svg = charts.bars([each.title for each in shown], series, said)
    return figure(svg, said, left_out(len(known) - len(shown), "runs"))


def drift(title: str, found: OutputDrift) -> Figure | None:
    """Curves of one output along the steps."""
    steps = [step for step, _ in max((each.octaves for each in found.curves.values()), key=len, default=[])]
    if len(steps) < 2:
        return None
    series = {name: [_db(dict(curve.octaves).get(step)) for step in steps] for name, curve in found.curves.items()}
    # What costs nothing would press what costs something together.
    drawn = {name: values for name, values in series.items() if any(each not in (None, CEILING_DB) for each in values)}
    if not drawn:
        return None
    limit = f" Breaks {found.limit} in step {found.breaks_at}." if found.breaks_at is not None else ""
    exact = [name for name in series if name not in drawn]
    none = f" Not drawn, as it is exact or above {CEILING_DB:.0f} dB: {', '.join(exact)}." if exact else ""
    said = charts.Said(
        f"Error over the steps: {title}",
        f"SQNR in dB, source against device (total) and what each stage adds; lower is worse.{limit}{none}",
        "step",
        "SQNR, dB",
        shown=lambda value: f"{value:.0f}",
    )
    return figure(charts.curves(drawn, said, labels=list(map(str, steps)), dots=True), said)


def layer_errors(title: str, looked: Sequence[Looked]) -> Figure | None:
    """One variant along the graph: what quantizing costs on this host, and how far each device is from it."""
    first = looked[0]
    series: dict[str, list[float | None]] = {}
    if any(row.entire_db is not None for row in first.rows):
        series["quantization, on this host"] = [_db(row.entire_db) for row in first.rows]
    alone = "single: of the model's output"
    if any(row.single_db is not None for row in first.rows):
        series[alone] = [_db(row.single_db) for row in first.rows]
    for each in looked:
        by_layer = {row.layer: row.device_db for row in each.rows}
        values = [_db(by_layer.get(row.layer)) for row in first.rows]
        if any(value is not None for value in values):
            series[f"device {plain.name(each.uri)}"] = values
    shown = dict(list(series.items())[: charts.MOST_SERIES])
    if len(first.rows) < 2 or not shown:
        return None
    blamed = [place + 1 for place, row in enumerate(first.rows) if row.blamed]
    whose = f" To blame: layer {', '.join(map(str, blamed[:8]))}." if blamed else ""
    said = charts.Said(
        f"Error along the graph: {title}",
        f"SQNR in dB of each layer's output, in the order the layers are computed; lower is worse.{whose} "
        f"{'Points: what the model has with that layer alone quantized. ' if alone in series else ''}"
        f"What is above {CEILING_DB:.0f} dB or exact is drawn at {CEILING_DB:.0f}.",
        "layer, by its number in the table",
        "SQNR, dB",
    )
    labels = [str(place + 1) for place in range(len(first.rows))]
    svg = charts.curves(shown, said, labels=labels, wide=True, apart=[alone])
    return figure(svg, said, left_out(len(series) - len(shown), "devices"))


_SIDES = {"plain": "float, on this host", "here": "quantized, on this host", "there": "quantized, on the device"}


def spreads(looked: Looked) -> list[Figure]:
    """How the numbers of the worst layers are spread, float against quantized."""
    return [found for each in looked.spreads if (found := _spread(each)) is not None]


def _spread(found: Spread) -> Figure | None:
    width = (found.high - found.low) / max(map(len, found.counts.values()), default=1)
    series: dict[str, list[float | None]] = {}
    for side, label in _SIDES.items():
        counts = found.counts.get(side)
        if counts and sum(counts):
            # Half a number stands for none, which has no logarithm.
            series[label] = [100 * max(count, 0.5) / sum(counts) for count in counts]
    if not series:
        return None
    said = charts.Said(
        f"Numbers of {plain.name(found.layer)}",
        f"How many of its output's numbers are how large, in case {plain.name(found.case)}. The ends hold all that is "
        "beyond the float ones by a quarter of their range; at the bottom is none. Where the quantized ones stop short "
        "they are clipped, and where they stand in few places the scale is too coarse.",
        "size",
        "% of all, logarithmic",
    )
    labels = [f"{found.low + (place + 0.5) * width:.3g}" for place in range(len(next(iter(series.values()))))]
    return figure(charts.curves(series, said, labels=labels, logarithmic=True), said)


def _timed(each: Named) -> str:
    latency = each.run.latency_ms
    return each.title if latency is None or latency.valid else f"not valid: {each.title}"


def _db(value: float | None) -> float | None:
    return None if value is None else min(value, CEILING_DB)


def _length(value: float | None) -> float | None:
    """Of a bar: one to the left of 0 would be long where it is worst."""
    found = _db(value)
    return None if found is None else max(found, 0.0)


def _shown_db(value: float) -> str:
    if value <= 0:
        return "0 or less"
    return plain.decibel(value) if value < CEILING_DB else f"{CEILING_DB:.0f} or more, or exact"


def left_out(more: int, what: str) -> str:
    """That some are not drawn; empty where all are."""
    return f"{more} more {what} are in the tables only." if more > 0 else ""
