"""What a model's weights say about quantizing it, as findings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from edgequant.findings import Finding
from edgequant.models.model import ModelGraph
from edgequant.models.risks import activations_behind
from edgequant.models.weights import NOT_FINITE, PEAK, LayerWeights, Survey

_SHOWN = 20  # layers in one finding's evidence
_POOR = 30.0
"""dB of a layer's weights at 8 bits.  Normally it is 40 to 45; the default limit for outputs is 20, and the errors of
layers add up."""
_UNEVEN = 30.0  # times: five of the eight bits
_WORTH_TELLING = 0.1  # share of the weights or of the work


def find_weight_risks(graph: ModelGraph, survey: Survey | None) -> list[Finding]:
    """What is worth knowing about a model's weights, most serious first."""
    if survey is None:
        return []
    found = [_outliers(survey), _sensitive(graph, survey), _uneven(survey), _unquantized(survey), _left_out(survey)]
    return [finding for finding in found if finding is not None]


def outlying(survey: Survey) -> list[LayerWeights]:
    """Layers with outlier channels, worst first."""
    return sorted((layer for layer in survey.layers if layer.outliers), key=lambda layer: layer.sqnr8)


def block_helps(survey: Survey) -> bool:
    """Whether scales per 32 input channels give half a bit or more to a layer with outliers."""
    return any(layer.block8 is not None and layer.block8 >= layer.sqnr8 + 3.0 for layer in outlying(survey))


def _outliers(survey: Survey) -> Finding | None:
    layers = outlying(survey)
    if not layers:
        return None
    worst, number = layers[0], len({layer.layer for layer in layers})
    block = f", {worst.block8:.0f} and {worst.block4:.0f} dB with block=32" if _has_block(worst) else ""
    helps = block_helps(survey)
    return Finding(
        code="WEIGHT_OUTLIERS",
        severity="warn" if worst.sqnr8 < _POOR else "info",
        where=worst.layer,
        message=f"{number} layer(s) have output channels whose largest weight is {PEAK:.0f} times their rms or "
        f"more, which costs all others resolution; the worst keeps {worst.sqnr8:.0f} dB at 8 bits and "
        f"{worst.sqnr4:.0f} at 4{block}",
        evidence={"layers": [_numbers(layer) for layer in layers[:_SHOWN]], "count": len(layers)},
        remedy=f"Hold block=32 against plain 8 bits: it keeps outliers apart, and may still be worse on the whole model"
        f"{_without_blocks(survey)}.  No 4 bits without it."
        if helps
        else "Prefer 8 bits or fp16 to 4 bits; block=32 does not help here.",
    )


def _without_blocks(survey: Survey) -> str:
    number = sum(layer.block8 is None for layer in survey.layers)
    return f"; {number} of {len(survey.layers)} layers cannot take it" if number else ""


def _has_block(layer: LayerWeights) -> bool:
    return layer.block8 is not None and layer.block4 is not None


def _numbers(layer: LayerWeights) -> dict[str, object]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 1)

    return {
        "layer": layer.layer,
        "type": layer.type,
        "channels": layer.channels,
        "outlier_channels": layer.outliers,
        "peak_to_rms": rounded(layer.peak),
        "channel_range_ratio": rounded(layer.spread),
        "sqnr_db_8bit": rounded(layer.sqnr8),
        "sqnr_db_4bit": rounded(layer.sqnr4),
        "sqnr_db_8bit_block32": rounded(layer.block8),
        "sqnr_db_4bit_block32": rounded(layer.block4),
    }


def _sensitive(graph: ModelGraph, survey: Survey) -> Finding | None:
    """A non-linearity straight behind a layer that quantization costs much."""
    poor = [layer.layer for layer in outlying(survey)]
    behind = activations_behind(graph, set(poor) - set(graph.recurrent))
    if not behind:
        return None
    name, layer = next(iter(behind.items()))
    return Finding(
        code="NONLINEARITY_AFTER_SENSITIVE",
        severity="info",
        where=name,
        message=f"{len(behind)} activation(s) straight behind layers whose weights have outliers, such as {layer}: an "
        "error there changes which values are cut off, and a NaN becomes a plausible number",
        evidence={"pairs": [[key, value] for key, value in list(behind.items())[:_SHOWN]], "count": len(behind)},
        remedy=f"`edgequant diagnose {shlex.quote(str(graph.path))} --device URI` shows the error in front "
        "of them, layer by layer.",
    )


def _uneven(survey: Survey) -> Finding | None:
    layers = sorted(
        (layer for layer in survey.layers if layer.spread >= _UNEVEN and "offline" in layer.methods),
        key=lambda layer: -layer.spread,
    )
    if not layers:
        return None
    return Finding(
        code="WEIGHT_CHANNELS_UNEVEN",
        severity="info",
        where=layers[0].layer,
        message=f"{len(layers)} layer(s) have an output channel whose weights range {layers[0].spread:.0f} times as "
        "wide as the median channel's: static int8 has one scale for all of them in the activations behind",
        evidence={"layers": [_numbers(layer) for layer in layers[:_SHOWN]], "count": len(layers)},
        remedy="Prefer dynamic to the offline methods, or let static:8,keep=N keep the layers float that hurt most.",
    )


def _unquantized(survey: Survey) -> Finding | None:
    weights = _share(survey.parameters)
    work = _share(survey.products or {})
    if max(weights, work) < _WORTH_TELLING:
        return None
    kinds = {kind: other for kind, (_, other) in survey.parameters.items() if other}
    kinds = dict(sorted(kinds.items(), key=lambda item: -item[1]))
    busy = {kind: other for kind, (_, other) in (survey.products or {}).items() if other}
    said = [f"{weights:.0%} of the weights are in operators that nothing quantizes"] if weights else []
    said += [f"{work:.0%} of the multiply-accumulates are"] if work else []
    names = ", ".join(list(dict.fromkeys((*kinds, *busy)))[:5])
    return Finding(
        code="OPS_NOT_QUANTIZED",
        severity="warn" if weights >= 0.5 else "info",
        where=next(iter(kinds), next(iter(busy), None)),
        message=f"{' and '.join(said)} ({names}): MNN leaves them float in every variant",
        evidence={"weights": kinds, "share": round(weights, 3), "products": busy, "products_share": round(work, 3)},
        remedy="Expect less from 8 bits; fp16 halves these weights as well."
        if weights >= _WORTH_TELLING
        else "Expect less speed from quantizing than its share of the weights promises.",
    )


def _share(found: Mapping[str, tuple[int, int]]) -> float:
    """Of what nothing quantizes, 0..1."""
    total = sum(map(sum, found.values()))
    return sum(other for _, other in found.values()) / total if total else 0.0


def _left_out(survey: Survey) -> Finding | None:
    if not survey.left_out and not survey.unknown:
        return None
    said = [f"{len(survey.left_out)} layer(s) were not looked at"] if survey.left_out else []
    said += [f"{survey.unknown} weights are changed by operators before their use"] if survey.unknown else []
    return Finding(
        code="WEIGHTS_NOT_LOOKED_AT",
        # What is NaN or Inf in the source is no matter of size.
        severity="warn" if any(NOT_FINITE in why for why in survey.left_out.values()) else "info",
        where=next(iter(survey.left_out), None),
        message=f"{' and '.join(said)}: what is said about weights leaves them out",
        evidence={"layers": dict(list(survey.left_out.items())[:_SHOWN]), "unknown": survey.unknown},
        remedy="Judge by `edgequant verify`, which measures the whole model.",
    )
