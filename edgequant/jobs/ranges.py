"""Runs a float model over real inputs, to see whether its activations keep to one range."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.cases.load import CaseFile, find_cases
from edgequant.cases.pictures import PictureFile
from edgequant.errors import InputError, ToolError
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


def _measure(
    graph: ModelGraph, files: Sequence[CaseFile | PictureFile], work: Path, timeout: float
) -> ActivationRanges:
    out = work / "float.mnn"
    model = convert(graph, Variant(method="float"), out, log_dir=work, timeout=timeout).path
    specs = graph.inputs or read_model(model).inputs or ()
    samples = spool((file.load(specs).inputs for file in files), specs, work / "samples")
    layers = [layer for layer in read_layers(model) if not layer.subgraph]
    tensors = list(dict.fromkeys(name for layer in layers for name in (layer.input, layer.output)))
    found, unreadable = gather_ranges(model, tensors, Runs(samples, work, work, timeout))
    finding = varying_ranges(found)
    known = bool(found) and samples.count >= LEAST
    return ActivationRanges(samples.count, len(found), unreadable, finding is not None if known else None, finding)
