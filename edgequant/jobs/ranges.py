"""Runs a float model over real inputs, to see whether its activations keep to one range, and to that of fp16."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.cases.case import Case
from edgequant.cases.load import CaseFile, find_cases
from edgequant.cases.pictures import PictureFile
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.findings import Finding
from edgequant.models import ModelGraph, read_model
from edgequant.models.varying import LEAST, varying_ranges
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.layers import read_layers
from edgequant.quantize.calibrate.ranges import gather_ranges
from edgequant.quantize.calibrate.samples import spool
from edgequant.quantize.convert import convert
from edgequant.spec import Variant
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

HALF_MOST = 65504.0
"""The largest number that fp16 has."""


@dataclass(frozen=True)
class ActivationRanges:
    """What was seen.

    Attributes:
        samples: how many inputs it was run on; tensors: whose ranges were read.
        unreadable: tensors that could not be read, with the reason.
        varies: None where there were too few samples to tell, or no tensors.
        finding: where it varies, which.
    """

    samples: int
    tensors: int
    unreadable: dict[str, str]
    varies: bool | None
    finding: Finding | None


def measure_ranges(
    graph: ModelGraph, inputs: Path, images: ImageOptions | None = None, *, timeout: float = 900.0
) -> ActivationRanges:
    """Look at the inputs and outputs of the layers that could be quantized, outside of loops, over real inputs.

    The model is converted and run in child processes.  Their logs, in a folder of the temporary directory, are kept
    where something fails.

    Args:
        inputs, images: as `load_cases` takes them.
        timeout: seconds for the conversion, and for each run over all samples.

    Raises:
        InputError: ALREADY_QUANTIZED; what `find_cases` and their `load` raise; CALIBRATION_...
        ToolError: CALIBRATION_..., and what `convert` raises.
    """
    if graph.weights == "quantized":
        raise InputError(
            "ALREADY_QUANTIZED",
            "its weights are quantized already, so ranges of the float model cannot be measured",
            hint="Leave --inputs out, or start from the float model.",
            where=str(graph.path),
        )
    files = find_cases(inputs, images)
    work = Path(tempfile.mkdtemp(prefix="edgequant-inspect-"))
    try:
        found = _measure(graph, files, work, timeout)
    except BaseException as error:
        if not isinstance(error, ToolError):  # else its logs are wanted
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return found


def beyond_half(
    model: Path, cases: Sequence[Case], specs: Sequence[TensorSpec], work: Path, timeout: float
) -> list[Finding]:
    """What precision low cannot keep: inner tensors of a float .mnn that these cases take beyond 65504.

    On a CPU without fp16 nothing shows it, for MNN computes in fp32 there and says nothing.  Nothing is said of tensors
    in loops, nor where the model cannot be run so.

    work: a folder of one's own for what is needed meanwhile; it must not exist, and does not afterwards.
    """
    work.mkdir()
    try:
        samples = spool((case.inputs for case in cases), specs, work / "samples")
        found, _ = gather_ranges(model, _tensors(model), Runs(samples, work, work, timeout))
    except EdgequantError:
        return []
    finally:
        shutil.rmtree(work, ignore_errors=True)
    largest = {name: max(max(abs(low), abs(high)) for low, high in rows) for name, rows in found.items()}
    large = {name: size for name, size in largest.items() if size > HALF_MOST}
    if not large:
        return []
    worst = max(large, key=lambda name: large[name])
    return [
        Finding(
            code="BEYOND_HALF",
            severity="warn",
            where=worst,
            message=f"{len(large)} inner tensor(s) go beyond {HALF_MOST:g}, the largest number of fp16 ({worst} to "
            f"{large[worst]:.3g}): with --precision low, a CPU that computes in fp16 makes infinities of them",
            evidence={"largest": dict(sorted(large.items(), key=lambda each: -each[1])[:100])},
            remedy="Run it with --precision normal, or scale what goes into these layers.",
        )
    ]


def _tensors(model: Path) -> list[str]:
    layers = [layer for layer in read_layers(model) if not layer.subgraph]
    return list(dict.fromkeys(name for layer in layers for name in (layer.input, layer.output)))


def _measure(
    graph: ModelGraph, files: Sequence[CaseFile | PictureFile], work: Path, timeout: float
) -> ActivationRanges:
    out = work / "float.mnn"
    model = convert(graph, Variant(method="float"), out, log_dir=work, timeout=timeout).path
    specs = graph.inputs or read_model(model).inputs or ()
    samples = spool((file.load(specs).inputs for file in files), specs, work / "samples")
    found, unreadable = gather_ranges(model, _tensors(model), Runs(samples, work, work, timeout))
    finding = varying_ranges(found)
    known = bool(found) and samples.count >= LEAST
    return ActivationRanges(samples.count, len(found), unreadable, finding is not None if known else None, finding)
