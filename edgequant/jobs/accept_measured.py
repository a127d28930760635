"""What a bench part of an acceptance came to, from its folder: without a device, MNN or the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgequant.archive.acceptance import BenchRecord, BenchSetting, Number
from edgequant.archive.bench import Bench
from edgequant.compare.blocks import Estimate
from edgequant.judge.bench import BenchJudgement, Measured
from edgequant.judge.bench_run import BenchRules, judge_folder
from edgequant.spec.accept import BenchEntry

KIB_IN_MB = 1.024e-3


def measured(folder: Path, entry: BenchEntry) -> BenchRecord:
    """entry: of the spec, which says how well a number has to be known, and what is borne.

    Raises InputError (RUN_INVALID, OPTION_INVALID).
    """
    kept = Bench(folder)
    rules = BenchRules(entry.within / 100, kept.plan.tell, entry.allow)
    (device,) = judge_folder(kept, rules).devices
    return BenchRecord(
        uri=device.device.uri, settings=tuple(_settings(device.judged)),
        threads=next((each.threads for each in device.device.settings), None),
        case=None if device.device.case is None else device.device.case.name,
        seconds=round(sum(kept.closing.seconds.values()), 3),
    )  # fmt: skip


def _settings(judged: BenchJudgement | None) -> Iterator[BenchSetting]:
    for each in () if judged is None else judged.settings:
        used = [block for block in each.blocks if block.round in each.used and block.timing is not None]
        found = () if judged is None else judged.findings
        yield BenchSetting(
            variant=each.name,
            valid=each.valid,
            why=each.why_invalid,
            borne=each.borne,
            numbers=dict(_numbers(each)),
            blocks=tuple(tuple(block.timing.samples_ms) for block in used if block.timing is not None),
            rounds=tuple(block.round for block in used),
            findings=tuple(told.code for told in found if told.where == each.name),
        )


def _numbers(measured: Measured) -> Iterator[tuple[str, Number]]:
    for name, estimate in measured.ms.items():
        yield f"latency_ms.{name}", _number(estimate)
    for name in ("min", "max"):
        if name in measured.spread:
            yield f"latency_ms.{name}", Number(value=measured.spread[name])
    others = {"latency_ms.load": measured.load, "latency_ms.first": measured.first, "cpu_ms": measured.cpu_ms}
    for name, found in others.items():
        if found is not None:
            yield name, _number(found)
    if measured.peak_kb is not None:
        yield "memory_mb.rss_peak", Number(value=measured.peak_kb * KIB_IN_MB)


def _number(estimate: Estimate) -> Number:
    return Number(value=estimate.value, low=estimate.low, high=estimate.high)
