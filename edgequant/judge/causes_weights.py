"""Causes that weights tell: what is in the file, against what rounding the float weights makes."""

from __future__ import annotations

import math

from edgequant.judge.cause import AGAIN, At, Told, shown
from edgequant.judge.layer_graph import EXCESS

_GAIN = 0.1
_SLOPE = 0.005
_PEAK = 8.0
"""Largest weight over rms: a Gauss of 10,000 weights has 4."""
_RANGES = 4.0
FEW_BITS = 6


def zero_scale(at: At) -> Told | None:
    if at.layer.scale is not None and not at.layer.scale[0] > 0:
        return (
            "ZERO_SCALE",
            f"its output has the fixed scale {at.layer.scale[0]:g}",
            {"scale": at.layer.scale[0]},
            AGAIN,
        )
    found = at.layer.weights
    if found is None or not found.zero_channels:
        return None
    lost = list(found.zero_channels)
    return (
        "ZERO_SCALE", f"{len(lost)} of its {found.channels} output channels have lost all weights (scale 0), first "
        f"channel {lost[0]} (counted from 0)", {"channels": lost[:20]}, AGAIN,
    )  # fmt: skip


def _not_finite(at: At) -> Told | None:
    found = at.layer.weights
    if found is None or not found.bad_channels:
        return None
    bad = list(found.bad_channels)
    message = (
        f"{len(bad)} of its {found.channels} output channels have weights that are NaN or Inf, first channel {bad[0]} "
        "(counted from 0)"
    )
    return "WEIGHTS_NOT_FINITE", message, {"channels": bad[:20]}, AGAIN


def _bias(at: At) -> Told | None:
    found = at.layer.weights
    if found is None or not (found.bias_zero or found.bias_gap > 0.05):
        return None
    what = "all of its bias is gone" if found.bias_zero else f"its bias is off by up to {100 * found.bias_gap:.0f} %"
    return "BIAS_LOST", what, {"gap": found.bias_gap, "zero": found.bias_zero}, AGAIN


def _misplaced(at: At) -> Told | None:
    found = at.layer.weights
    if found is None or found.like is None:
        return None
    channel, other = found.like
    message = f"in place of its own weights, its output channel {channel} has those of channel {other} (counted from 0)"
    return "WEIGHTS_MISPLACED", message, {"channel": channel, "has": other}, AGAIN


def _wrong_weights(at: At) -> Told | None:
    found = at.layer.weights
    if found is None or found.excess is None or found.excess <= EXCESS:
        return None
    evidence = {"excess": found.excess, "channel": found.excess_channel, "gain": found.gain, "slope": found.slope}
    straight = found.left is not None and found.left <= min(EXCESS, found.excess / 4)
    if straight and found.slope is not None and abs(found.slope - 1) <= _SLOPE:
        message = (
            f"weights of its output channel {found.excess_channel} are all moved by the same amount"
            + ("" if found.offset is None else f", {abs(found.offset):.3g} steps")
            + ": its zero point is wrong"
        )
        return "ZERO_POINT_WRONG", message, {**evidence, "steps": found.offset}, AGAIN
    far = found.left is None and found.gain is not None and abs(found.gain - 1) > _GAIN
    if straight or far:
        times, channel = (found.slope, found.excess_channel) if straight else (found.gain, found.gain_channel)
        message = f"weights of its output channel {channel} are {times:.3g} times what they should be"
        return "WEIGHT_SCALE_WRONG", message, evidence, AGAIN
    message = (
        f"weights of its output channel {found.excess_channel} are not the float ones rounded: their error is "
        f"{math.sqrt(found.excess):.0f} times what rounding with this scale makes"
    )
    return "WEIGHT_ROUNDED_BADLY", message, evidence, AGAIN


def _overflowed_bias(at: At) -> Told | None:
    """A depthwise convolution of a static file adds its bias to an int32 sum, in steps of the input's scale times the
    weights'; all others add it in float (MNN 3.6.1)."""
    found = at.layer.weights
    if "Depthwise" not in at.layer.type:
        return None
    scale = next((at.graph.scales[name] for name in at.layer.inputs if name in at.graph.scales), None)
    if found is None or found.kept != "static" or found.bias_steps is None or scale is None or not scale[0] > 0:
        return None
    steps = found.bias_steps / scale[0]
    if steps < 2**31:
        return None
    of = "" if found.bias_channel is None else f" of output channel {found.bias_channel}"
    message = (
        f"its bias{of} is {steps:.3g} times the step of the int32 sum that MNN adds it to, which ends at 2.1e+09: the "
        "weights there are next to nothing, and so is their scale"
    )
    remedy = "Keep this layer in float (skip=), or take that channel out of the model."
    return "BIAS_OVERFLOWED", message, {"steps": steps, "channel": found.bias_channel}, remedy


def one_scale(at: At) -> Told | None:
    found = at.layer.weights
    if found is None or not found.one_scale or (found.range_ratio or 0) < _RANGES:
        return None
    message = f"all its channels share one scale, and the loudest is {found.range_ratio:.1f} times the median one"
    return "PER_TENSOR", message, {"range_ratio": found.range_ratio}, "Quantize with a scale for each channel."


def _outlier(at: At) -> Told | None:
    found = at.layer.weights
    if (
        found is None
        or found.block is not None
        or (found.peak or 0) < _PEAK
        or found.kept not in ("quantized", "static")
    ):
        return None
    of = "an output channel" if found.peak_channel is None else f"output channel {found.peak_channel}"
    message = f"one weight of {of} is {found.peak:.0f} times the rms of that channel's weights, and sets their scale"
    return (
        "OUTLIER_WEIGHT",
        message,
        {"peak": found.peak, "channel": found.peak_channel, "bits": found.bits},
        ("Give it smaller groups (block=32), or keep this layer in float."),
    )


def _fewer_bits(at: At) -> Told | None:
    """Than the other layers have."""
    found = at.layer.weights
    others = [each.weights.bits for each in at.graph.layers if each.weights is not None and each.weights.bits <= 8]
    return _few_bits(at) if found is not None and found.bits < max(others, default=0) else None


def _few_bits(at: At) -> Told | None:
    found = at.layer.weights
    if found is None or found.kept != "quantized" or found.bits > FEW_BITS:
        return None
    left = "" if found.sqnr_db is None else f", too few: {shown(found.sqnr_db)} of signal over error is left in them"
    others = {each.weights.bits for each in at.graph.layers if each.weights is not None and 1 < each.weights.bits <= 8}
    beside = f" where others have {max(others)}" if others and max(others) > found.bits else ""
    message = f"its weights have {found.bits} bits in the file{beside}{left}"
    remedy = "Give this layer 8 bits, by a rule in a recipe, or keep it in float."
    return "BITS_TOO_FEW", message, {"bits": found.bits, "weights_sqnr_db": found.sqnr_db}, remedy


WRONG = (_not_finite, zero_scale, _bias, _misplaced, _overflowed_bias, _wrong_weights)
"""The file is not what quantizing the layer makes."""
COARSE = (_fewer_bits, _outlier, _few_bits)
