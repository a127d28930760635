"""A report on a terminal, in a pipe or in a CI log.

Everything is built from Text objects, never from markup, and every name goes through plain.py: names come from model
files nobody has vetted.  What colour says is said in words or marks too.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from edgequant import plain
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.report import words
from edgequant.report.lines import STYLE
from edgequant.report.model import CalibrationInfo, Report, Run
from edgequant.report.tables import Tables, worst_first

MAX_OUTPUTS = 12
MAX_PLACES = 3
MAX_SHAPES = 3

_SEVERITY = {"error": "bold magenta", "fail": "bold red", "warn": "yellow", "info": "cyan"}


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


class _Printer(Tables):
    def report(self, report: Report, path: Path | None) -> None:
        self.header(report)
        on = words.on_random_inputs(report)
        for run in report.runs:
            self.console.print()
            self.run(run, on)
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
        self.line(
            self.verdict(report.verdict), on if report.verdict in words.GOOD else "", f"  {words.sum_up(report.runs)}"
        )
        failed = [run for run in report.runs if run.verdict is Verdict.FAIL and run.outputs]
        if failed and path is not None:
            # The run knows what it was asked for: options that were given are not to be forgotten.
            where = ["--device", failed[0].device.uri, "--variant", failed[0].variant] if len(report.runs) > 1 else []
            asked = shlex.join(["edgequant", "diagnose", str(path.parent), *where])
            self.console.print(Text("Where and why: ") + self.text(asked), soft_wrap=True)
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
        if limits := report.options.get("limits"):
            self.field("limits", f"{', '.join(map(str, limits))}, in place of the defaults")
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

    def run(self, run: Run, on: str = "") -> None:
        """on: what a good verdict has to be read with."""
        device = run.device
        instead: list[Text | str] = []
        if run.made_as not in (None, run.variant):
            instead = ["  made as  ", self.name(run.made_as or "", "bold")]
        told = f"  ({on.strip()})" if on and run.verdict in words.GOOD else ""
        self.line(
            self.verdict(run.verdict), "  ", self.name(run.variant, "bold"), *instead, "  on  ", self.name(device.uri),
            told,
        )  # fmt: skip
        if facts := words.device_facts(device):
            self.line(self.text(facts, "dim"), indent=2)
        if run.error is not None:
            self.line(Text(run.error.code, style=STYLE[Verdict.ERROR]), f"  {run.error.message}", indent=2)
            if run.error.hint:
                self.hang(Text("    -> "), self.text(run.error.hint))
            if isinstance(log := run.error.evidence.get("log"), str):  # elsewhere it is the last lines themselves
                self.hang(Text("    log ", style="dim"), self.text(log))
            if run.outputs:
                self.line("what came back before is judged below", indent=4)
            for key, value in run.error.evidence.items() if self.verbose else ():
                lines = value if isinstance(value, list) else [value]
                self.line(self.text(key, "dim"), ": ", "; ".join(map(str, lines)), indent=4)
        if run.outputs:
            self.outputs(run)
        self.measurements(run)
        if run.findings:
            places = [name for name, _ in worst_first(run)]
            self.findings(run.findings, places)

    def measurements(self, run: Run) -> None:
        latency = run.latency_ms
        if (said := words.bound(run)) is not None:
            self.field("  bound", said)
        if (said := words.engaged(run)) is not None:
            self.field("  low mem", said)
        if latency is not None and latency.n:
            parts = [f"{key} {value}" for key, value in words.times(latency, words.LATENCY)]
            outside = [f"{words.OUTSIDE[key]} {value}" for key, value in words.times(latency, list(words.OUTSIDE))]
            first = f"; {', '.join(outside)}" if outside else ""
            threads = run.options.get("threads")
            how = [f"case {latency.case}" if latency.case else "", f"{threads} threads" if threads else ""]
            of = ", ".join(part for part in how if part)
            counts = f"n {latency.n}, warmup {latency.warmup}{first}"
            self.field("  latency", f"ms: {', '.join(parts)} ({of + '; ' if of else ''}{counts})")
        elif run.latency_why:
            self.field("  latency", f"not measured: {run.latency_why}")
        if latency is not None and not latency.valid:
            self.field("", Text("not valid: ", style=STYLE[Verdict.INCONCLUSIVE]), "; ".join(latency.why_invalid))
        self.drift(run)
        if run.memory_mb is not None:
            known = [f"{label} {value}" for label, value in words.memory(run.memory_mb).items()]
            self.field("  memory", ", ".join(known) or "not measured")
        elif run.memory_why:
            self.field("  memory", f"not measured: {run.memory_why}")
        sent, runtime = run.options.get("pushed_bytes"), run.options.get("runtime_bytes")
        if isinstance(sent, int) and isinstance(runtime, int) and not run.device.is_host:
            what = "nothing, it was all there" if not sent + runtime else f"{sent + runtime:,} bytes"
            split = f" (model {sent:,}, runtime {runtime:,})" if sent and runtime else ""
            self.field("  sent", f"{what}{split}")

    def drift(self, run: Run) -> None:
        """A line for each output of a rollout: how its error goes on, and what the stages have of it in the end."""
        for number, (name, found) in enumerate(run.drift.items()):
            total = found.curves.get("total")
            if total is None or (number >= self.max_outputs and not self.verbose):
                continue
            slope = f" by {total.slope_db:.1f} dB an octave" if total.kind == "grows" and total.slope_db else ""
            stages = [f"{key} {each.octaves[-1][1]:.0f}" for key, each in found.curves.items() if key != "total"]
            of = f" ({', '.join(stages)})" if stages else ""
            broke = f"; breaks {found.limit} in step {found.breaks_at}: {found.stage}" if found.breaks_at else ""
            first, (last, db) = total.octaves[0][1], total.octaves[-1]
            if total.kind == "exact":
                self.field("" if number else "  drift", self.name(name), f": exact in all {last} steps")
                continue
            said = f": {total.kind}{slope}, {first:.0f} dB in step 1, {db:.0f} dB at step {last}{of}{broke}"
            self.field("" if number else "  drift", self.name(name), said)

    def findings(self, findings: Sequence[Finding], places: Sequence[str] = ()) -> None:
        """Findings of one code together, the worst output first: forty outputs with one fault are one thing to do."""
        self.console.print()
        for level, code, group in words.grouped(findings, places):
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
