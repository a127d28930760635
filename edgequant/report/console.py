"""A report on a terminal, in a pipe or in a CI log.

Everything is built from Text objects, never from markup, and every name goes through plain.py: names come from model
files nobody has vetted.  What colour says is said in words or marks too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict, severity
from edgequant.report import plain
from edgequant.report.model import CalibrationInfo, OutputReport, Report, Run

MAX_OUTPUTS = 12
MAX_PLACES = 3
MAX_CASE = 20
MAX_SHAPES = 3
MIN_NAME = 12
"""A table leaves at least this much for the names; its other columns go into a second table."""

_STYLE = {
    Verdict.PASS: "green",
    Verdict.MARGINAL: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold magenta",
    Verdict.INCONCLUSIVE: "bold yellow",
}
_SEVERITY = {"error": "bold magenta", "fail": "bold red", "warn": "yellow", "info": "cyan"}
_SEVERITY_ORDER = ("fail", "error", "warn", "info")
_BROKEN, _CLOSE = "!", "~"


def render(
    report: Report,
    console: Console,
    *,
    path: Path | None = None,
    max_outputs: int = MAX_OUTPUTS,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Print the report.

    Args:
        path: where report.json is, for the last line.
        max_outputs: rows per table; the worst outputs come first and the rest is summed up in one line.
        verbose: every output, every place of every finding, and the evidence of errors.
        quiet: no findings that are merely worth knowing.
    """
    _Printer(console, max_outputs, verbose, quiet).report(report, path)


