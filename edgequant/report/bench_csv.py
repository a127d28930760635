"""A bench as a table: a line for each setting, and below it one for each of its blocks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from edgequant.cells import cell
from edgequant.report import bench_words as words
from edgequant.report.bench import BenchDeviceReport, BenchReport, BlockReport, SettingReport

_MS = ("p50", "mean", "trimmed", "p90", "p99")
_MEMORY = ("file_mb", "session_mb", "session_mib", "peak_mb", "above_mb")
COLUMNS = (
    "level", "device", "case", "setting", "valid", "why_invalid", "verdict", "threads", "memory_mode", "round", "used",
    "n", "warmup", *(f"{key}_ms" for key in _MS), "p50_low_ms", "p50_high_ms", "min_ms", "max_ms", "stdev_ms", "cv",
    "cpu_ms", "load_ms", "first_ms", "celsius_before", "celsius_after", "mhz_before", "mhz_after", *_MEMORY,
    "base", "ratio", "ratio_low", "ratio_high", "says", "baseline_p50_ms", "baseline_ratio", "baseline_low",
    "baseline_high", "baseline_says", "baseline_why", "energy_mj", "energy_low_mj", "energy_high_mj", "sustained",
    "sustained_ratio", "failure",
)  # fmt: skip


def to_csv(report: BenchReport) -> str:
    """Comma-separated, with a header line; what was not measured is empty.  A block's `valid` is whether nothing speaks
    against it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(row.get(column)) for column in COLUMNS] for row in _rows(report))
    return out.getvalue()


def _rows(report: BenchReport) -> Iterator[dict[str, object]]:
    for device in report.devices:
        for setting in device.settings:
            same = {"device": device.uri, "case": device.case, "setting": setting.name, "threads": setting.threads,
                    "memory_mode": setting.memory_mode}  # fmt: skip
            yield same | dict(_setting(device, setting))
            for block in setting.blocks:
                yield same | dict(_block(block))
    for uri, failure in report.failed.items():
        yield {"level": "device", "device": uri, "valid": False, "verdict": "ERROR", "failure": failure.get("code"),
               "why_invalid": failure.get("code")}  # fmt: skip


def _setting(device: BenchDeviceReport, found: SettingReport) -> Iterator[tuple[str, object]]:
    yield from (("level", "setting"), ("valid", found.valid), ("verdict", found.verdict.value))
    yield "why_invalid", " ".join(each.code for each in found.why_invalid)
    n = found.spread.get("n")
    yield "n", None if n is None else int(n)
    yield from ((f"{key}_ms", found.ms[key].value) for key in _MS if key in found.ms)
    if (p50 := found.ms.get("p50")) is not None:
        yield from (("p50_low_ms", p50.low), ("p50_high_ms", p50.high))
    yield from ((f"{key}_ms", found.spread.get(key)) for key in ("min", "max", "stdev"))
    yield "cv", found.spread.get("cv")
    for key in ("cpu_ms", "load_ms", "first_ms"):
        each = getattr(found, key)
        yield key, None if each is None else each.value
    yield from ((key, getattr(found.memory, key)) for key in _MEMORY if found.memory is not None)
    for compared in device.compared:
        if compared.name == (found.id or found.name):
            yield from (
                ("base", words.title(device, compared.base)),
                ("ratio", compared.ratio),
                ("says", compared.says),
            )
            yield from (("ratio_low", compared.low), ("ratio_high", compared.high))
    for before in [] if device.baseline is None else device.baseline.settings:
        if before.name == (found.id or found.name):
            yield from (("baseline_p50_ms", before.before_ms), ("baseline_ratio", before.ratio))
            yield from (("baseline_low", before.low), ("baseline_high", before.high))
            yield from (("baseline_says", before.says), ("baseline_why", before.why))
    yield from _apart(device, found.id or found.name)


def _apart(device: BenchDeviceReport, name: str) -> Iterator[tuple[str, object]]:
    energy, run = device.apart.energy.get(name), device.apart.sustained.get(name)
    if energy is not None and energy.mj is not None:
        yield from (
            ("energy_mj", energy.mj.value),
            ("energy_low_mj", energy.mj.low),
            ("energy_high_mj", energy.mj.high),
        )
    if run is not None:
        yield from (("sustained", run.says), ("sustained_ratio", run.ratio))


def _block(found: BlockReport) -> Iterator[tuple[str, object]]:
    yield from (("level", "block"), ("round", found.round), ("used", found.used), ("failure", found.failure))
    yield "valid", not found.doubts and found.failure is None
    yield "why_invalid", " ".join([each.code for each in found.doubts] or [found.failure or ""])
    yield from (("n", found.n), ("warmup", found.warmup))
    yield from ((f"{key}_ms", value) for key, value in found.ms.items())
    yield from ((key, getattr(found, key)) for key in ("cpu_ms", "load_ms", "first_ms"))
    for key in ("celsius", "mhz"):
        if ends := getattr(found, key):
            yield from ((f"{key}_before", ends[0]), (f"{key}_after", ends[-1]))
