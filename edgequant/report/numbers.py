"""Every number of a report that can be followed from run to run, with which way of it is better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from edgequant.compare.table import TABLE
from edgequant.report.bench import SettingReport
from edgequant.report.model import Report, Run

Direction = Literal[">=", "<=", ""]
STAGES = ("conversion", "quantization", "device")
LATENCY = ("min", "mean", "stdev", "p50", "p90", "p99", "max", "load", "first")
MEMORY = ("model_file", "session", "rss_before", "rss_load", "rss_peak", "pss_peak")
BETTER: dict[str, Direction] = {
    **{name: metric.better for name, metric in TABLE.items()},
    "nan": "<=",
    "inf": "<=",
    **{f"{stage}_sqnr_db": ">=" for stage in STAGES},
    **{f"{stage}_mismatch": "<=" for stage in STAGES},
    **{f"latency_{name}_ms": "<=" for name in (*LATENCY, "cpu")},
    **{f"memory_{name}_mb": "<=" for name in MEMORY},
}
"""Metric -> the direction that is good."""


class Number(NamedTuple):
    """One value of one run.

    output: its name, "" for what is the run's.  why: what speaks against it; empty where it is valid.
    """

    output: str
    metric: str
    value: float
    why: str = ""

    @property
    def valid(self) -> bool:
        return not self.why


def numbers(run: Run) -> Iterator[Number]:
    """All of a run; what was not measured is not there."""
    for name, output in run.outputs.items():
        for metric in TABLE:
            if (value := getattr(output, metric)) is not None:
                yield Number(name, metric, value)
        yield Number(name, "nan", output.nan)
        yield Number(name, "inf", output.inf)
    for stage in STAGES:
        for name, entry in getattr(run.errors, stage).items():
            if entry.sqnr_db is not None:
                yield Number(name, f"{stage}_sqnr_db", entry.sqnr_db)
            if entry.mismatch is not None:
                yield Number(name, f"{stage}_mismatch", entry.mismatch)
    if (latency := run.latency_ms) is not None:
        against = "" if latency.valid else "; ".join(latency.why_invalid) or "not valid"
        for name in LATENCY:
            if (value := getattr(latency, name)) is not None:
                yield Number("", f"latency_{name}_ms", value, against)
    if (memory := run.memory_mb) is not None:
        for name in MEMORY:
            if (value := getattr(memory, name)) is not None:
                yield Number("", f"memory_{name}_mb", value)


def bench_numbers(setting: SettingReport) -> Iterator[Number]:
    """Of a setting of a bench."""
    against = "" if setting.valid else "; ".join(f"{each.code}: {each.message}" for each in setting.why_invalid)
    for name in ("min", "max", "stdev"):
        if (value := setting.spread.get(name)) is not None:
            yield Number("", f"latency_{name}_ms", value, against)
    times = {name: setting.ms.get(name) for name in ("mean", "p50", "p90", "p99")}
    for name, found in {**times, "load": setting.load_ms, "first": setting.first_ms, "cpu": setting.cpu_ms}.items():
        if found is not None:
            yield Number("", f"latency_{name}_ms", found.value, against)
    memory = setting.memory
    if setting.rss_peak_kb is not None:
        yield Number("", "memory_rss_peak_mb", setting.rss_peak_kb * 1024 / 1e6)
    if memory is not None and memory.file_mb is not None:
        yield Number("", "memory_model_file_mb", memory.file_mb)
    if memory is not None and memory.session_mb is not None:
        yield Number("", "memory_session_mb", memory.session_mb)


def better(metric: str) -> Direction:
    """The good direction; "" where none is known."""
    return BETTER.get(metric, "")


def named(run: Run) -> tuple[str, str]:
    """What a run is found by again in another report: variant and device."""
    return run.variant, run.device.uri


def of_report(report: Report) -> dict[tuple[str, str], Run]:
    """By `named`; of equals the last."""
    return {named(run): run for run in report.runs}
