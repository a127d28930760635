"""Why a layer is to blame: causes that tensors and weights tell, each with its evidence and the one remedy that fits.

A cause is never guessed: what fits none of these is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgequant.archive.layers import LayerCapture
from edgequant.findings import Finding
from edgequant.judge.cause import FLOAT, At, Told
from edgequant.judge.causes_device import beyond, half, kernel, not_engaged
from edgequant.judge.causes_tensors import (
    moved,
    of_activations,
    ranges,
    recurrent,
    rounded,
    saturated,
    sensitive,
    stuck,
)  # fmt: skip
from edgequant.judge.causes_weights import COARSE, FEW_BITS, WRONG, one_scale
from edgequant.judge.layer_graph import Graph
from edgequant.judge.layers import Blame, suspects


def cause_of(capture: LayerCapture, graph: Graph, blame: Blame, more: Mapping[str, object]) -> Finding | None:
    """Why the first of the blamed layers is to blame; None where none is."""
    if capture.stage == "device" and (told := not_engaged(capture.reruns)) is not None:
        return _finding(told, None)
    if more.get("engaged") is False and capture.memory == "low" and not blame.layers:
        return _finding(
            ("LOW_MEMORY_NOT_ENGAGED", "memory low had no effect", {}, "Use a build of MNN with MNN_LOW_MEMORY."), None
        )
    if not blame.layers:
        return None
    layer = graph.by_key.get(blame.layers[0])
    if layer is None:
        return None
    rules = _DEVICE if capture.stage == "device" else _QUANTIZATION
    for rule in rules:
        if (told := rule(At(capture, graph, layer))) is not None:
            return _finding(told, layer.key)
    message = "why is not known: none of the causes that are looked for shows in its tensors and weights"
    return _finding(("CAUSE_UNKNOWN", message, {}, FLOAT), layer.key)


def beyond_half(capture: LayerCapture, graph: Graph, blame: Blame) -> Finding | None:
    """Why NaN or Inf is born on a device that runs in half precision: numbers that it does not have."""
    told = beyond(At(capture, graph, graph.by_key[blame.layers[0]])) if blame.layers[0] in graph.by_key else None
    return None if told is None else _finding(told, blame.layers[0])


def spread_cause(capture: LayerCapture, graph: Graph, blame: Blame) -> Finding:
    """No few layers are to blame, unless one of the worst is not what quantizing it makes."""
    ranked = suspects(capture)
    for layer in (graph.by_key[name] for name, _ in ranked[:3] if name in graph.by_key):
        for rule in WRONG:
            if (told := rule(At(capture, graph, layer))) is not None:
                return _finding(told, layer.key)
    total = len(capture.exchangeable) or len(ranked)
    bits = [found.bits for each in graph.layers if (found := each.weights) is not None and found.kept != "float"]
    few = bits and min(bits) <= FEW_BITS
    if capture.memory == "low":
        kinds = "weights and activations" if of_activations(capture) else "weights"
    else:
        kinds = "weights and activations" if any(each.scale for each in graph.layers) else "weights"
    each = len(blame.layers) if blame.proof == "proven" else 0
    much = f"adds up over all {total} layers that have any"
    if each > 1:
        of = f"its {total}" if each == total else f"{each} of {total}"
        much = f"is more than the limits allow in each of {of} layers"
    evidence = {"layers": [name for name, _ in ranked[:10]], "of": total, "bits": min(bits, default=0)}
    message = f"no single layer is to blame: rounding of {kinds} {much}" + (f" of {min(bits)} bits" if few else "")
    if few:
        told = ("BITS_TOO_FEW", message, evidence, "Give more bits, or smaller blocks (block=32), to all layers.")
    else:
        less = "fp16" if kinds == "weights" else "weight:8 (activations in float), fp16"
        told = ("ERROR_SPREAD", message, evidence, f"Take a variant that rounds less: {less}, or auto, which searches.")
    return _finding(told, None)


def _finding(told: Told, where: str | None) -> Finding:
    code, message, evidence, remedy = told
    return Finding(code=code, severity="fail", where=where, message=message, evidence=evidence, remedy=remedy)


_QUANTIZATION = (*WRONG, stuck, ranges, saturated, moved, one_scale, rounded, *COARSE, recurrent, sensitive)
_DEVICE = (half, stuck, saturated, moved, kernel)
