"""What is known of a run before anything is run: the model is read, and the user's mistakes are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin
from edgequant.cases.load import load_cases
from edgequant.cases.pictures import find_pictures, refuse_unused
from edgequant.cases.whole_numbers import checked
from edgequant.clock import Clock
from edgequant.compare.table import Kind
from edgequant.errors import InputError
from edgequant.files import require_utf8
from edgequant.judge.limits import defaults_for, resolve_limits
from edgequant.models import ModelGraph, read_model
from edgequant.models.tables import row_limits
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.spec.function import looks_like_function
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec


@dataclass(frozen=True)
class Looked:
    """What is known before anything is run: the source's graph and, where it tells enough, the user's cases."""

    graph: ModelGraph
    cases: list[Case] | None


def look(request: Request, progress: Progress, clock: Clock) -> Looked:
    """Read the model and find the user's mistakes, before a device is troubled.  Raises InputError."""
    require_utf8(request.model)
    with clock.phase("read"):
        graph = read_model(request.model)
    progress.say(f"model: {graph.path.name}, {graph.format}, {graph.size / 1e6:.1f} MB, sha256 {graph.sha256[:12]}")
    _refuse_quantized_source(graph, request)
    for variant in request.variants:
        if variant.file is not None:
            from edgequant.quantize.recipe import Recipe

            Recipe.read(Path(variant.file))
    return Looked(graph, _check_early(request, graph))


def _refuse_quantized_source(graph: ModelGraph, request: Request) -> None:
    if graph.computes_int8:
        raise InputError(
            "SOURCE_ALREADY_QUANTIZED",
            f"{graph.path.name} computes in int8 already, which MNN's converter does not take for what it is",
            hint="Give the float model this was made of.",
        )
    if graph.format == "mnn" and graph.weights == "quantized" and request.reference is None:
        raise InputError(
            "SOURCE_ALREADY_QUANTIZED",
            f"{graph.path.name} is quantized already, so there is no float model to hold it against",
            hint="Give the float source (ONNX, TFLite, .pb or float .mnn), or reference outputs with --reference. "
            "`edgequant run` runs it as it is.",
        )


def _check_early(request: Request, graph: ModelGraph) -> list[Case] | None:
    """Find the user's mistakes before the long part, where the format tells enough; returns the cases, if given."""
    own = request.calibration is not None and looks_like_function(request.calibration)
    refuse_unused(request.images, request.inputs, None if own else request.calibration)
    if request.reference is not None and not request.reference.exists():
        raise InputError("REFERENCE_NOT_FOUND", f"{request.reference}: no such file or folder")
    if graph.outputs:
        kinds: dict[str, Kind] = {spec.name: kind_of(spec.dtype) for spec in graph.outputs}
        resolve_limits(kinds, defaults_for("float"), request.limits)
        if request.decides:
            from edgequant.judge.decisions import check_named

            check_named(kinds, request.decides)
    if graph.inputs is None:
        return None
    pin(graph.inputs, request.shapes)
    if any(variant.calibrated for variant in request.variants):
        from edgequant.quantize.calibration import CalibrationOptions, check_early

        images = CalibrationOptions(images=request.images or ImageOptions())
        check_early(request.calibration, pin(graph.inputs, request.shapes), images)
    return None if request.inputs is None else read_cases(request, graph.inputs, graph)


def read_cases(request: Request, inputs: tuple[TensorSpec, ...], graph: ModelGraph) -> list[Case]:
    """The user's cases, or random ones, for these inputs.  Raises InputError."""
    return checked(_loaded(request, inputs), row_limits(graph))


def _loaded(request: Request, inputs: tuple[TensorSpec, ...]) -> list[Case]:
    if request.inputs is not None:
        # A shape that is pinned says what pictures are scaled to; of other cases it is checked below.
        specs = inputs if find_pictures(request.inputs) is None else pin(inputs, request.shapes)
        cases = load_cases(request.inputs, specs, request.images)
        for name, shape in request.shapes.items():
            for case in cases:
                if name in case.inputs and tuple(case.inputs[name].shape) != shape:
                    raise InputError(
                        "INPUT_SHAPE",
                        f"{case.source}: input '{name}' has shape {list(case.inputs[name].shape)}, "
                        f"--shape asks for {list(shape)}",
                    )
        pin(inputs, request.shapes)
        return cases
    return generate(pin(inputs, request.shapes), request.options.seed)


def kind_of(dtype: str) -> Kind:
    """The kind of an output of a NumPy dtype."""
    return "int" if np.dtype(dtype).kind in "biu" else "float"
