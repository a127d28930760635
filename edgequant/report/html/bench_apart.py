"""What a bench found beside latencies, on its page: long runs, energy, operators."""

from __future__ import annotations

from collections.abc import Iterator

from edgequant import charts, plain
from edgequant.report import laboratory
from edgequant.report.bench import BenchDeviceReport, BenchReport
from edgequant.report.html.figures import Figure, figure, left_out
from edgequant.report.html.table import NOT_MEASURED, Cell, Table, name, number, said

MOST_TABLES = 12
"""Of operators.  What is left out is in bench.json."""
MOST_LAYERS = 100
MOST_POINTS = 300


def figures(device: BenchDeviceReport, *, titled: bool) -> Iterator[Figure]:
    """titled: there are other devices."""
    runs = {name: list(laboratory.periods(run)) for name, run in device.apart.sustained.items()}
    runs = {name: found for name, found in runs.items() if len(found) > 1}
    if not runs:
        return
    on = f" on {device.uri}" if titled else ""
    shown = dict(list(runs.items())[: charts.MOST_SERIES])
    longest = max(shown.values(), key=len)
    labels = [f"{(each.at + each.seconds) / 60:.3g}" for each, _, _ in longest]
    minutes = "minutes without a pause"
    text = charts.Said(
        f"Without a pause{on}", "p50 of each period.", minutes, "p50, ms", shown=plain.milliseconds
    )  # fmt: skip
    times = {title: [each.p50 for each, _, _ in found] for title, found in shown.items()}
    yield figure(charts.curves(times, text, labels=labels), text, left_out(len(runs) - len(shown), "settings"))
    for place, what in ((1, "Temperature, \u00b0C"), (2, "Frequency of the fastest CPU, MHz")):
        series = {title: [each[place] for each in found] for title, found in shown.items()}
        series = {title: values for title, values in series.items() if any(value is not None for value in values)}
        if series:
            text = charts.Said(f"{what}, without a pause{on}", "At the end of each period.", minutes, what)
            yield figure(charts.curves(series, text, labels=labels), text)  # type: ignore[arg-type]


def summary(report: BenchReport) -> Table | None:
    """Energy and long runs, a line for each setting."""
    heads = ["setting", "mJ an inference", "sensor", "without a pause", "last against first", "slowest", "device"]
    table = Table("apart", "Energy, and without a pause", heads)
    for device in report.devices:
        apart = device.apart
        for title in dict.fromkeys((*apart.energy, *apart.sustained)):
            energy, run = apart.energy.get(title), apart.sustained.get(title)
            if (energy is None or energy.mj is None) and run is None:
                continue
            why = "not measured" if energy is None else energy.why
            joules = NOT_MEASURED if energy is None else laboratory.millijoules(energy)
            against = () if run is None else tuple(f"not valid: {each.code}: {each.message}" for each in run.against)
            row = [name(title, head=True), number(joules, why=[why] if joules == NOT_MEASURED else [])]
            row.append(Cell(said(NOT_MEASURED if energy is None else energy.sensor or NOT_MEASURED)))
            row.append(Cell("not asked for" if run is None else run.says, "invalid" if against else "", against))
            for value in (None, None) if run is None else (run.ratio, run.slowest):
                missing = ["too few periods" if run is not None else "not asked for"] if value is None else against
                row.append(number(NOT_MEASURED if value is None else f"{value:.3f}", why=missing))
            table.add([*row, name(device.uri)])
    return table if table.rows else None


def operators(report: BenchReport) -> list[tuple[str, Table]]:
    """A table for each setting, longest first."""
    found: list[tuple[str, Table]] = []
    for device in report.devices:
        for title, times in device.apart.operators.items():
            if len(found) >= MOST_TABLES:
                return found
            table = Table(f"operators-{len(found) + 1}", said(f"Operators of {title} on {device.uri}, ms"),
                          ["operator", "type", "ms", "share", "MFLOP"])  # fmt: skip
            for each in sorted(times.layers, key=lambda layer: -layer.ms)[:MOST_LAYERS]:
                flops = (
                    number(f"{each.mflops:.3g}") if each.mflops else number(NOT_MEASURED, why=["MNN does not count"])
                )
                table.add(
                    [name(each.name, head=True), Cell(said(each.type)), number(plain.milliseconds(each.ms)),
                     number(f"{each.share:.1%}"), flops]
                )  # fmt: skip
            alone = f"the operators add up to {times.total_ms:.3g} ms; an inference without watching them takes "
            alone += f"{plain.milliseconds(times.plain_ms)} ms"
            more = left_out(len(times.layers) - len(table.rows), "operators")
            table.after = said(f"A pass of its own, no latency: {alone}. {times.odd or ''} {more}")
            if table.rows:
                found.append((said(f"{title} on {device.uri}: {len(times.layers)} operators"), table))
    return found


def notes(report: BenchReport) -> list[str]:
    """Cores and governors."""
    lines = []
    for device in report.devices:
        lines += [f"{device.uri}: cores: {words}" for words in device.apart.cores]
        lines += [] if (line := laboratory.governor(device.apart)) is None else [f"{device.uri}: {line}"]
        lines += [
            f"{device.uri}: no operators of {title}: {each.why}"
            for title, each in device.apart.operators.items()
            if each.why
        ]
    return [said(line) for line in lines[:50]]
