"""One bench part of an acceptance: the very files that verify made, measured beside each other on one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edgequant.archive.acceptance import BenchRecord, BenchSetting, Number
from edgequant.archive.open import Run
from edgequant.compare.blocks import Estimate
from edgequant.errors import EdgequantError, ToolError
from edgequant.jobs.bench import BenchRequest, MeasuredDevice, bench
from edgequant.judge.bench import Measured
from edgequant.plan.accept import BenchPart
from edgequant.progress import Progress
from edgequant.spec import MemoryMode, Variant
from edgequant.spec.accept import AcceptSpec, BenchEntry, TrialKey

KIB_IN_MB = 1.024e-3


def measure(
    part: BenchPart, spec: AcceptSpec, runs: Mapping[TrialKey, Run], folder: Path, progress: Progress
) -> BenchRecord:
    """Measure; the captures go into `folder`, which is made.

    runs: the folder of verify that has each trial's file.

    Raises EdgequantError: of bench; ToolError (NOTHING_MADE) where there is no file of any trial.
    """
    variants = {key: Variant.parse(spec.variant(key).variant) for key in part.trials}
    files = {
        variant: file
        for key, variant in variants.items()
        if key in runs and (file := _file(runs[key], variant, part)) is not None
    }
    if not files:
        raise ToolError("NOTHING_MADE", "no variant could be made, so nothing can be measured", where=part.name)
    request = replace(part.request, variants=tuple(files), run_dir=folder)
    asked = asked_of(spec.bench, BenchRequest(request, files=tuple((str(each), *files[each]) for each in files)))
    found = bench(asked, progress)
    (device,) = found.devices
    told = device.capture
    return BenchRecord(
        uri=device.uri, settings=tuple(_settings(device)), threads=told.threads, case=device.case.name,
        seconds=round(found.seconds, 3),
    )  # fmt: skip


def asked_of(entry: BenchEntry, asked: BenchRequest) -> BenchRequest:
    """How it is measured."""
    return replace(
        asked, blocks=entry.blocks, runs=entry.runs, seconds=entry.seconds, allowed=entry.allow,
        within=entry.within / 100, warm_seconds=entry.warm_up,
    )  # fmt: skip


def _file(run: Run, variant: Variant, part: BenchPart) -> tuple[Path, str, MemoryMode] | None:
    """Path, SHA-256 and memory mode of what verify made; None where it made nothing."""
    try:
        making = run.making(variant)
    except EdgequantError:
        return None  # said of the trial itself, which is of this file as well
    if making is None or making.artifact is None:
        return None
    made = making.artifact
    path = run.path / made.path
    return (path, made.sha256, part.request.options.memory_for(made.run_as)) if path.is_file() else None


def _settings(device: MeasuredDevice) -> Iterator[BenchSetting]:
    for each in device.judged.settings:
        used = [block for block in each.blocks if block.round in each.used and block.timing is not None]
        yield BenchSetting(
            variant=each.name,
            valid=each.valid,
            why=each.why_invalid,
            borne=tuple(sorted({code for block in each.blocks for code in block.borne})),
            numbers=dict(_numbers(each)),
            blocks=tuple(tuple(block.timing.samples_ms) for block in used if block.timing is not None),
            rounds=tuple(block.round for block in used),
            findings=tuple(found.code for found in device.judged.findings if found.message.startswith(f"{each.name} ")),
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