@dataclass
class _Printer:
    console: Console
    max_outputs: int
    verbose: bool
    quiet: bool = False

    def text(self, text: str, style: str = "") -> Text:
        return Text(plain.printable(text, self.console.encoding), style=style)

    def name(self, text: str, style: str = "") -> Text:
        return Text(plain.name(text, self.console.encoding), style=style, overflow="fold")

    def join(self, parts: Iterable[Text | str]) -> Text:
        return Text().join(part if isinstance(part, Text) else self.text(part) for part in parts)

    def line(self, *parts: Text | str, indent: int = 0) -> None:
        self.hang(Text(" " * indent), self.join(parts))

    def field(self, label: str, *parts: Text | str) -> None:
        self.hang(Text(f"{label:<10} ", style="dim"), self.join(parts))

    def hang(self, lead: Text, body: Text) -> None:
        """Print folded lines that stay right of `lead`; without the blanks at their ends that a table would leave."""
        room = max(self.console.width - lead.cell_len, 20)
        for number, part in enumerate(body.wrap(self.console, room, overflow="fold") or [Text()]):
            part.rstrip()
            self.console.print(Text().join([lead if not number else Text(" " * lead.cell_len), part]), soft_wrap=True)

    def report(self, report: Report, path: Path | None) -> None:
        self.header(report)
        for run in report.runs:
            self.console.print()
            self.run(run)
        findings = [f for f in report.findings if not (self.quiet and f.severity == "info")]
        # Where nothing could be run, the reason is what counts.
        if findings and (self.verbose or not report.runs or any(run.outputs for run in report.runs)):
            self.console.print()
            self.line(Text("Findings about the model", style="bold"))
            self.findings(findings)
        if len(report.runs) > 1:
            self.console.print()
            self.overview(report.runs)
        self.console.print()
        self.line(self.verdict(report.verdict), f"  {_sum_up(report.runs)}")
        if path is not None:
            # Never folded: it is there to be copied.
            self.console.print(Text("Report: ") + self.text(str(path)), soft_wrap=True)

    def header(self, report: Report) -> None:
        model = report.model
        size = f", {plain.megabytes(model.bytes / 1e6)}" if model.bytes is not None else ""
        self.field("model", self.name(model.path, "bold"), f"  (sha256 {model.sha256[:12]}{size})")
        if report.reference is not None:
            version = f" {report.reference.version}" if report.reference.version else ""
            why = f": {report.reference.why}" if report.reference.why else ""
            self.field("reference", f"{report.reference.kind}{version}{why}")
        if report.cases:
            shown = report.cases if self.verbose else report.cases[:4]
            names: list[Text | str] = [f"{len(report.cases)}: "]
            for place, case in enumerate(shown):
                # What one source made is said once, behind the last of its cases.
                last = place + 1 == len(shown) or shown[place + 1].source != case.source
                source = f" ({case.source})" if case.source and last else ""
                names += [", " if place else "", self.name(case.name), source]
            more = len(report.cases) - len(shown)
            self.field("cases", *names, f", and {more} more" if more else "")
        self.calibration(report.runs)
        mnn = f", MNN {report.mnn}" if report.mnn else ""
        self.field("made by", f"edgequant {report.edgequant}{mnn}, {report.created.isoformat(sep=' ')}")

    def calibration(self, runs: Sequence[Run]) -> None:
        """A line for each set of samples; with the variants it was for, where there are several sets."""
        sets: dict[str, tuple[CalibrationInfo, list[str]]] = {}
        for run in runs:
            if run.calibration is not None:
                used = sets.setdefault(run.calibration.model_dump_json(), (run.calibration, []))[1]
                used += [run.variant] if run.variant not in used else []
        for info, variants in sets.values():
            of: list[Text | str] = [f"{info.samples}: ", self.name(info.source)]
            for place, shapes in enumerate(info.shapes[:MAX_SHAPES]):
                count = f"{shapes.samples} of " if len(info.shapes) > 1 else ""
                of += [", " if place else " (", count]
                for number, (name, shape) in enumerate(shapes.inputs.items()):
                    of += [" and " if number else "", self.name(name), f" {shape}"]
            of += [f", and {len(info.shapes) - MAX_SHAPES} more shapes"] if len(info.shapes) > MAX_SHAPES else []
            of += [")" if info.shapes else "", f"; {info.images}" if info.images else ""]
            of += ["; the cases themselves" if info.cases else ""]
            of += [f"; for {', '.join(variants)}"] if len(sets) > 1 else []
            self.field("calibrated", *of)

    def verdict(self, verdict: Verdict) -> Text:
        return Text(verdict.value, style=_STYLE[verdict])

    def run(self, run: Run) -> None:
        device = run.device
        instead: list[Text | str] = []
        if run.made_as not in (None, run.variant):
            instead = ["  made as  ", self.name(run.made_as or "", "bold")]
        self.line(
            self.verdict(run.verdict), "  ", self.name(run.variant, "bold"), *instead, "  on  ", self.name(device.uri)
        )
        facts = [device.cpu, device.arch, " ".join(device.features), f"MNN {device.mnn}" if device.mnn else None]
        facts += [f"{device.cores} cores" if device.cores else None]
        facts += [f"{device.ram_mb:.0f} MB RAM" if device.ram_mb else None]
        facts += ["emulated: accuracy counts, timing does not" if device.emulated else None]
        if any(facts):
            self.line(self.text(", ".join(fact for fact in facts if fact), "dim"), indent=2)
        if run.error is not None:
            self.line(Text(run.error.code, style=_STYLE[Verdict.ERROR]), f"  {run.error.message}", indent=2)
            if run.error.hint:
                self.hang(Text("    -> "), self.text(run.error.hint))
            if run.outputs:
                self.line("what came back before is judged below", indent=4)
            for key, value in run.error.evidence.items() if self.verbose else ():
                lines = value if isinstance(value, list) else [value]
                self.line(self.text(key, "dim"), ": ", "; ".join(map(str, lines)), indent=4)
        if run.outputs:
            self.outputs(run)
        self.measurements(run)
        if run.findings:
            places = [name for name, _ in _worst_first(run)]
            self.findings(run.findings, places)

    def overview(self, runs: Sequence[Run]) -> None:
        """One line a run, for choosing: what its worst output lost, what it costs."""
        table = Table(
            "verdict", "variant", "device", Column("file MB", justify="right"), Column("session MB", justify="right"),
            Column("p50 ms", justify="right"), Column("worst dB", justify="right"), "worst output",
            box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0),
        )  # fmt: skip
        for run in runs:
            ordered = _worst_first(run)
            name, output = ordered[0] if ordered else ("", None)
            size = run.memory_mb.model_file if run.memory_mb is not None else None
            session = run.memory_mb.session if run.memory_mb is not None else None
            p50 = run.latency_ms.p50 if run.latency_ms is not None else None
            made = f" ({run.made_as})" if run.made_as not in (None, run.variant) else ""
            table.add_row(
                self.verdict(run.verdict),
                self.name(f"{run.variant}{made}"),
                self.name(run.device.uri),
                "-" if size is None else f"{size:.2f}",
                "-" if session is None else f"{session:.1f}",
                "-" if p50 is None else f"{p50:.3g}",
                "-" if output is None or output.sqnr_db is None else plain.decibel(output.sqnr_db),
                self.name(name) if output is not None else self.text(run.error.code if run.error else "-"),
            )
        self.console.print(table)

    def outputs(self, run: Run) -> None:
        ordered = _worst_first(run)
        shown = ordered if self.verbose else ordered[: self.max_outputs]
        rows = [
            _Row(
                self.name(name, "" if output.verdict is Verdict.PASS else "bold"),
                {column: self.cell(run, name, output, column) for column in _COLUMNS},
            )
            for name, output in shown
        ]
        # A column in which nothing was measured only takes room from the names.
        columns = [c for c in _COLUMNS if c == "verdict" or any(row.cells[c].plain != "-" for row in rows)]
        for part in self.split(rows, columns):
            self.console.print()
            self.table(rows, part)
        marks = {_mark(output, metric) for _, output in shown for metric in _METRIC_OF.values()} - {""}
        said = [
            what for mark, what in ((_BROKEN, "! breaks its limit"), (_CLOSE, "~ only just keeps it")) if mark in marks
        ]
        stages = "conv, quant, dev: SQNR in dB that conversion, quantization and the device leave"
        self.line(self.text("; ".join([*said, stages] if _has_stages(run) else said), "dim"), indent=2)
        rest = ordered[len(shown) :]
        if rest:
            kinds = _count(output.verdict for _, output in rest)
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

    def table(self, rows: Sequence[_Row], columns: Sequence[str]) -> None:
        """A name too long for its column gets lines of its own above its numbers, whole."""
        longest = max(len("output"), *(row.name.cell_len for row in rows))
        room = max(min(longest, self.console.width - _taken(rows, columns)), 6)
        widths = {column: _column_width(rows, column) for column in columns}

        def padded(name: Text, cells: dict[str, Text]) -> Text:
            line = Text().join([Text("  "), name, Text(" " * (room - name.cell_len))])
            for column in columns:
                fill = Text(" " * (widths[column] - cells[column].cell_len))
                pair = [cells[column], fill] if column in _LEFT else [fill, cells[column]]
                line = Text().join([line, Text("  "), *pair])
            line.rstrip()
            return line

        self.console.print(
            padded(Text("output", style="dim"), {c: Text(c, style="dim") for c in columns}), soft_wrap=True
        )
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
            return Text("-") if output.worst_case is None else self.case(output.worst_case)
        if column == "NaN/Inf":
            bad = output.nan or output.inf
            return Text(f"{output.nan}/{output.inf}{_BROKEN}", style=_STYLE[Verdict.FAIL]) if bad else Text("0")
        if column in _STAGES:
            entry = getattr(run.errors, _STAGES[column]).get(name)
            if entry is None:
                return Text("-")
            value = plain.amount(entry.mismatch) if entry.mismatch is not None else plain.decibel(entry.sqnr_db)
            return Text("exact" if entry.exact else "broken" if entry.problem else value)
        metric = _METRIC_OF[column]
        value = getattr(output, metric)
        if metric == "sqnr_db" and output.exact:
            return Text("exact")
        shown = plain.cosine(value) if metric == "cosine" else None
        shown = shown or (plain.decibel(value) if metric == "sqnr_db" else plain.amount(value))
        mark = _mark(output, metric)
        style = {_BROKEN: _STYLE[Verdict.FAIL], _CLOSE: _STYLE[Verdict.MARGINAL]}.get(mark, "")
        return Text(f"{shown}{mark}", style=style)

    def measurements(self, run: Run) -> None:
        latency = run.latency_ms
        if run.low_memory_engaged is not None or run.low_memory_why:
            engaged = {True: "engaged", False: "NOT engaged", None: "unknown"}[run.low_memory_engaged]
            why = f": {run.low_memory_why}" if run.low_memory_why else ""
            self.field("  low mem", f"dynamic quantization {engaged}{why}")
        if latency is not None and latency.n:
            parts = [
                f"{key} {plain.milliseconds(value)}"
                for key in ("p50", "p90", "p99", "mean", "stdev", "min", "max")
                if (value := getattr(latency, key)) is not None
            ]
            outside = [
                f"{key} {plain.milliseconds(value)}"
                for key in ("load", "first")
                if (value := getattr(latency, key)) is not None
            ]
            first = f"; {', '.join(outside)}" if outside else ""
            threads = run.options.get("threads")
            how = [f"case {latency.case}" if latency.case else "", f"{threads} threads" if threads else ""]
            of = ", ".join(part for part in how if part)
            counts = f"n {latency.n}, warmup {latency.warmup}{first}"
            self.field("  latency", f"ms: {', '.join(parts)} ({of + '; ' if of else ''}{counts})")
        elif run.latency_why:
            self.field("  latency", f"not measured: {run.latency_why}")
        if latency is not None and not latency.valid:
            self.field("", Text("not valid: ", style=_STYLE[Verdict.INCONCLUSIVE]), "; ".join(latency.why_invalid))
        if run.memory_mb is not None:
            labels = {"model_file": "file", "session": "session", "rss_load": "RSS after load", "rss_peak": "RSS peak",
                      "pss_peak": "PSS peak"}  # fmt: skip
            known = [
                f"{label} {plain.megabytes(value)}"
                for key, label in labels.items()
                if (value := getattr(run.memory_mb, key)) is not None
            ]
            self.field("  memory", ", ".join(known) or "not measured")
        elif run.memory_why:
            self.field("  memory", f"not measured: {run.memory_why}")
        sent, runtime = run.options.get("pushed_bytes"), run.options.get("runtime_bytes")
        if isinstance(sent, int) and isinstance(runtime, int) and not run.device.uri.startswith("local:"):
            what = "nothing, it was all there" if not sent + runtime else f"{sent + runtime:,} bytes"
            split = f" (model {sent:,}, runtime {runtime:,})" if sent and runtime else ""
            self.field("  sent", f"{what}{split}")

    def case(self, name: str) -> Text:
        """A case's name, cut in the middle where it is long: unlike outputs, cases can be looked up in the report."""
        shown = self.name(name)
        return shown if shown.cell_len <= MAX_CASE else Text.assemble(shown[:12], "...", shown[-(MAX_CASE - 15) :])

    def findings(self, findings: Sequence[Finding], places: Sequence[str] = ()) -> None:
        """Findings of one code together, the worst output first: forty outputs with one fault are one thing to do."""
        rank = {name: number for number, name in enumerate(places)}
        groups: dict[tuple[str, str], dict[str | None, list[Finding]]] = {}
        for finding in sorted(findings, key=lambda f: rank.get(f.where or "", len(rank))):
            groups.setdefault((finding.severity, finding.code), {}).setdefault(finding.where, []).append(finding)
        self.console.print()
        for (level, code), group in sorted(groups.items(), key=lambda item: _SEVERITY_ORDER.index(item[0][0])):
            self.line(Text(f"{level:<5}", style=_SEVERITY[level]), "  ", self.text(code, "bold"), indent=2)
            shown = list(group.items())[: None if self.verbose else MAX_PLACES]
            for where, found in shown:
                place: list[Text | str] = [] if where is None else [self.name(where), ": "]
                self.line(*place, "; ".join(dict.fromkeys(finding.message for finding in found)), indent=9)
            if len(group) > len(shown):
                more = len(group) - len(shown)
                self.line(f"and in {more} more place{'s' if more > 1 else ''}", indent=9)
            if level == "info" and not self.verbose:
                continue  # worth knowing, but there is nothing that has to be done: the report has the rest
            for remedy in dict.fromkeys(f.remedy for _, found in shown for f in found if f.remedy):
                self.hang(Text(" " * 9 + "-> ", style="cyan"), self.text(remedy))


