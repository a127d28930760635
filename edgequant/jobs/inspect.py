"""What can be known of a model before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgequant.cases.pictures import refuse_unused
from edgequant.findings import Finding
from edgequant.jobs.ranges import ActivationRanges, measure_ranges
from edgequant.mnn_version import host_mnn_version
from edgequant.models import ModelGraph, find_risks, read_model
from edgequant.models.advice import Advice, Facts, advise
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.models.unsupported import find_unsupported
from edgequant.models.weight_risks import find_weight_risks
from edgequant.models.weights import survey_weights
from edgequant.quantize.operators import known_operators
from edgequant.spec.images import ImageOptions

_SERIOUS = ("error", "fail", "warn", "info")


@dataclass(frozen=True, repr=False)
class Inspection:
    """What was found.

    Attributes:
        risks: the serious ones first.
        advice: the variants worth trying, in order; none where nothing is left to quantize, or nothing can be made.
        ranges: of the activations; None where there were no inputs.
        layers: of a .mnn, by the names that recipes and skip= take; other formats get these only from the converter.
    """

    graph: ModelGraph
    risks: tuple[Finding, ...]
    advice: tuple[Advice, ...]
    ranges: ActivationRanges | None
    layers: tuple[Weights, ...]

    def __repr__(self) -> str:
        variants = ", ".join(each.variant for each in self.advice) or "none"
        return f"<Inspection of {self.graph.path.name}: {len(self.risks)} findings, worth trying {variants}>"


def inspect(model: Path | str, inputs: Path | str | None = None, images: ImageOptions | None = None) -> Inspection:
    """Read the model; it is run only over `inputs`, in float, where there are some.

    Raises InputError, and ToolError where there are inputs and the model cannot be run over them.
    """
    refuse_unused(images, inputs)
    graph = read_model(Path(model))
    survey = survey_weights(graph)
    ranges = None if inputs is None else measure_ranges(graph, Path(inputs), images)
    known = known_operators(graph.format)
    unsupported = find_unsupported(graph, known, host_mnn_version()) if known else []
    risks = [*unsupported, *find_risks(graph), *find_weight_risks(graph, survey)]
    risks += [ranges.finding] if ranges is not None and ranges.finding is not None else []
    risks.sort(key=lambda risk: _SERIOUS.index(risk.severity))
    return Inspection(
        graph,
        tuple(risks),
        () if unsupported else tuple(advise(graph, risks, Facts(survey, None if ranges is None else ranges.varies))),
        ranges,
        tuple(read_weights(graph.path)) if graph.format == "mnn" else (),
    )
