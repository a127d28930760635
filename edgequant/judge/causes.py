"""Why a layer is to blame: causes that tensors and weights tell, each with its evidence and the one remedy that fits.

A cause is never guessed: what fits none of these is said to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgequant.archive.layers import LayerCapture, LayerFacts, Swap, Tap
from edgequant.findings import Finding
from edgequant.judge.layer_graph import EXCESS, Graph, misfit
from edgequant.judge.layers import Blame, suspects

HALF_MAX, HALF_LEAST = 65504.0, 6e-8
_GAIN = 0.1
_PEAK = 8.0
"""Largest weight over rms: a Gauss of 10,000 weights has 4."""
_RANGES = 4.0
_ACTIVATION_PEAK = 20.0
_FEW_BITS = 6
_MOVED = {
    "lag": "it is shifted",
    "permuted": "its axes are in another order",
    "exchanged": "two of its channels are exchanged",
    "other output": "it is what another tensor has",
    "other case": "it is what another case has",
}

Told = tuple[str, str, dict[str, Any], str]
"""Code, message, evidence, remedy."""
_FLOAT = "Keep this layer in float (the recipe below does)."


@dataclass(frozen=True)
class _At:
    """What a rule looks at."""

    capture: LayerCapture
    graph: Graph
    layer: LayerFacts


def cause_of(capture: LayerCapture, graph: Graph, blame: Blame, more: Mapping[str, object]) -> Finding | None:
    """Why the first of the blamed layers is to blame; None where none is."""
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
        if (told := rule(_At(capture, graph, layer))) is not None:
            return _finding(told, layer.key)
    message = "why is not known: none of the causes that are looked for shows in its tensors and weights"
    return _finding(("CAUSE_UNKNOWN", message, {}, _FLOAT), layer.key)


def spread_cause(capture: LayerCapture, graph: Graph) -> Finding:
    """No few layers are to blame."""
    ranked = suspects(capture)
    total = len(capture.exchangeable) or len(ranked)
    bits = [found.bits for each in graph.layers if (found := each.weights) is not None and found.kept != "float"]
    few = bits and min(bits) <= _FEW_BITS
    if capture.memory == "low":
        kinds = "weights and activations" if _activations(capture) else "weights"
    else:
        kinds = "weights and activations" if any(each.scale for each in graph.layers) else "weights"
    return _finding(
        (
            "BITS_TOO_FEW" if few else "ERROR_SPREAD",
            f"no few layers cause it: rounding of {kinds} adds up over {total} layers"
            + (f" of {min(bits)} bits" if few else ""),
            {"layers": [name for name, _ in ranked[:10]], "of": total, "bits": min(bits, default=0)},
            "Give more bits, or smaller blocks (block=32), to all layers." if few else
            "Take a variant that rounds less: weight:8 (no activations), fp16, or auto, which searches by layers.",
        ),
        None,
    )  # fmt: skip


def _finding(told: Told, where: str | None) -> Finding:
    code, message, evidence, remedy = told
    return Finding(code=code, severity="fail", where=where, message=message, evidence=evidence, remedy=remedy)


# ---- what weights tell


def _zero_scale(at: _At) -> Told | None:
    if at.layer.scale is not None and not at.layer.scale[0] > 0:
        return (
            "ZERO_SCALE",
            f"its output has the fixed scale {at.layer.scale[0]:g}",
            {"scale": at.layer.scale[0]},
            _AGAIN,
        )
    found = at.layer.weights
    if found is None or not found.zero_channels:
        return None
    lost = list(found.zero_channels)
    return (
        "ZERO_SCALE", f"{len(lost)} of its {found.channels} output channels have lost all weights (scale 0), first "
        f"channel {lost[0]}", {"channels": lost[:20]}, _AGAIN,
    )  # fmt: skip


_AGAIN = "Quantize again: the file is not what quantizing this layer makes.  Until then keep this layer in float."


def _bias(at: _At) -> Told | None:
    found = at.layer.weights
    if found is None or not (found.bias_zero or found.bias_gap > 0.05):
        return None
    what = "all of its bias is gone" if found.bias_zero else f"its bias is off by up to {100 * found.bias_gap:.0f} %"
    return "BIAS_LOST", what, {"gap": found.bias_gap, "zero": found.bias_zero}, _AGAIN


def _misplaced(at: _At) -> Told | None:
    found = at.layer.weights
    if found is None or found.like is None:
        return None
    channel, other = found.like
    message = f"its output channel {channel} has the weights of channel {other}"
    return "WEIGHTS_MISPLACED", message, {"channel": channel, "has": other}, _AGAIN


def _wrong_weights(at: _At) -> Told | None:
    found = at.layer.weights
    if found is None or found.excess is None or found.excess <= EXCESS:
        return None
    evidence = {"excess": found.excess, "channel": found.excess_channel, "gain": found.gain}
    if found.gain is not None and abs(found.gain - 1) > _GAIN:
        message = f"weights of its output channel {found.gain_channel} are {found.gain:.3g} times what they should be"
        return "WEIGHT_SCALE_WRONG", message, evidence, _AGAIN
    message = (
        f"weights of its output channel {found.excess_channel} are {math.sqrt(found.excess):.0f} times farther off "
        "than rounding with its scale explains"
    )
    return "WEIGHT_ROUNDED_BADLY", message, evidence, _AGAIN


def _one_scale(at: _At) -> Told | None:
    found = at.layer.weights
    if found is None or not found.one_scale or (found.range_ratio or 0) < _RANGES:
        return None
    message = f"all its channels share one scale, and the loudest is {found.range_ratio:.1f} times the median one"
    return "PER_TENSOR", message, {"range_ratio": found.range_ratio}, "Quantize with a scale for each channel."


def _outlier(at: _At) -> Told | None:
    found = at.layer.weights
    if (
        found is None
        or found.block is not None
        or (found.peak or 0) < _PEAK
        or found.kept not in ("quantized", "static")
    ):
        return None
    message = f"one weight of a channel is {found.peak:.0f} times the rms of all, and sets the scale of the channel"
    return (
        "OUTLIER_WEIGHT",
        message,
        {"peak": found.peak, "bits": found.bits},
        ("Give it smaller groups (block=32), or keep this layer in float."),
    )


def _few_bits(at: _At) -> Told | None:
    found = at.layer.weights
    if found is None or found.kept != "quantized" or found.bits > _FEW_BITS:
        return None
    message = f"its weights have {found.bits} bits, which cost {_shown(found.sqnr_db)} of them"
    remedy = "Give this layer 8 bits in a recipe, or keep it in float."
    return "BITS_TOO_FEW", message, {"bits": found.bits, "weights_sqnr_db": found.sqnr_db}, remedy


# ---- what tensors tell


def _stuck(at: _At) -> Told | None:
    for tap in _taps(at.graph, at.layer):
        side = tap.there if at.capture.stage == "device" else tap.here
        base = tap.here if at.capture.stage == "device" else tap.plain
        if side is None or base is None or side.n < 2 or side.min is None or base.min is None or base.max is None:
            continue
        if side.min == side.max and base.max - base.min > 1e-6 * max(abs(base.max), abs(base.min)):
            evidence = {"value": side.min, "range": [base.min, base.max], "case": tap.case}
            message = f"all of its output is {side.min:g}, which should range from {base.min:.3g} to {base.max:.3g}"
            return "STUCK_OUTPUT", message, evidence, _FLOAT
    return None


def _moved(at: _At) -> Told | None:
    for name in at.layer.outputs:
        for sign in at.capture.signs.get(name, ()):
            if sign.kind in _MOVED and sign.strength > 3:
                evidence = {"kind": sign.kind, "strength": sign.strength, "where": sign.where}
                message = f"the right numbers are in the wrong place: {_MOVED[sign.kind]} ({_place(sign.where)})"
                return "DATA_MOVED", message, evidence, _FLOAT
    return None


def _range(at: _At) -> Told | None:
    for tensor in at.layer.outputs[:1]:
        found = misfit(at.graph, tensor)
        if found is None or at.layer.scale is None:
            continue
        over, tap = found
        plain, (scale, zero) = tap.plain, at.layer.scale
        assert plain is not None
        evidence = {"scale": scale, "zero": zero, "float": [plain.min, plain.max], "case": tap.case}
        remedy = "Calibrate with data like this case (--calibration), or keep this layer in float (skip=)."
        if over > 1:
            reach = f"int8 reaches from {scale * (-128 - zero):.3g} to {scale * (127 - zero):.3g}"
            message = f"its output is clipped: {reach}, float has {plain.min:.3g} to {plain.max:.3g}"
            return "RANGE_CLIPPED", message, evidence, remedy
        message = f"its output's scale is too wide: float uses {100 * over:.1f} % of what int8 reaches"
        return "RANGE_TOO_WIDE", message, evidence, remedy
    return None


def _activations(capture: LayerCapture, layer: str | None = None) -> bool:
    """Whether it is rounding of activations, and not of weights, that costs most: with memory normal it does not."""
    what = "alone" if layer is None else "one"
    found: dict[str, Swap] = {
        swap.memory: swap
        for swap in capture.swaps
        if swap.what == what and (layer is None or swap.layers == (layer,)) and swap.failure is None
    }
    low, normal = found.get("low"), found.get("normal")
    if low is None or normal is None or low.share is None or normal.share is None:
        return False
    return normal.share < low.share / 4


def _of_activations(at: _At) -> Told | None:
    if at.capture.memory != "low" or not _activations(at.capture, at.layer.key):
        return None
    peaks = [
        max(abs(tap.plain.min or 0), abs(tap.plain.max or 0)) / tap.plain.rms
        for name in at.graph.seen_before(at.layer)
        for tap in at.graph.taps.get(name, ())
        if tap.plain is not None and tap.plain.rms
    ]
    peak = max(peaks, default=0.0)
    remedy = "Keep this layer in float, or run without activations in int8 (weight:N)."
    if peak > _ACTIVATION_PEAK:
        message = f"its input has outliers ({peak:.0f} times its rms), and they set the scale it is quantized with"
        return "ACTIVATION_OUTLIER", message, {"peak": peak}, remedy
    message = "rounding its input to 8 bits while it runs costs this, not its weights: with memory normal it is right"
    return "ACTIVATION_ROUNDING", message, {"peak": peak}, remedy


def _recurrent(at: _At) -> Told | None:
    loop = next((each for each in at.graph.main() if at.layer.subgraph and at.layer.subgraph in each.bodies), None)
    if not at.layer.subgraph and at.layer.type not in ("While", "RNNSequenceGRU", "LSTM", "RNN"):
        return None
    name = loop.name if loop is not None else at.layer.key
    message = f"it is in the loop '{name}', which feeds every rounding error back into the next step"
    return "RECURRENT_SENSITIVE", message, {"loop": name}, "Keep the layers of this loop in float."


def _sensitive(at: _At) -> Told | None:
    """Its own rounding is as small as it should be, and the model makes much of it."""
    found = at.layer.weights
    own = max(
        (share for name in at.layer.outputs if (share := at.graph.share(name, "quantization")) is not None),
        default=None,
    )
    cost = dict(suspects(at.capture)).get(at.layer.key)
    if found is None or own is None or cost is None or found.bits < 8 or cost < 4 * own or own == 0:
        return None
    message = (
        f"its own error is what 8 bits cost ({-10 * math.log10(own):.1f} dB), and what follows makes more of it "
        f"({-10 * math.log10(cost):.1f} dB)"
    )
    return "SENSITIVE_LAYER", message, {"own": own, "cost": cost}, _FLOAT


# ---- what a device tells


def _half(at: _At) -> Told | None:
    if at.capture.precision != "low":
        return None
    loop = f" in the loop '{at.layer.name}'" if at.layer.type == "While" else ""
    remedy = "Run with --precision normal."
    for tap in [
        *_taps(at.graph, at.layer),
        *(tap for name in at.graph.seen_before(at.layer) for tap in at.graph.taps.get(name, ())),
    ]:
        if tap.plain is not None and max(abs(tap.plain.min or 0), abs(tap.plain.max or 0)) > HALF_MAX:
            evidence: dict[str, Any] = {"tensor": tap.tensor, "case": tap.case, "range": [tap.plain.min, tap.plain.max]}
            return "FP16_OVERFLOW", f"numbers of '{tap.tensor}' are beyond what half precision has", evidence, remedy
        if tap.plain is not None and tap.plain.rms is not None and 0 < tap.plain.rms < HALF_LEAST:
            return "FP16_UNDERFLOW", f"numbers of '{tap.tensor}' are below what half precision has", {}, remedy
    for rerun in at.capture.reruns:
        if rerun.what == "precision=normal" and _better(rerun.before_db, rerun.sqnr_db):
            evidence = {"low_db": rerun.before_db, "normal_db": rerun.sqnr_db}
            message = (
                f"rounding to half precision{loop}: with precision normal the device agrees to "
                f"{_shown(rerun.sqnr_db)} instead of {_shown(rerun.before_db)}"
            )
            return "FP16_ROUNDING", message, evidence, remedy
    return None


def _kernel(at: _At) -> Told | None:
    worst = max(
        (tap for tap in _taps(at.graph, at.layer) if tap.device is not None),
        key=lambda tap: tap.device.share if tap.device is not None else 0,
        default=None,
    )  # fmt: skip
    if worst is None or worst.device is None:
        return None
    evidence: dict[str, Any] = {
        "tensor": worst.tensor, "case": worst.case, "device_db": _finite(worst.device.sqnr_db),
        "rounding_db": None if worst.moved is None else _finite(worst.moved.sqnr_db), "max_abs": worst.device.max_abs,
    }  # fmt: skip
    places = [
        f"index {index} of {length} along axis {axis}"
        for axis, (index, share, length) in enumerate(worst.device.axes)
        if length > 1 and share > max(0.5, 4 / length)
    ]
    where = f", most of it at {', '.join(places)}" if places else ""
    evidence["axes"] = [list(each) for each in worst.device.axes]
    how = ""
    for rerun in at.capture.reruns:
        if rerun.what == "memory=normal" and _better(rerun.before_db, rerun.sqnr_db):
            how = "; with memory normal (no int8) the device is right, so it is the int8 kernel"
            evidence["normal_db"] = rerun.sqnr_db
    code = "INT8_KERNEL_DIFFERS" if how else "KERNEL_DIFFERS"
    message = f"the device computes something else than this host here{where}{how}"
    return (
        code,
        message,
        evidence,
        ("Keep this layer in float or take another variant; a newer MNN may have another kernel for it."),
    )


def _taps(graph: Graph, layer: LayerFacts) -> list[Tap]:
    return [tap for name in layer.outputs for tap in graph.taps.get(name, ())]


def _better(before: float | None, after: float | None) -> bool:
    """10 dB and more."""
    return before is not None and after is not None and after > before + 10


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(db: float | None) -> str:
    return "no number" if db is None else f"{db:.1f} dB"


def _place(where: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in where.items())


_QUANTIZATION = (
    _zero_scale, _bias, _misplaced, _wrong_weights, _stuck, _range, _moved, _one_scale, _of_activations, _outlier,
    _few_bits, _recurrent, _sensitive,
)  # fmt: skip
_DEVICE = (_half, _stuck, _moved, _kernel)
