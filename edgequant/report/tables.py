"""The tables of a report: outputs of a run, and runs beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from edgequant import plain
from edgequant.compare.table import TABLE
from edgequant.judge.verdict import Verdict, severity
from edgequant.report.lines import STYLE, Lines
from edgequant.report.model import OutputReport, Run

MIN_NAME = 12
"""A table leaves at least this much for the names; its other columns go into a second table."""
BROKEN, CLOSE = "!", "~"
_RUN = "run"


class Tables(Lines):
    """Prints tables that no width squeezes: what does not fit goes into a second one, or on a line of its own."""

    def overview(self, runs: Sequence[Run]) -> None:
        """One line of numbers a run, for choosing: what its worst output lost, what it costs.

        A name that does not fit beside its numbers stands above them, and is cut in the middle where it would not fit
        there: it stands in full at the head of the run.  A worst output that all share is said once, above the table,
        and a column in which nothing was measured is left out.
        """
        devices = dict.fromkeys(run.device.uri for run in runs)
        single: list[Text | str] = [" on ", self.name(next(iter(devices)))] if len(devices) == 1 else []
        self.line(self.join([Text("All runs", style="bold"), *single, ", each by its worst output in its worst case"]))
        ranked = [worst_first(run) for run in runs]
        outputs = {ordered[0][0] if ordered else None for ordered in ranked}
        (shared,) = outputs if len(outputs) == 1 else (None,)
        if shared is not None:
            self.line("worst output: ", self.name(shared), indent=2)
        rows = []
        for run, ordered in zip(runs, ranked, strict=True):
            name, output = ordered[0] if ordered else ("", None)
            made = f" ({run.made_as})" if run.made_as not in (None, run.variant) else ""
            # Worth a line of its own where it is long, as it is what tells one run from the other.
            where: list[Text | str] = [] if single else [" on ", self.name(run.device.uri)]
            title = self.join([self.name(f"{run.variant}{made}"), *where])
            cells = {
                "verdict": self.verdict(run.verdict),
                **{column: Text(text) for column, text in costs(run, output).items()},
                "worst output": self.short(name) if output is not None else Text(run.error.code if run.error else "-"),
            }
            rows.append(_Row(title, cells))
        columns = [
            column
            for column in rows[0].cells
            if (column != "worst output" or shared is None) and any(row.cells[column].plain != "-" for row in rows)
        ]
        whole = _taken(rows, columns) + len(_RUN) <= self.console.width
        cut = [_Row(self.cut(row.name, self.console.width - 2), row.cells) for row in rows]
        # Two that differ only in what was cut away could not be told apart.
        if len({row.name.plain for row in cut}) == len({row.name.plain for row in rows}):
            rows = cut
        for part in [columns] if whole else self.split(rows, columns):
            self.table(rows, part, of=_RUN)

    def outputs(self, run: Run) -> None:
        ordered = worst_first(run)
        shown = ordered if self.verbose else ordered[: self.max_outputs]
        rows = [
            _Row(
                self.name(name, "" if output.verdict is Verdict.PASS else "bold"),
                {column: self.cell(run, name, output, column) for column in COLUMNS},
            )
            for name, output in shown
        ]
        # A column in which nothing was measured only takes room from the names.
        columns = [c for c in COLUMNS if c == "verdict" or any(row.cells[c].plain != "-" for row in rows)]
        for part in self.split(rows, columns):
            self.console.print()
            self.table(rows, part)
        marks = {_mark(output, metric) for _, output in shown for metric in METRIC_OF.values()} - {""}
        said = [
            what for mark, what in ((BROKEN, "! breaks its limit"), (CLOSE, "~ only just keeps it")) if mark in marks
        ]
        if stages := [column for column in STAGES if column in columns]:
            # Only what is in the table: this host is no device to be held against itself.
            named = [STAGES[column] if column != "dev" else "the device" for column in stages]
            what = plain.joined(named)
            said.append(f"{', '.join(stages)}: SQNR in dB that {what} leave{'' if named[1:] else 's'}")
        said.append("each number: worst case")
        self.line(self.text("; ".join(said), "dim"), indent=2)
        rest = ordered[len(shown) :]
        if rest:
            kinds = count(output.verdict for _, output in rest)
            values = [output.sqnr_db for _, output in rest if output.sqnr_db is not None]
            span = f", SQNR {plain.decibel(min(values))} to {plain.decibel(max(values))} dB" if values else ""
            self.line(f"Worst first; {len(rest)} more outputs not shown: {kinds}{span}.", indent=2)

    def split(self, rows: Sequence[_Row], columns: Sequence[str]) -> list[list[str]]:
        """All columns in one table, or quality first and the rest in more: no column is ever squeezed or dropped."""
        room = self.console.width - min(max(len("output"), *(row.name.cell_len for row in rows)), MIN_NAME)
        if _taken(rows, columns) <= room:
            return [list(columns)]
        parts: list[list[str]] = [[]]
        for column in columns:
            if parts[-1] and (column == "mean abs" or _taken(rows, [*parts[-1], column]) > room):
                parts.append([])
            parts[-1].append(column)
        return parts

    def table(self, rows: Sequence[_Row], columns: Sequence[str], of: str = "output") -> None:
        """A name too long for its column gets lines of its own above its numbers, whole."""
        longest = max(len(of), *(row.name.cell_len for row in rows))
        room = max(min(longest, self.console.width - _taken(rows, columns)), len(of))
        widths = {column: _column_width(rows, column) for column in columns}

        def padded(name: Text, cells: dict[str, Text]) -> Text:
            line = Text().join([Text("  "), name, Text(" " * (room - name.cell_len))])
            for column in columns:
                fill = Text(" " * (widths[column] - cells[column].cell_len))
                pair = [cells[column], fill] if column in _LEFT else [fill, cells[column]]
                line = Text().join([line, Text("  "), *pair])
            line.rstrip()
            return line

        self.console.print(padded(Text(of, style="dim"), {c: Text(c, style="dim") for c in columns}), soft_wrap=True)
        for row in rows:
            if row.name.cell_len > room:
                self.hang(Text("  "), row.name)
                self.console.print(padded(Text(), row.cells), soft_wrap=True)
            else:
                self.console.print(padded(row.name, row.cells), soft_wrap=True)

    def cell(self, run: Run, name: str, output: OutputReport, column: str) -> Text:
        if column == "verdict":
            return self.verdict(output.verdict)
        if column == "worst case":
            return Text("-") if output.worst_case is None else self.short(output.worst_case)
        text, mark = number(run, name, output, column)
        return Text(f"{text}{mark}", style={BROKEN: STYLE[Verdict.FAIL], CLOSE: STYLE[Verdict.MARGINAL]}.get(mark, ""))


@dataclass(frozen=True)
class _Row:
    name: Text
    cells: dict[str, Text]


def _column_width(rows: Sequence[_Row], column: str) -> int:
    return max(len(column), *(row.cells[column].cell_len for row in rows))


def _taken(rows: Sequence[_Row], columns: Sequence[str]) -> int:
    """Columns of the screen that are not the name's: indent, gaps and numbers."""
    return 2 + sum(2 + _column_width(rows, column) for column in columns)


