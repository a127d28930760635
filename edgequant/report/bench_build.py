"""From a bench's folder and its judgement to its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import PurePath
from statistics import fmean, median

from edgequant.archive.bench import Baseline, Bench, BenchPlan
from edgequant.archive.timing import ConditionsCapture
from edgequant.archive.types import Capture, TimingCapture, now
from edgequant.compare import blocks as statistics
from edgequant.compare.blocks import NEEDED, percentile
from edgequant.judge.against import AgainstDevice, AgainstSetting
from edgequant.judge.bench import Block, Compared, Measured
from edgequant.judge.bench_memory import SettingMemory, StageMemory, memory_of
from edgequant.judge.bench_run import JudgedBench, JudgedDevice
from edgequant.report import bench as report
from edgequant.report.laboratory import apart_report

MIB = 1.048576
_MB = 1.024e-3
"""MB in a KiB."""


def build_bench(
    bench: Bench, judged: JudgedBench, baseline: Baseline | None = None, created: datetime | None = None
) -> report.BenchReport:
    """The report of a bench; the same folder and judgement give the same one but for `created`.

    baseline: that it was judged against, where it is not the one that is kept in the folder.
    """
    plan, against, closing = bench.plan, baseline or bench.baseline, bench.closing
    return report.BenchReport(
        model=plan.model,
        verdict=judged.verdict,
        created=created or now(),
        measured=plan.created,
        edgequant=plan.edgequant,
        mnn=plan.host.mnn,
        model_sha256=plan.model_sha256,
        blocks=plan.blocks,
        runs=plan.runs,
        seconds_each=plan.seconds,
        within=judged.rules.within,
        tell=judged.rules.tell,
        allowed=list(judged.rules.allowed),
        options={
            **plan.options.model_dump(mode="json"),
            "threads": list(plan.threads) or None,
            "memory": list(plan.memory) or None,
            "warm_seconds": plan.warm_seconds,
            "redo": plan.redo,
            **plan.laboratory,
        },
        files=[
            report.FileReport(name=each.name, sha256=each.sha256, mb=each.size / 1e6, path=PurePath(each.path).name)
            for each in plan.files
        ],
        baseline=None if against is None else _baseline(against),
        seconds=round(closing.seconds.get("bench", 0.0), 3),
        interrupted=not closing.ended,
        failed={
            each.device.uri: each.failure.model_dump(mode="json") for each in judged.devices if each.failure is not None
        },
        devices=[_device(plan, each) for each in judged.devices if each.judged is not None],
    )


def _baseline(found: Baseline) -> report.BaselineInfo:
    return report.BaselineInfo(
        folder=found.folder, created=found.created, edgequant=found.edgequant, mnn=found.mnn, model=found.model,
        model_sha256=found.model_sha256,
    )  # fmt: skip


def _device(plan: BenchPlan, found: JudgedDevice) -> report.BenchDeviceReport:
    judged, case = found.judged, found.device.case
    assert judged is not None
    against = found.against
    return report.BenchDeviceReport(
        uri=found.device.uri,
        facts=None if found.told is None else found.told.model_dump(mode="json"),
        verdict=found.verdict,
        case="" if case is None else case.name,
        shapes={} if case is None else {name: list(ref.shape) for name, ref in case.inputs.items()},
        rounds=found.rounds,
        rounds_good=found.good,
        settings=[_setting(plan, found, each) for each in judged.settings],
        findings=[*judged.findings, *(() if against is None else against.findings)],
        compared=[_compared(each) for each in judged.compared],
        baseline=None if against is None else _against(against),
        apart=apart_report(found.apart),
    )


def _setting(plan: BenchPlan, device: JudgedDevice, found: Measured) -> report.SettingReport:
    setting = next(each for each in device.device.settings if each.name == found.name)
    file = plan.file(setting.file)
    captures = [block.capture for block in found.blocks]
    memory = _memory(memory_of(captures), None if file is None else file.size)
    return report.SettingReport(
        name=found.title,
        id=found.name,
        file=setting.file,
        threads=setting.threads,
        memory_mode=setting.memory,
        valid=found.valid,
        verdict=found.verdict,
        why_invalid=[report.Reason(code=code, message=message) for code, message in found.why_invalid],
        ms={name: _sure(each) for name, each in found.ms.items()},
        spread=dict(found.spread),
        cpu_ms=_estimate(found.cpu_ms),
        load_ms=_estimate(found.load),
        first_ms=_estimate(found.first),
        rss_peak_kb=found.peak_kb,
        memory=memory,
        blocks=[_block(each, used=each.round in found.used) for each in found.blocks],
    )


def _sure(found: statistics.Estimate) -> report.Estimate:
    return report.Estimate(value=found.value, low=found.low, high=found.high)


def _estimate(found: statistics.Estimate | None) -> report.Estimate | None:
    return None if found is None else _sure(found)


def _block(block: Block, *, used: bool) -> report.BlockReport:
    timing, capture = block.timing, block.capture
    noted = [] if timing is None else timing.conditions
    inside = noted[1:] if len(noted) > 2 else noted
    return report.BlockReport(
        round=block.round + 1,
        used=used,
        n=0 if timing is None else len(timing.samples_ms),
        warmup=0 if timing is None else timing.warmup,
        ms={} if timing is None else dict(_of_samples(timing)),
        cpu_ms=fmean(timing.cpu_ms) if timing is not None and timing.cpu_ms else None,
        load_ms=capture.load_ms,
        first_ms=_first(capture),
        work_ms=[] if timing is None else list(timing.work_ms),
        celsius=[each.celsius for each in _ends(inside) if each.celsius is not None],
        mhz=[max(each.mhz) for each in _ends(inside) if each.mhz],
        doubts=[report.Reason(code=each.code, message=each.message) for each in block.doubts],
        failure=None if capture.failure is None else capture.failure.code,
    )


def _ends(noted: Sequence[ConditionsCapture]) -> list[ConditionsCapture]:
    return [noted[0], noted[-1]] if noted else []


def _of_samples(timing: TimingCapture) -> Iterator[tuple[str, float]]:
    ordered = sorted(timing.samples_ms)
    if not ordered:
        return
    yield "p50", median(ordered)
    yield "mean", fmean(ordered)
    yield "min", ordered[0]
    yield "max", ordered[-1]
    for name, needed in NEEDED.items():
        if len(ordered) >= needed:
            yield name, percentile(ordered, int(name[1:]) / 100)


def _first(capture: Capture) -> float | None:
    return next((case.ms for case in capture.cases if case.ms is not None), None)


def _memory(found: SettingMemory, size: int | None) -> report.MemoryReport:
    mib = found.session_mib
    return report.MemoryReport(
        file_mb=None if size is None else size / 1e6,
        session_mb=None if mib is None else mib * MIB,
        session_mib=mib,
        session_why=found.session_why,
        peak_mb=_mb(found.peak),
        above_mb=_mb(found.above),
        stages={name: _stage(each) for name, each in found.stages.items()},
    )


def _stage(found: StageMemory) -> report.Stage:
    return report.Stage(
        rss=_mb(found.rss), pss=_mb(found.pss), uss=_mb(found.uss), swap=_mb(found.swap), peak=_mb(found.peak)
    )


def _mb(kib: float | None) -> float | None:
    return None if kib is None else kib * _MB


def _compared(found: Compared) -> report.ComparedReport:
    return report.ComparedReport.model_validate(
        {
            "base": found.base, "name": found.name, "says": found.says, "rounds": found.rounds,
            "ratio": found.ratio.value, "low": found.ratio.low, "high": found.ratio.high,
        }
    )  # fmt: skip


def _against(found: AgainstDevice) -> report.BaselineReport:
    return report.BaselineReport(
        settings=[_one_against(each) for each in found.settings], notes=list(found.notes), missing=list(found.missing)
    )


def _one_against(found: AgainstSetting) -> report.AgainstReport:
    ratio = found.ratio
    return report.AgainstReport.model_validate(
        {
            "name": found.name, "says": found.says, "why": found.why, "before_ms": found.before_ms, "ms": found.ms,
            "ratio": ratio and ratio.value, "low": ratio and ratio.low, "high": ratio and ratio.high,
            "blocks_before": found.blocks[0], "blocks": found.blocks[1], "same_file": found.same_file,
        }
    )  # fmt: skip
