"""MNN's compression parameters for a static int8 model.

The converter (3.6.1) turns a layer with `input`, `weight` and `output` into int8, finding it by its output tensor's
name; of the entries that mention a tensor, the first one's scale counts, so all must agree.  A layer with `op_name`
and `weight` only gets quantized weights.  What is not listed stays float.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgequant.errors import InputError
from edgequant.models.mnn.scale_flow import Flow
from edgequant.quantize.calibrate.kernels import ANY, Kernels, apart, tailed
from edgequant.quantize.calibrate.layers import Layer
from edgequant.quantize.calibrate.methods import Quantizer
from edgequant.quantize.calibrate.why import Why

_MOST_SUM = 2.0**29
"""MNN adds bias and zero point of a depthwise layer as integers of the product of scales: they have to fit int32."""
_MOST_SQUEEZE = 2.0
"""One bit is what a layer may lose to the wider range of a pool's input."""
_LEAST_DEPTHWISE = 1e-6
"""MNN takes smaller weight scales of depthwise layers for this."""

_ASKED = Why("asked", "asked to stay float")


class LayerPlan(NamedTuple):
    """What becomes of one layer: `how` is ``static``, ``weight`` or ``float``, with the reason when not static."""

    layer: Layer
    how: str
    why: Why | None
    input: Quantizer | None
    output: Quantizer | None


def plan(
    layers: Sequence[Layer],
    flow: Flow,
    quantizers: Mapping[str, Quantizer],
    *,
    unreadable: Mapping[str, str],
    skip: Collection[str] = (),
    kept: Collection[str] = (),
    rest: str = "weight",
    kernels: Kernels = ANY,
) -> list[LayerPlan]:
    """Decide for each layer.

    A layer whose result MNN would misread in a later segment stays float, and so does one whose scale would spread to
    a pool's input of more than `_MOST_SQUEEZE` times the range; below that, it takes the pool's input's scale, as
    MNN's own calibration does.

    A layer that is not static gets 8-bit weights all the same where MNN will compute it in float: one with quantized
    weights that reads an int8 tensor would run in int8 with the scales of its neighbours, or read int8 as float.

    Args:
        quantizers: of tensors, by name.
        unreadable: tensors whose ranges could not be measured, with the reason.
        skip: names of operators, or of their output tensors, that stay float.
        kept: output tensors of layers whose activations stay float.
        rest: what becomes of layers that are not static: ``weight`` (8 bits, where that is possible) or ``float``.
        kernels: of MNN's that compute something else, and are avoided.

    Raises:
        InputError: LAYER_UNKNOWN: a name in `skip` is no layer of the model.
    """
    check_names(skip, layers)
    asked = {layer.output for layer in layers if {layer.name, layer.output} & set(skip)}
    reasons: dict[str, Why] = {}
    for layer in layers:
        lost = [name for name in (layer.input, layer.output) if name not in quantizers]
        if layer.subgraph or layer.why_not is not None:
            continue
        if layer.output in asked:
            reasons[layer.output] = _ASKED
        elif layer.output in kept:
            reasons[layer.output] = Why("kept", f"one of the {len(kept)} most sensitive layers")
        elif lost:
            said = unreadable.get(lost[0], "nothing was read")
            reasons[layer.output] = Why("unmeasured", f"the range of '{lost[0]}' could not be measured: {said}")
        elif (consumer := flow.crossing(layer.output)) is not None:
            words = f"MNN would misread its int8 result behind a loop or branch, in '{consumer}'"
            reasons[layer.output] = Why("boundary", words)
        elif layer.output in kernels.half_tiles:
            reasons[layer.output] = Why("kernel", kernels.half_tiles[layer.output])
    adjusted, reasons = _adjusted(layers, flow, quantizers, reasons, kernels)
    int8 = flow.spread(adjusted)
    plans = []
    for layer in layers:
        if layer.why_not is not None:
            # In the main graph, a convolution with quantized weights between two int8 tensors would run in int8.
            able = bool(layer.subgraph) or layer.type.startswith("Deconvolution")
            skipped = bool({layer.name, layer.output} & set(skip))
            weight = rest == "weight" and able and not skipped
            why = _ASKED if skipped else Why("unable", layer.why_not)
            plans.append(LayerPlan(layer, "weight" if weight else "float", why, None, None))
        elif layer.output in reasons:
            reason = reasons[layer.output]
            light = rest == "weight" and reason.code != "asked" and layer.input not in int8
            plans.append(LayerPlan(layer, "weight" if light else "float", reason, None, None))
        else:
            plans.append(LayerPlan(layer, "static", None, adjusted[layer.input], adjusted[layer.output]))
    return plans