def worst_first(run: Run) -> list[tuple[str, OutputReport]]:
    return sorted(run.outputs.items(), key=lambda item: _badness(item[1]), reverse=True)


def costs(run: Run, output: OutputReport | None) -> dict[str, str]:
    """What one would choose by: what the run's worst output lost, what the file costs."""
    memory, latency = run.memory_mb, run.latency_ms
    return {
        "file MB": _decimals(memory.model_file if memory is not None else None, 2),
        "session MB": _decimals(memory.session if memory is not None else None, 1),
        "p50 ms": plain.milliseconds(latency.p50 if latency is not None else None),
        "worst dB": plain.decibel(output.sqnr_db if output is not None else None),
    }


def number(run: Run, name: str, output: OutputReport, column: str) -> tuple[str, str]:
    """A number of the table of outputs, and the mark behind it: BROKEN, CLOSE or none.  "-": there is none."""
    if column == "NaN/Inf":
        return (f"{output.nan}/{output.inf}", BROKEN) if output.nan or output.inf else ("0", "")
    if column in STAGES:
        entry = getattr(run.errors, STAGES[column]).get(name)
        if entry is None:
            return "-", ""
        value = plain.amount(entry.mismatch) if entry.mismatch is not None else plain.decibel(entry.sqnr_db)
        return "exact" if entry.exact else "broken" if entry.problem else value, ""
    metric = METRIC_OF[column]
    if metric == "sqnr_db" and output.exact:
        return "exact", ""
    return plain.metric(metric, getattr(output, metric)), _mark(output, metric)


STAGES = {"conv": "conversion", "quant": "quantization", "dev": "device"}
COLUMNS = (
    "verdict", "SQNR dB", "cosine", "rel max", "max abs", "mismatch", "NaN/Inf",
    "mean abs", "p99 abs", "conv", "quant", "dev", "worst case",
)  # fmt: skip
_LEFT = ("verdict", "worst case", "worst output")
METRIC_OF = {metric.title: metric.name for metric in TABLE.values() if metric.title in COLUMNS}


def _mark(output: OutputReport, metric: str) -> str:
    verdicts = {limit.verdict for limit in output.limits if limit.metric == metric}
    return BROKEN if Verdict.FAIL in verdicts else CLOSE if Verdict.MARGINAL in verdicts else ""


def _badness(output: OutputReport) -> tuple[float, ...]:
    quality = output.sqnr_db if output.sqnr_db is not None else 1000.0
    return (severity(output.verdict), output.nan + output.inf > 0, output.mismatch or 0.0, -quality)


def count(verdicts: Iterable[Verdict]) -> str:
    """For example "2 FAIL, 5 PASS", the gravest first."""
    counted: dict[Verdict, int] = {}
    for verdict in verdicts:
        counted[verdict] = counted.get(verdict, 0) + 1
    ordered = sorted(counted.items(), key=lambda item: -severity(item[0]))
    return ", ".join(f"{number} {verdict}" for verdict, number in ordered)


def _decimals(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
