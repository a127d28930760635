"""A report as Markdown for the summary of a CI step: the verdict, a line per run, worst first, and what to do."""

from __future__ import annotations

from pathlib import PurePath

from edgequant.judge.verdict import severity
from edgequant.plain import decibel, megabytes, milliseconds, printable
from edgequant.report.model import Report, Run

_MOST_RUNS, _MOST_FINDINGS = 100, 30


def to_summary(report: Report) -> str:
    """GitHub-flavoured Markdown, at most some 100 lines; everything untrusted is escaped."""
    name = markdown(PurePath(report.model.path).name)
    reference = "none" if report.reference is None else f"{report.reference.kind} {report.reference.version or ''}"
    lines = [
        f"## {report.verdict}: {name}",
        "",
        f"edgequant {markdown(report.edgequant)}, MNN {markdown(report.mnn or 'unknown')}, "
        f"reference {markdown(reference)}, {len(report.cases)} cases, "
        f"SHA-256 `{(report.model.sha256 or 'unknown')[:12]}`",
        "",
        "| verdict | variant | device | worst output | SQNR dB | p50 ms | file | peak RSS |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    runs = sorted(report.runs, key=lambda run: -severity(run.verdict))
    lines += [_row(run) for run in runs[:_MOST_RUNS]]
    if len(runs) > _MOST_RUNS:
        lines.append(f"\nand {len(runs) - _MOST_RUNS} more")
    told = [
        (f"{run.variant} on {run.device.uri}", finding.code, finding.message, finding.remedy)
        for run in runs
        for finding in run.findings
        if finding.severity in ("fail", "error")
    ]
    told += [
        ("", finding.code, finding.message, finding.remedy)
        for finding in report.findings
        if finding.severity in ("fail", "error")
    ]
    errors = [
        (f"{run.variant} on {run.device.uri}", run.error.code, run.error.message, run.error.hint)
        for run in runs
        if run.error is not None
    ]
    for where, code, message, remedy in [*errors, *told][:_MOST_FINDINGS]:
        then = f" → {markdown(remedy)}" if remedy else ""
        lines.append(f"\n- **{markdown(code)}** {markdown(where)}: {markdown(message)}{then}")
    return "\n".join(lines) + "\n"


def _row(run: Run) -> str:
    outputs = [(output.sqnr_db, name) for name, output in run.outputs.items() if output.sqnr_db is not None]
    sqnr, worst = min(outputs, default=(None, "-"))
    latency, memory = run.latency_ms, run.memory_mb
    size, peak = (None, None) if memory is None else (memory.model_file, memory.rss_peak)
    p50 = "-"
    if latency is not None and latency.p50 is not None:
        p50 = milliseconds(latency.p50) + ("" if latency.valid else " (not valid)")
    cells = [
        str(run.verdict), run.variant, run.device.uri, worst, decibel(sqnr), p50, megabytes(size), megabytes(peak),
    ]  # fmt: skip
    return "| " + " | ".join(markdown(cell) for cell in cells) + " |"


def markdown(text: str) -> str:
    """One line without Markdown or HTML in it."""
    shown = printable(text.replace("\n", " "))[:500]
    return "".join(f"&#{ord(c)};" if c in "\\`*_{}[]<>()#+!|&~@:$" else c for c in shown)
