"""A report as a table: one line for each output of each run, or of each case, for spreadsheets and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from edgequant.cells import cell
from edgequant.report.model import CaseMetrics, ErrorEntry, OutputReport, Report, Run

COLUMNS = (
    "device", "variant", "made_as", "verdict", "error", "file_mb", "session_mb", "rss_peak_mb", "pss_peak_mb",
    "p50_ms", "p90_ms", "latency_valid", "output", "output_verdict", "worst_case", "sqnr_db", "cosine", "rel_max",
    "max_abs", "mismatch", "conversion_sqnr_db", "quantization_sqnr_db", "device_sqnr_db", "findings",
)  # fmt: skip
CASE_COLUMNS = ("device", "variant", "output", "case", *CaseMetrics.model_fields)


def to_csv(report: Report, *, by_case: bool = False) -> str:
    """Comma-separated, with a header line; what was not measured is empty.  MB are 10^6 bytes.

    by_case: a line for each output in each case.  Else a run without outputs has one line.
    """
    columns, rows = (CASE_COLUMNS, _cases(report)) if by_case else (COLUMNS, _worst(report))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()


def _worst(report: Report) -> Iterator[dict[str, object]]:
    for run in report.runs:
        for row in _outputs(run) or [{}]:
            yield _run(run) | row


def _cases(report: Report) -> Iterator[dict[str, object]]:
    for run in report.runs:
        for name, output in run.outputs.items():
            for case, each in output.by_case.items():
                yield {"device": run.device.uri, "variant": run.variant, "output": name, "case": case, **dict(each)}


def _run(run: Run) -> dict[str, object]:
    memory, latency = run.memory_mb, run.latency_ms
    return {
        "device": run.device.uri,
        "variant": run.variant,
        "made_as": run.made_as,
        "verdict": run.verdict.value,
        "error": None if run.error is None else run.error.code,
        "file_mb": memory and memory.model_file,
        "session_mb": memory and memory.session,
        "rss_peak_mb": memory and memory.rss_peak,
        "pss_peak_mb": memory and memory.pss_peak,
        "p50_ms": latency and latency.p50,
        "p90_ms": latency and latency.p90,
        "latency_valid": latency and latency.valid,
        "findings": " ".join(dict.fromkeys(f.code for f in run.findings if f.severity != "info")),
    }


def _outputs(run: Run) -> list[dict[str, object]]:
    return [dict(_output(run, name, output)) for name, output in run.outputs.items()]


def _output(run: Run, name: str, output: OutputReport) -> Iterator[tuple[str, object]]:
    yield "output", name
    yield "output_verdict", output.verdict.value
    for column in ("worst_case", "sqnr_db", "cosine", "rel_max", "max_abs", "mismatch"):
        yield column, getattr(output, column)
    stages: dict[str, dict[str, ErrorEntry]] = {
        "conversion_sqnr_db": run.errors.conversion,
        "quantization_sqnr_db": run.errors.quantization,
        "device_sqnr_db": run.errors.device,
    }
    for column, stage in stages.items():
        yield column, stage[name].sqnr_db if name in stage else None
