"""A variant's file, and what it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgequant.archive.types import Artifact, CalibrationFacts, CalibrationShapes, FileFacts
from edgequant.findings import Finding
from edgequant.models import read_model
from edgequant.models.mnn.static_int8 import read_static
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.calibration import CalibrationSet
from edgequant.quantize.convert import ConvertedModel
from edgequant.quantize.ladder import Step
from edgequant.quantize.recipe import Recipe
from edgequant.spec import Variant


@dataclass(frozen=True)
class MadeVariant:
    """A variant's file, and what it is.

    Attributes:
        asked: the variant as the user wrote it.
        run_as: what the file is: the same, or what the ladder came to.
        label: that in words; None where it is what was asked for.
        findings: what the user should know of how it was made.
        steps: what was tried, in order; empty where there was nothing to choose.
        calibration: the samples it was made from; None where it needed none.
    """

    asked: Variant
    run_as: Variant
    model: ConvertedModel
    findings: tuple[Finding, ...] = ()
    steps: tuple[Step, ...] = ()
    label: str | None = None
    calibration: CalibrationSet | None = None


def by_recipe(
    variant: Variant, recipe: Recipe, model: ConvertedModel, name: str, findings: tuple[Finding, ...], label: str = ""
) -> MadeVariant:
    """A file that a recipe describes.  Run with memory low it is a dynamic one, which has to be proven like any."""
    kept = {layer.kept for layer in read_weights(model.path)}
    low = recipe.memory == "low" and "quantized" in kept
    if "quantized" in kept:
        run_as = Variant(method="dynamic" if low else "weight", bits=8)
    elif "static" in kept:
        run_as = Variant(method="static", bits=8)
    else:
        run_as = Variant(method="fp16" if "fp16" in kept or recipe.constants == "fp16" else "float")
    if recipe.memory == "low" and not low:
        unused = Finding(
            code="RECIPE_MEMORY_UNUSED",
            severity="info",
            message="the recipe says memory low, but no layer has weights that are unpacked or quantized while it "
            "runs: it is run with memory normal",
            remedy='Write "memory": "normal" into it.',
        )
        findings = (*findings, unused)
    named = model.path.rename(model.path.with_name(f"{name}-{model.sha256[:16]}.mnn"))
    return MadeVariant(variant, run_as, replace(model, path=named, variant=variant), findings, label=label or None)


def artifact_of(made: MadeVariant, source_sha256: str) -> Artifact:
    """The same as data."""
    graph, model = read_model(made.model.path), made.model
    layers = read_static(model.path)
    used = made.calibration
    return Artifact(
        path=model.path,
        sha256=model.sha256,
        size=model.size,
        source_sha256=source_sha256,
        asked=made.asked,
        run_as=made.run_as,
        label=made.label,
        steps=tuple(step.as_dict() for step in made.steps),
        quantized_layers=model.quantized_layers,
        float_layers=model.float_layers,
        warnings=model.warnings,
        findings=(*made.findings, *model.findings),
        log=model.log.name,
        seconds=model.seconds,
        calibration=None
        if used is None
        else CalibrationFacts(
            source=used.source,
            samples=len(used),
            shapes=tuple(
                CalibrationShapes(samples=count, inputs=dict(shapes)) for shapes, count in used.shapes.most_common(100)
            ),
            images=used.images,
        ),
        facts=FileFacts(
            weights=graph.weights,
            has_subgraphs=graph.has_subgraphs,
            static_tensors=layers.described,
            half_tiles=layers.half_tiles,
            max_pools=layers.max_pools,
            tails=layers.tails,
        ),
    )
