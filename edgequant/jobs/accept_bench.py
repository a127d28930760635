"""One bench part of an acceptance: the very files that verify made, measured beside each other on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgequant.archive.acceptance import BenchRecord
from edgequant.archive.bench import BenchFile
from edgequant.archive.open import Run
from edgequant.errors import EdgequantError, ToolError
from edgequant.jobs.accept_measured import measured
from edgequant.jobs.bench import BenchRequest, bench
from edgequant.plan.accept import BenchPart
from edgequant.plan.bench import LaboratoryRequest
from edgequant.progress import Progress
from edgequant.spec import Variant
from edgequant.spec.accept import AcceptSpec, BenchEntry, TrialKey


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
    return measured(folder, spec.bench)


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