def _adjusted(
    layers: Sequence[Layer],
    flow: Flow,
    quantizers: Mapping[str, Quantizer],
    before: Mapping[str, Why],
    kernels: Kernels,
) -> tuple[dict[str, Quantizer], dict[str, Why]]:
    """(quantizers widened for what inherits them, and apart where MNN pools them; why layers are not static: those of
    before, and those that have to stay float for it)."""
    reasons = dict(before)
    while True:
        static = [layer for layer in layers if layer.why_not is None and layer.output not in reasons]
        described = {name for layer in static for name in (layer.input, layer.output)}
        adjusted = {name: quantizers[name] for name in described}
        known = len(reasons)
        for layer in static:
            for name in flow.squeezed(layer.input, described):
                wide, own = quantizers.get(name), quantizers[layer.input]
                if wide is None or wide.scale > _MOST_SQUEEZE * own.scale:
                    words = f"MNN would clip '{name}', in front of a pool, to the range behind it"
                    reasons[layer.output] = Why("pool", words)
                elif wide.scale > adjusted[layer.input].scale:
                    adjusted[layer.input] = wide
        if len(reasons) == known:
            reasons |= {name: Why("kernel", why) for name, why in tailed(kernels, flow, static, described).items()}
        if len(reasons) == known:
            return apart(kernels, flow, adjusted), reasons


def check_names(names: Collection[str], layers: Sequence[Layer]) -> None:
    """Raise InputError LAYER_UNKNOWN where a name is neither an operator's nor its output's."""
    known = dict.fromkeys(name for layer in layers for name in (layer.name, layer.output))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise InputError(
                "LAYER_UNKNOWN",
                f"the model has no layer '{name}'",
                hint=(f"Did you mean {', '.join(near)}?" if near else f"It has {', '.join(list(known)[:8])}, ...")
                + "  `edgequant inspect -v` of a float .mnn lists them all.",
            )


def parameters(plans: Sequence[LayerPlan]) -> dict[str, object]:
    """The contents of the converter's compressionParamsFile, but for its version."""
    entries = []
    for each in plans:
        if each.how == "static" and each.input is not None and each.output is not None:
            entries.append(_static(each.layer, each.input, each.output))
        elif each.how == "weight":
            entries.append(_weight(each.layer))
    return {"algo": [{"type": "QUANTIZE", "quant_params": {"layer": entries}}]}


def _static(layer: Layer, source: Quantizer, result: Quantizer) -> dict[str, object]:
    scales = [float(np.float32(scale)) for scale in weight_scales(layer, source, result)]
    weight = {"name": layer.name, "bits": 8, "scales": scales, "clamp_min": -127, "clamp_max": 127}
    return {
        "input": [_activation(layer.input, source)],
        "weight": [weight],
        "output": [_activation(layer.output, result)],
    }


def _activation(name: str, q: Quantizer) -> dict[str, object]:
    return {
        "name": name,
        "bits": 8,
        "scales": [q.scale],
        "zero_point": q.zero_point,
        "clamp_min": q.clamp_min,
        "clamp_max": q.clamp_max,
    }


def _weight(layer: Layer) -> dict[str, object]:
    weight = {"name": layer.name, "bits": 8, "asymmetric": True, "block_size": 0}
    entry: dict[str, object] = {"op_name": layer.name, "weight": [weight]}
    return {**entry, "subgraph_name": layer.subgraph} if layer.subgraph else entry


def weight_scales(layer: Layer, source: Quantizer, result: Quantizer) -> np.ndarray:
    """One scale per output channel, float64 [channels]: largest magnitude / 127.

    Channels of zeros get a scale too, for MNN divides by it.  In depthwise layers it is at least so large that what MNN
    adds up as integers (bias / (input scale * weight scale), and the output's zero point) fits.
    """
    scales = layer.weight_max.astype(np.float64) / 127
    if layer.type == "ConvolutionDepthwise":
        bias = np.abs(layer.bias.astype(np.float64)) / source.scale
        zero = abs(result.zero_point) * result.scale / source.scale
        scales = np.maximum(scales, np.maximum(bias, zero) / _MOST_SUM)
        return np.maximum(scales, _LEAST_DEPTHWISE)
    floor = float(scales.max()) * 1e-6 or 1 / 127
    return np.maximum(scales, floor)
