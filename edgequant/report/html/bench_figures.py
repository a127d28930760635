"""The plots of a bench's page; every number in them stands in a table as well."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from edgequant import charts, plain
from edgequant.archive.types import Capture
from edgequant.report import bench_words as words
from edgequant.report.bench import BenchDeviceReport, SettingReport
from edgequant.report.html.figures import MOST_GROUPS, MOST_POINTS, Figure, edge_of, figure, left_out

MOST_DEVICES = 4
Blocks = Mapping[str, Sequence[Capture]]
"""Captures of a device, by setting (its id)."""


def of_device(device: BenchDeviceReport, blocks: Blocks, *, titled: bool) -> Iterator[Figure]:
    """titled: there are others."""
    on = f" on {device.uri}" if titled else ""
    yield from filter(
        None,
        (
            _spread(device, blocks, on),
            _by_round(device, on),
            _series(device, blocks, on),
            _conditions(blocks, on),
            _memory(device, on),
        ),
    )


def _title(setting: SettingReport) -> str:
    return setting.name if setting.valid else f"not valid: {setting.name}"


def _samples(setting: SettingReport, blocks: Blocks) -> list[tuple[float, ...]]:
    """Of the blocks that the numbers are of."""
    used = {each.round for each in setting.blocks if each.used}
    taken = blocks.get(setting.id or setting.name, ())
    return [
        timing.samples_ms
        for number, capture in enumerate(taken)
        if number + 1 in used
        for timing in capture.timings
        if timing.samples_ms
    ]


def _spread(device: BenchDeviceReport, blocks: Blocks, on: str) -> Figure | None:
    series = {_title(each): list(chain(*_samples(each, blocks))) for each in device.settings}
    series = {name: samples for name, samples in series.items() if len(samples) > 1}
    if not series:
        return None
    shown = dict(list(series.items())[: charts.MOST_SERIES])
    edge = max(edge_of(samples) for samples in shown.values())
    beyond = [value for samples in shown.values() for value in samples if value > edge]
    text = charts.Said(
        f"Latency: spread{on}",
        "Box: the middle half of all inferences, with their median; dots: inferences far from it.",
        y="ms an inference",
    )
    far = f"{len(beyond)} slower, up to {plain.milliseconds(max(beyond))} ms, are drawn at the edge." if beyond else ""
    drawn = {name: [min(value, edge) for value in samples] for name, samples in shown.items()}
    return figure(charts.boxes(drawn, text), text, far, left_out(len(series) - len(shown), "settings"))


def _by_round(device: BenchDeviceReport, on: str) -> Figure | None:
    rounds = range(1, max((each.round for setting in device.settings for each in setting.blocks), default=0) + 1)
    series = {}
    for setting in device.settings:
        values = {each.round: each.ms.get("p50") for each in setting.blocks}
        if any(value is not None for value in values.values()):
            series[_title(setting)] = [values.get(number) for number in rounds]
    if len(rounds) < 2 or not series:
        return None
    shown = dict(list(series.items())[: charts.MOST_SERIES])
    bad = sorted({each.round for setting in device.settings for each in setting.blocks if each.doubts})
    marked = f" Something was in the way in round {', '.join(map(str, bad[:20]))}." if bad else ""
    text = charts.Said(
        f"p50 of each block{on}",
        f"A process of its own for each: what differs from block to block is what the interval is made of.{marked}",
        "round",
        "p50, ms",
        shown=plain.milliseconds,
    )
    svg = charts.curves(shown, text, labels=[str(number) for number in rounds], dots=True)
    return figure(svg, text, left_out(len(series) - len(shown), "settings"))


def _series(device: BenchDeviceReport, blocks: Blocks, on: str) -> Figure | None:
    series = {_title(each): list(chain(*_samples(each, blocks))) for each in device.settings}
    series = {name: samples for name, samples in series.items() if len(samples) > 1}
    if not series:
        return None
    shown = dict(list(series.items())[: charts.MOST_SERIES])
    longest = max(map(len, shown.values()))
    every = math.ceil(longest / MOST_POINTS)
    thinned = f" Each point is the slowest of {every} in a row." if every > 1 else ""
    text = charts.Said(
        f"One inference after the other{on}",
        f"In the order they were timed, block after block.{thinned}",
        "inference",
        "ms an inference",
        shown=plain.milliseconds,
    )
    values = {
        name: [max(samples[at : at + every]) for at in range(0, len(samples), every)] for name, samples in shown.items()
    }
    labels = [str(at + 1) for at in range(0, longest, every)]
    return figure(charts.curves(values, text, labels=labels), text, left_out(len(series) - len(shown), "settings"))


def _conditions(blocks: Blocks, on: str) -> Figure | None:
    """Temperature, frequency and known work, each as a share of its highest, over the session."""
    noted = sorted(
        (each.up, each.celsius, max(each.mhz) if each.mhz else None)
        for captures in blocks.values()
        for capture in captures
        for timing in capture.timings
        for each in timing.conditions
    )
    if len(noted) < 2:
        return None
    every = math.ceil(len(noted) / MOST_POINTS)
    kept = noted[::every]
    series: dict[str, list[float | None]] = {}
    for name, place in (("hottest zone, °C", 1), ("fastest CPU, MHz / 100", 2)):
        values = [each[place] for each in kept]
        if any(value is not None for value in values):
            series[name] = [None if value is None else value / (100 if place == 2 else 1) for value in values]
    if not series:
        return None
    start = noted[0][0]
    text = charts.Said(
        f"Temperature and frequency{on}",
        "As the device told them before, in and after each block.",
        "minutes since the first block",
        "°C, and MHz / 100",
    )
    return figure(charts.curves(series, text, labels=[f"{(each[0] - start) / 60:.1f}" for each in kept]), text)


def _memory(device: BenchDeviceReport, on: str) -> Figure | None:
    known = [each for each in device.settings if each.memory is not None]
    shown = known[:MOST_GROUPS]
    series: dict[str, list[float | None]] = {}
    for label, key in (("file", "file_mb"), ("MNN's session", "session_mb")):
        series[label] = [getattr(each.memory, key) for each in shown]
    for key, label in words.STAGES.items():
        series[f"RSS, {label}"] = [_rss(each, key) for each in shown]
    series = {name: values for name, values in series.items() if any(value is not None for value in values)}
    if not series:
        return None
    text = charts.Said(
        f"Memory{on}", "File, session and process, stage by stage: the highest of each stage, or its end where the "
        "kernel tells no more.", "MB", shown=plain.megabytes,
    )  # fmt: skip
    svg = charts.bars([each.id or each.name for each in shown], series, text)
    return figure(svg, text, left_out(len(known) - len(shown), "settings"))


def _rss(setting: SettingReport, key: str) -> float | None:
    stage = None if setting.memory is None else setting.memory.stages.get(key)
    return None if stage is None else stage.rss if stage.peak is None else stage.peak
