"""One bench part of an acceptance: the very files that verify made, measured beside each other on one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edgequant.archive.acceptance import BenchRecord, BenchSetting, Number
from edgequant.archive.bench import Bench, BenchFile
from edgequant.archive.open import Run
from edgequant.compare.blocks import Estimate
from edgequant.errors import EdgequantError, ToolError
from edgequant.jobs.bench import BenchRequest, bench
from edgequant.judge.bench import BenchJudgement, Measured
from edgequant.judge.bench_run import judge_folder
from edgequant.plan.accept import BenchPart
from edgequant.plan.bench import LaboratoryRequest
from edgequant.progress import Progress
from edgequant.spec import Variant
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
    bench(asked_of(spec.bench, BenchRequest(request, files=tuple(files.values()))), progress)
    kept = Bench(folder)
    (device,) = judge_folder(kept).devices
    return BenchRecord(
        uri=device.device.uri, settings=tuple(_settings(device.judged)),
        threads=next((each.threads for each in device.device.settings), None),
        case=None if device.device.case is None else device.device.case.name,
        seconds=round(sum(kept.closing.seconds.values()), 3),
    )  # fmt: skip


def asked_of(entry: BenchEntry, asked: BenchRequest) -> BenchRequest:
    """How it is measured."""
    return replace(
        asked, blocks=entry.blocks, runs=entry.runs, seconds=entry.seconds, allowed=entry.allow,
        within=entry.within / 100, warm_seconds=entry.warm_up,
        laboratory=LaboratoryRequest(governor=entry.governor),
    )  # fmt: skip


def _file(run: Run, variant: Variant, part: BenchPart) -> BenchFile | None:
    """What verify made; None where it made nothing."""
    try:
        making = run.making(variant)
    except EdgequantError:
        return None  # said of the trial itself, which is of this file as well
    if making is None or making.artifact is None:
        return None
    made = making.artifact
    path = run.path / made.path
    if not path.is_file():
        return None
    return BenchFile(
        name=str(variant), path=str(path.absolute()), sha256=made.sha256, size=made.size,
        memory=part.request.options.memory_for(made.run_as), quantized=variant.method not in ("float", "fp16"),
        has_subgraphs=made.facts.has_subgraphs,
    )  # fmt: skip


def _settings(judged: BenchJudgement | None) -> Iterator[BenchSetting]:
    for each in () if judged is None else judged.settings:
        used = [block for block in each.blocks if block.round in each.used and block.timing is not None]
        found = () if judged is None else judged.findings
        yield BenchSetting(
            variant=each.name,
            valid=each.valid,
            why=each.why_invalid,
            borne=tuple(sorted({code for block in each.blocks for code in block.borne})),
            numbers=dict(_numbers(each)),
            blocks=tuple(tuple(block.timing.samples_ms) for block in used if block.timing is not None),
            rounds=tuple(block.round for block in used),
            findings=tuple(told.code for told in found if told.message.startswith(f"{each.name} ")),
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
