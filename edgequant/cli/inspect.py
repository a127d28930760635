"""`edgequant inspect`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgequant.cases.case import shape_text
from edgequant.cli.console import out, print_json
from edgequant.cli.options import Ui
from edgequant.findings import Finding
from edgequant.jobs.inspect import inspect
from edgequant.jobs.ranges import ActivationRanges
from edgequant.models import ModelGraph
from edgequant.models.advice import Advice
from edgequant.models.mnn.weights import Weights
from edgequant.models.unsupported import CODE as UNSUPPORTED
from edgequant.plain import name, printable
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec
from edgequant.text import NAME, shortened

MAX_OPS = 12
MAX_TENSORS = 30
"""Inputs or outputs that are shown without -v."""


def run(*, model: str, inputs: str | None = None, images: Sequence[str] | None = None, ui: Ui) -> None:
    """Inspect and show."""
    found = inspect(model, inputs, ImageOptions.parse(images) if images else None)
    graph, risks, ranges, layers = found.graph, found.risks, found.ranges, found.layers
    advice = list(found.advice)
    console = out(ui)
    console.print(Text(printable(graph.path.name), style="bold"), f"{graph.format}, {graph.size / 1e6:.1f} MB", end="")
    details = [graph.producer, f"opset {graph.opset}" if graph.opset else None]
    details.append(f"weights {graph.weights}" if graph.weights else None)
    console.print("".join(f", {name(detail)}" for detail in details if detail), markup=False)
    console.print(f"sha256 {graph.sha256}", markup=False, soft_wrap=True)
    for title, specs in (("Inputs", graph.inputs), ("Outputs", graph.outputs)):
        console.print()
        if specs is None:
            console.print(f"{title}: this format tells only after conversion")
            continue
        table = Table(title, "type", "shape", box=None, pad_edge=False, header_style="bold")
        for spec in specs if ui.verbose else specs[:MAX_TENSORS]:
            table.add_row(Text(name(spec.name), overflow="fold"), spec.dtype, Text(name(shape_text(spec))))
        console.print(table)
        if not ui.verbose and len(specs) > MAX_TENSORS:
            console.print(f"and {len(specs) - MAX_TENSORS} more (-v shows them)")
    counts = Counter(op.type for op in graph.ops)
    shown = [f"{kind} {number}" for kind, number in counts.most_common(None if ui.verbose else MAX_OPS)]
    left = len(counts) - len(shown)
    console.print()
    rest = f", and {left} more kinds (-v shows them)" if left else ""
    console.print(f"{len(graph.ops)} operators: {printable(shortened(', '.join(shown)))}{rest}", markup=False)
    if layers:
        _show_layers(console, layers, every=ui.verbose)
    if ranges is not None:
        console.print(f"Activations: {_said(ranges)}", markup=False)
    for risk in risks:
        console.print()
        console.print(
            f"{risk.severity:<5} {risk.code}", markup=False, style="yellow" if risk.severity == "warn" else ""
        )
        named, more = _named(risk)
        hint = "  (-v names them)" if len(named) + more > 1 and not ui.verbose else ""
        console.print(Padding(Text(printable(risk.message) + hint), (0, 0, 0, 6)))
        for line in named if ui.verbose else ():
            console.print(Padding(Text(printable(shortened(line))), (0, 0, 0, 8)))
        if more and ui.verbose:
            console.print(Padding(Text(f"and {more} more"), (0, 0, 0, 8)))
        if risk.remedy:
            console.print(Padding(Text(f"-> {printable(risk.remedy)}", style="dim"), (0, 0, 0, 6)))
    console.print()
    if advice:
        console.print(Text("Worth trying, in this order", style="bold"))
        for each in advice:
            console.print(f"{each.order:>3}. --variant {each.variant}", markup=False, soft_wrap=True)
            console.print(Padding(Text(printable(each.reason), style="dim"), (0, 0, 0, 6)))
    else:
        console.print(f"Recommended: none  ({recommend(advice, risks)[1]})", markup=False)
    if ui.json:
        print_json(json.dumps(as_dict(graph, advice, risks, ranges, layers), indent=2))


def _show_layers(console: Console, layers: Sequence[Weights], *, every: bool) -> None:
    console.print(f"{len(layers)} layers with weights{'' if every else ' (-v lists them)'}", markup=False)
    if not every:
        return
    table = Table("layer", "type", "weights", "kB", box=None, pad_edge=False, header_style="bold")
    for layer in layers:
        place = f"{layer.name}  in {layer.subgraph}" if layer.subgraph else layer.name
        kept = f"{layer.kept} {layer.bits}" + (f", block {layer.block}" if layer.block else "")
        table.add_row(
            Text(printable(shortened(place, NAME)), overflow="fold"), layer.type, kept, f"{layer.payload / 1e3:.1f}"
        )
    console.print(table)


def _named(risk: Finding) -> tuple[list[str], int]:
    """What a finding is about, a line for each, and how many more there are than it has names of."""
    evidence = risk.evidence
    lines = list(evidence.get("names", ()))
    lines += [f"{one}, behind {origin}" for one, origin in evidence.get("pairs", ())]
    layers = evidence.get("layers", ())
    if isinstance(layers, dict):
        lines += [f"{layer}: {why}" for layer, why in layers.items()]
    else:
        lines += [
            f"{each['layer']}: peak {each['peak_to_rms']} x rms, widest channel {each['channel_range_ratio']} x the "
            f"median, {each['sqnr_db_8bit']} dB at 8 bits"
            for each in layers
        ]
    return lines, max(0, evidence.get("count", 0) - len(lines)) if lines else 0


def recommend(advice: list[Advice], risks: Iterable[Finding]) -> tuple[str, str]:
    """The variant to ship if it keeps its limits, and why."""
    if any(risk.code == UNSUPPORTED for risk in risks):
        return "none", "MNN cannot convert it"
    for each in advice:
        if each.variant != "float" or len(advice) == 1:
            return each.variant, each.reason
    return "none", "its weights are quantized or fp16 already: use `edgequant run`, or verify its float source"


def _said(ranges: ActivationRanges) -> str:
    told = {True: "some vary wildly, see below", False: "none varies wildly", None: "too few to tell"}[ranges.varies]
    lost = f", {len(ranges.unreadable)} could not be read" if ranges.unreadable else ""
    return f"{ranges.tensors} tensors over {ranges.samples} samples{lost}: {told}"


def as_dict(
    graph: ModelGraph,
    advice: list[Advice],
    risks: Sequence[Finding],
    ranges: ActivationRanges | None = None,
    layers: Sequence[Weights] = (),
) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.inspect/1``)."""

    def tensors(specs: tuple[TensorSpec, ...] | None) -> list[dict[str, Any]] | None:
        if specs is None:
            return None
        return [
            {
                "name": spec.name,
                "dtype": spec.dtype,
                "shape": None if spec.shape is None else list(spec.shape),
                "dims": None if spec.dims is None else list(spec.dims),
            }
            for spec in specs
        ]

    recommended, why = recommend(advice, risks)
    return {
        "schema": "edgequant.inspect/1",
        "path": str(graph.path),
        "format": graph.format,
        "bytes": graph.size,
        "sha256": graph.sha256,
        "producer": graph.producer,
        "opset": graph.opset,
        "weights": graph.weights,
        "inputs": tensors(graph.inputs),
        "outputs": tensors(graph.outputs),
        "operators": dict(Counter(op.type for op in graph.ops).most_common()),
        "layers": [
            {
                "name": layer.name,
                "subgraph": layer.subgraph,
                "type": layer.type,
                "kept": layer.kept,
                "bits": layer.bits,
                "block": layer.block,
                "bytes": layer.payload,
            }
            for layer in layers
        ],
        "recurrent": list(graph.recurrent),
        "has_subgraphs": graph.has_subgraphs,
        "findings": [risk.model_dump() for risk in risks],
        "ranges": ranges
        and {
            "samples": ranges.samples,
            "tensors": ranges.tensors,
            "unreadable": ranges.unreadable,
            "varies": ranges.varies,
        },
        "advice": [asdict(each) for each in advice],
        "recommended": recommended,
        "recommended_why": why,
    }
