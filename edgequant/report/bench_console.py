"""A bench on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgequant.plain import printable
from edgequant.report import bench_words as words
from edgequant.report.bench import BenchDeviceReport, BenchReport, SettingReport
from edgequant.report.lines import STYLE

_HEADS = ("setting", "p50 ms", "+-", "p90", "p99", "min", "CPU ms", "load", "first", "peak MB", "valid")
_OF_HEAD = {"p50 ms": "p50", "CPU ms": "CPU"}


def render(report: BenchReport, console: Console, *, folder: Path | None, verbose: bool = False) -> None:
    """Device by device; the verdict last, where the eye is.  folder: where everything is kept."""

    def line(text: str) -> None:
        console.print(Text(printable(text, console.encoding)), soft_wrap=True)

    if (told := words.baseline_line(report)) is not None:
        line(told)
    for device in report.devices:
        line(f"{words.name_of(report)}  on  {device.uri}  case {device.case} ({words.shapes(device)})")
        if facts := words.facts(device):
            line(facts)
        line(words.how(report, device))
        console.print(_times(device))
        line(words.PLUS_MINUS)
        if verbose or len(device.settings) > 1:
            console.print(_memory(device))
            line(words.MEMORY)
        for text in words.device_lines(device):
            line(text)
        for finding in words.findings(device):
            line(f"{finding.severity}  {finding.code}: {finding.message}")
            line(f"  -> {finding.remedy}")
    for uri, failure in report.failed.items():
        line(f"ERROR  {uri}: {failure.get('code')}: {failure.get('message')}")
    if report.interrupted:
        line("It was interrupted: what is shown is of the blocks that were finished.")
    if (then := words.next_step(report)) is not None:
        line(f"-> {then}")
    where = "" if folder is None else f"  everything is in {folder}"
    console.print(
        Text(str(report.verdict), style=STYLE[report.verdict]).append(printable(where), style="not bold default"),
        soft_wrap=True,
    )


def _table(heads: tuple[str, ...], words_in: tuple[str, ...] = ("setting", "valid")) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(
            head, justify="left" if head in words_in else "right", no_wrap=head != "setting", overflow="fold"
        )
    return table


def _times(device: BenchDeviceReport) -> Table:
    table = _table(_HEADS)
    for each in device.settings:
        table.add_row(*(_cell(each, head) for head in _HEADS))
    return table


def _cell(setting: SettingReport, head: str) -> Text | str:
    if head == "setting":
        return printable(setting.name)
    if head == "valid":
        return Text("yes") if setting.valid else Text("NO", style="bold red")
    if head == "+-":
        return words.half(setting)
    text = words.peak(setting) if head == "peak MB" else words.times(setting)[_OF_HEAD.get(head, head)]
    return "" if text == "-" else text


def _memory(device: BenchDeviceReport) -> Table:
    """MB of 10^6 bytes, settings below each other: low against normal, float against int8."""
    heads = ("setting", "file", "session", "empty", "read", "first", "timed", "PSS", "above", "peak")
    table = _table(heads)
    for each in device.settings:
        found = each.memory
        if found is None:
            continue
        stages = [found.stages.get(stage) for stage in words.STAGES]
        last = next((stage.pss for stage in reversed(stages) if stage is not None and stage.pss is not None), None)
        peaks = [None if stage is None else stage.rss if stage.peak is None else stage.peak for stage in stages]
        amounts = [found.file_mb, found.session_mb, *peaks, last, found.above_mb, found.peak_mb]
        table.add_row(printable(each.id or each.name), *("" if value is None else f"{value:.1f}" for value in amounts))
    return table
