"""A diagnosis as node data of Google's Model Explorer, which lays it over the graph of the source.

The format is `GraphNodeData` of node_data_builder.py in the PyPI package ai-edge-model-explorer (read in 0.1.34): one
number for each node, of the graph that is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgequant.archive.layers import Apart, LayerCapture
from edgequant.report.diagnosis import DiagnosisReport

_MOST_DB = 200.0
_BLAMED = "#d73027"
_COLOURS = ((20.0, "#f46d43"), (30.0, "#fdae61"), (40.0, "#fee08b"), (50.0, "#d9ef8b"), (_MOST_DB, "#a6d96a"))
"""Up to so many dB."""
_RESHAPING = ("ConvertTensor", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Permute", "Identity")


@dataclass(frozen=True)
class Overlay:
    """The document, how many nodes have a number, and the tensors that are none of the source's."""

    text: str
    nodes: int
    lost: tuple[str, ...]


def overlay(told: DiagnosisReport, capture: LayerCapture | None, nodes: Mapping[str, str]) -> Overlay:
    """nodes: tensor of the source -> what Model Explorer calls the node that makes it."""
    numbers = _numbers(told, capture)
    blamed = _blamed(told, capture)
    nodes = {**_followed(capture, nodes), **nodes}
    results: dict[str, dict[str, object]] = {}
    for tensor, value in numbers.items():
        node = nodes.get(tensor)
        if node is None:
            continue
        known = results.get(node, {}).get("value")
        if not isinstance(known, float) or value < known:
            results[node] = {"value": value}
    for tensor in blamed:
        if tensor in nodes:
            results.setdefault(nodes[tensor], {"value": 0.0})["bgColor"] = _BLAMED
    what = {"device": "device against this host", "conversion": "float MNN against the source"}.get(
        told.stage or "", "float against quantized MNN"
    )
    document = {
        "name": f"{what}, dB ({told.variant} on {told.device}; red: blamed)",
        "results": results,
        "thresholds": [{"value": value, "bgColor": colour} for value, colour in _COLOURS],
    }
    lost = tuple(name for name in dict.fromkeys([*numbers, *blamed]) if name not in nodes)
    return Overlay(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=True) + "\n", len(results), lost)


def _followed(capture: LayerCapture | None, nodes: Mapping[str, str]) -> dict[str, str]:
    """Tensors that are MNN's own, and of which the source has what reshaping makes of them: that one's node."""
    found: dict[str, str] = {}
    # From the end on, so that what comes behind a tensor is known.
    for layer in reversed([] if capture is None else capture.layers):
        if layer.subgraph or layer.type not in _RESHAPING:
            continue
        node = next((nodes.get(name) or found.get(name) for name in layer.outputs), None)
        if node is not None:
            found.update((name, node) for name in layer.inputs[:1] if name not in nodes)
    return found


def _blamed(told: DiagnosisReport, capture: LayerCapture | None) -> Sequence[str]:
    """Tensors that the blamed layers make; of a layer in a loop, those of the loop."""
    if capture is None:
        outputs = [] if told.cause is None else told.cause.evidence.get("outputs", ())
        return [each["name"] for each in outputs if isinstance(each, dict)]
    found: list[str] = []
    for layer in (each for each in capture.layers if each.key in told.layers):
        around = [each for each in capture.layers if layer.subgraph and layer.subgraph in each.bodies]
        found += [name for each in around or [layer] for name in each.outputs]
    return found


def _numbers(told: DiagnosisReport, capture: LayerCapture | None) -> dict[str, float]:
    """Tensor -> dB, of the case in which it is worst."""
    found: dict[str, float] = {}
    if capture is None:
        evidence = {} if told.cause is None else told.cause.evidence
        facts = [each for key in ("inputs", "outputs") for each in evidence.get(key, ()) if isinstance(each, dict)]
        return {each["name"]: float(each["sqnr_db"]) for each in facts if each.get("sqnr_db") is not None}
    for tap in capture.taps:
        apart: Apart | None = tap.device if told.stage == "device" else tap.quantization
        if apart is not None:
            value = round(max(-_MOST_DB, min(_MOST_DB, apart.sqnr_db)), 2)
            found[tap.tensor] = min(value, found.get(tap.tensor, _MOST_DB))
    return found