@dataclass(frozen=True)
class _Row:
    name: Text
    cells: dict[str, Text]


def _column_width(rows: Sequence[_Row], column: str) -> int:
    return max(len(column), *(row.cells[column].cell_len for row in rows))


def _taken(rows: Sequence[_Row], columns: Sequence[str]) -> int:
    """Columns of the screen that are not the name's: indent, gaps and numbers."""
    return 2 + sum(2 + _column_width(rows, column) for column in columns)


def _worst_first(run: Run) -> list[tuple[str, OutputReport]]:
    return sorted(run.outputs.items(), key=lambda item: _badness(item[1]), reverse=True)


_STAGES = {"conv": "conversion", "quant": "quantization", "dev": "device"}
_COLUMNS = (
    "verdict", "SQNR dB", "cosine", "rel max", "max abs", "mismatch", "NaN/Inf",
    "mean abs", "p99 abs", "conv", "quant", "dev", "worst case",
)  # fmt: skip
_LEFT = ("verdict", "worst case")
_METRIC_OF = {
    "SQNR dB": "sqnr_db",
    "cosine": "cosine",
    "rel max": "rel_max",
    "max abs": "max_abs",
    "mismatch": "mismatch",
    "mean abs": "mean_abs",
    "p99 abs": "p99_abs",
}


