"""Causes that tensors tell: float MNN against the quantized file, or this host against a device."""

from __future__ import annotations

from edgequant.archive.layers import LayerCapture, Stats, Swap
from edgequant.compare.decibel import power_db
from edgequant.judge.cause import FLOAT, At, Told, place
from edgequant.judge.layer_graph import CLIPPED, misfit
from edgequant.judge.layers import suspects

_ACTIVATION_PEAK = 20.0
_MOVED = {
    "lag": "it is shifted",
    "order": "its slices come in another order",
    "permuted": "its axes are in another order",
    "exchanged": "two of its channels are exchanged",
    "other output": "it is what another tensor has",
    "other case": "it is what another case has",
}
_AT_LIMIT, _MORE = 0.02, 5.0
"""Of a tensor's elements at one end of its range; and so many times more than there should be."""
_WIDER = "Keep this layer in float, or give its output a wider scale (calibrate with data like this)."


def stuck(at: At) -> Told | None:
    for tap in at.taps:
        pair = at.pair(tap)
        if pair is None:
            continue
        base, side = pair
        if side.n < 2 or side.min is None or base.min is None or base.max is None:
            continue
        if side.min == side.max and base.max - base.min > 1e-6 * max(abs(base.max), abs(base.min)):
            evidence = {"value": side.min, "range": [base.min, base.max], "case": tap.case}
            message = f"all of its output is {side.min:g}, which should range from {base.min:.3g} to {base.max:.3g}"
            return "STUCK_OUTPUT", message, evidence, FLOAT
    return None


def saturated(at: At) -> Told | None:
    """Elements pile up at an end that is nearer than where the range should end."""
    for tap in at.taps:
        pair = at.pair(tap)
        if pair is None or pair[1].n < 64 or _span(pair[0]) is None or _span(pair[1]) is None:
            continue
        base, side = pair
        assert base.min is not None
        assert base.max is not None
        assert side.min is not None
        assert side.max is not None
        reach = 1e-3 * (base.max - base.min)
        ends = [("max", side.max, side.at_max, base.at_max)] if side.max < base.max - reach else []
        ends += [("min", side.min, side.at_min, base.at_min)] if side.min > base.min + reach else []
        for end, value, share, before in ends:
            if share > _AT_LIMIT and share > _MORE * before:
                evidence = {"end": end, "value": value, "share": share, "float": [base.min, base.max], "case": tap.case}
                message = (
                    f"{100 * share:.0f} % of its output is at {value:.3g}, where it should range from {base.min:.3g} "
                    f"to {base.max:.3g}: it saturates"
                )
                return "INT8_SATURATION", message, evidence, FLOAT if at.layer.scale is None else _WIDER
    return None


def _span(side: Stats) -> float | None:
    return None if side.min is None or side.max is None or side.max <= side.min else side.max - side.min


def moved(at: At) -> Told | None:
    for name in at.layer.outputs:
        signs = at.capture.signs.get(name, ())
        constant = any(sign.kind == "stuck" and sign.strength > 3 for sign in signs)
        for sign in signs:
            if sign.kind == "exchanged" and constant:
                continue  # a lost channel resembles every dead one
            evidence = {"kind": sign.kind, "strength": sign.strength, "where": sign.where}
            if (
                sign.kind == "order" and sign.strength > 3 and at.layer.weights is None
            ):  # what has weights sorts nothing
                axis = sign.where.get("axis")
                message = (
                    f"the same rows come in another order along axis {axis} (counted from 0), which is what equal "
                    "scores do where rows are sorted or chosen"
                )
                remedy = (
                    "Say that the order of the model's output means nothing (--decides), or break ties in the model."
                )
                return "ORDER_OF_EQUALS", message, evidence, remedy
            if sign.kind in _MOVED and sign.strength > 3:
                message = f"the right numbers are in the wrong place: {_MOVED[sign.kind]} ({place(sign.where)})"
                return "DATA_MOVED", message, evidence, FLOAT
    return None


def ranges(at: At) -> Told | None:
    """Its output's fixed scale."""
    tensor = next(iter(at.layer.outputs), None)
    found = None if tensor is None else misfit(at.graph, tensor)
    if found is None or at.layer.scale is None:
        return None
    over, tap = found
    plain, (scale, zero) = tap.plain, at.layer.scale
    assert plain is not None
    assert plain.min is not None
    assert plain.max is not None
    evidence = {"scale": scale, "zero": zero, "float": [plain.min, plain.max], "case": tap.case}
    remedy = "Calibrate with data like this case (--calibration), or keep this layer in float (skip=)."
    reach = f"int8 reaches from {scale * (-128 - zero):.3g} to {scale * (127 - zero):.3g}"
    if over > 1 and zero != 0 and max(plain.max, 0.0) - min(plain.min, 0.0) <= 255 * scale * CLIPPED:
        message = f"its output's zero point is wrong: {reach}, float has {plain.min:.3g} to {plain.max:.3g}, which is "
        return "ZERO_POINT_WRONG", f"{message}no wider", evidence, AGAIN_STATIC
    if over > 1:
        return (
            "RANGE_CLIPPED",
            f"its output is clipped: {reach}, float has {plain.min:.3g} to {plain.max:.3g}",
            evidence,
            remedy,
        )
    message = f"its output's scale is too wide: float uses {100 * over:.1f} % of what int8 reaches"
    return "RANGE_TOO_WIDE", message, evidence, remedy


AGAIN_STATIC = "Quantize again: calibrating makes another zero point.  Until then keep this layer in float (skip=)."


def of_activations(capture: LayerCapture, layer: str | None = None) -> bool:
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


def rounded(at: At) -> Told | None:
    if at.capture.memory != "low" or not of_activations(at.capture, at.layer.key):
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


def recurrent(at: At) -> Told | None:
    loop = next((each for each in at.graph.main() if at.layer.subgraph and at.layer.subgraph in each.bodies), None)
    if not at.layer.subgraph and at.layer.type not in ("While", "RNNSequenceGRU", "LSTM", "RNN"):
        return None
    name = loop.name if loop is not None else at.layer.key
    message = f"it is in the loop '{name}', which feeds every rounding error back into the next step"
    remedy = "Keep this layer in float; where that is not enough, the others of this loop too."
    return "RECURRENT_SENSITIVE", message, {"loop": name}, remedy


def sensitive(at: At) -> Told | None:
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
        f"its own error is what 8 bits cost ({power_db(1.0, own):.1f} dB at its output), and the layers behind it "
        f"enlarge it (to {power_db(1.0, cost):.1f} dB at the model's output)"
    )
    return "SENSITIVE_LAYER", message, {"own": own, "cost": cost}, FLOAT
