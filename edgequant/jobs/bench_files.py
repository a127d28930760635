"""The files that a bench measures: what it makes of the model, and what it was given."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.bench import BenchFile
from edgequant.archive.folder import RunFolder
from edgequant.archive.types import Making
from edgequant.clock import Clock
from edgequant.errors import InputError
from edgequant.jobs.making import open_maker
from edgequant.jobs.run import memory_of_file
from edgequant.models import ModelGraph, read_model
from edgequant.plan.bench import BenchRequest
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.spec import Variant

_MADE = ("float", "fp16", "weight", "dynamic")
"""Methods whose files take no check on a device to be made."""


@dataclass(frozen=True)
class MeasuredFile:
    """One file that is measured, on this host."""

    path: Path
    facts: BenchFile


def files_of(asked: BenchRequest, source: ModelGraph, folder: RunFolder, progress: Progress) -> list[MeasuredFile]:
    """Every file that is measured, the one the others are held against first."""
    request = asked.request
    files = [MeasuredFile(Path(each.path), each) for each in asked.files]
    if files:
        return files
    if source.format == "mnn" and source.weights == "quantized":
        files.append(_given(source.path.name, source, request))
    else:
        files += _made(request, source, folder, progress)
    for path in asked.against:
        graph = read_model(path)
        if graph.format != "mnn":
            raise InputError(
                "MODEL_WRONG_FORMAT",
                f"{path}: --against takes an MNN file, this is {graph.format}",
                hint=f"Make one first: edgequant quantize {shlex.quote(str(path))} -o model.mnn",
            )
        files.append(_given(str(path), graph, request))
    return files


def _given(name: str, graph: ModelGraph, request: Request) -> MeasuredFile:
    """A .mnn as it is."""
    facts = BenchFile(
        name=name, path=str(graph.path.absolute()), sha256=graph.sha256, size=graph.path.stat().st_size,
        memory=memory_of_file(graph, request.options), has_subgraphs=graph.has_subgraphs,
    )  # fmt: skip
    return MeasuredFile(graph.path, facts)


def _made(request: Request, source: ModelGraph, folder: RunFolder, progress: Progress) -> Iterator[MeasuredFile]:
    model = shlex.quote(str(request.model))
    for variant in request.variants:
        if variant.method not in _MADE:
            raise InputError(
                "OPTION_INVALID",
                f"--variant {variant}: bench makes float, fp16, weight:N and dynamic:N only",
                hint=f"Make it first, then measure the file beside float: edgequant quantize {model} --variant "
                f"{variant} -o small.mnn; edgequant bench {model} --variant float --against small.mnn",
            )
    variants = request.variants
    if any(variant.method != "float" for variant in variants):
        # What quantizing is for is shown beside what it replaces.
        variants = tuple(dict.fromkeys((Variant(method="float"), *variants)))
    maker = open_maker(source, request, folder, progress, Clock())
    try:
        maker.begin(list(variants))
        for variant in variants:
            made = maker.make(variant)
            folder.save_making(Making(variant=variant, artifact=made))
            inside = made.path.resolve().is_relative_to(folder.path.resolve())
            path = made.path.resolve().relative_to(folder.path.resolve()) if inside else made.path.absolute()
            facts = BenchFile(
                name=str(variant), path=str(path), sha256=made.sha256, size=made.size,
                memory=request.options.memory_for(variant), quantized=variant.method in ("weight", "dynamic"),
                has_subgraphs=made.facts.has_subgraphs,
            )  # fmt: skip
            yield MeasuredFile(made.path, facts)
    finally:
        maker.stop()