def _mark(output: OutputReport, metric: str) -> str:
    verdicts = {limit.verdict for limit in output.limits if limit.metric == metric}
    return _BROKEN if Verdict.FAIL in verdicts else _CLOSE if Verdict.MARGINAL in verdicts else ""


def _badness(output: OutputReport) -> tuple[float, ...]:
    quality = output.sqnr_db if output.sqnr_db is not None else 1000.0
    return (severity(output.verdict), output.nan + output.inf > 0, output.mismatch or 0.0, -quality)


def _has_stages(run: Run) -> bool:
    return bool(run.errors.conversion or run.errors.quantization or run.errors.device)


def _count(verdicts: Iterable[Verdict]) -> str:
    """For example "2 FAIL, 5 PASS", the gravest first."""
    counted: dict[Verdict, int] = {}
    for verdict in verdicts:
        counted[verdict] = counted.get(verdict, 0) + 1
    ordered = sorted(counted.items(), key=lambda item: -severity(item[0]))
    return ", ".join(f"{number} {verdict}" for verdict, number in ordered)


def _sum_up(runs: Sequence[Run]) -> str:
    if not runs:
        return "nothing was run"
    codes = sorted({run.error.code for run in runs if run.error is not None})
    why = f" ({', '.join(codes)})" if codes else ""
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {_count(run.verdict for run in runs)}{why}"
