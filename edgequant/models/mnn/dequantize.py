"""What the weights of each layer of a quantized file are, beside the float ones: evidence that causes are told by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgequant.models.flat import Table
from edgequant.models.mnn.net import open_net
from edgequant.models.mnn.unpack import values
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.models.model import BrokenFileError

Floats = npt.NDArray[np.float64]
_LEAST_STEP = 1e-6
"""What MNN takes smaller steps of weights for, where it makes steps of the bias."""
_FEW = 8
"""Weights of a group: fewer are not fitted by a line of their own."""
_FAR_OFF = 16.0
"""As `judge.layer_graph.EXCESS`: only such channels are asked what it is."""
_MOST_LIKE = 8192
"""Channels up to which those that are far off are looked for among the others."""


@dataclass(frozen=True)
class Unpacked:
    """weights: float64 [channels, rest].  steps: of each element's scale, the same shape; zeros where float.  bias:
    float64 [channels], or empty.  groups: of a channel's weights that have a scale of their own."""

    weights: Floats
    steps: Floats
    bias: Floats
    groups: int = 1


def unpacked(net: Table, layer: Weights) -> Unpacked | None:
    """Of a layer in the net it was found in; None where it is kept in a way that cannot be read."""
    try:
        found = values(net, layer)
    except BrokenFileError:
        return None
    if found is None or found.weights.size % layer.channels or len(found.weights) % layer.channels:
        return None
    weights = found.weights.astype(np.float64)
    step = np.zeros(len(weights)) if found.scale is None else np.abs(found.scale.astype(np.float64))
    steps = np.broadcast_to(step[:, None], weights.shape)
    bias = found.bias.astype(np.float64) if found.bias.size == layer.channels else np.zeros(0)
    groups = len(weights) // layer.channels
    return Unpacked(weights.reshape(layer.channels, -1), steps.reshape(layer.channels, -1), bias, groups)


def weight_facts(quantized: Path, float_model: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """By layer: the fields of `archive.layers.WeightFacts`.  Raises InputError (MODEL_BROKEN)."""
    plain = {each.key: each for each in read_weights(float_model)}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with open_net(quantized) as net, open_net(float_model) as other, np.errstate(invalid="ignore", over="ignore"):
        for layer in read_weights(quantized):
            told: dict[str, Any] = {
                "kept": layer.kept, "bits": layer.bits, "block": layer.block, "sym": layer.sym,
                "channels": layer.channels,
            }  # fmt: skip
            found[layer.key] = told
            if layer.key not in plain:
                continue
            want, have = unpacked(other, plain[layer.key]), unpacked(net, layer)
            if want is not None and have is not None and want.weights.shape == have.weights.shape:
                told.update(_compared(want, have))
    return found


def _compared(want: Unpacked, have: Unpacked) -> dict[str, Any]:
    w, q = want.weights, have.weights
    if np.isfinite(w).all() and not np.isfinite(q).all():
        return {
            "count": int(w.size),
            "bad_channels": tuple(map(int, np.flatnonzero(~np.isfinite(q).all(axis=1))[:100])),
        }
    if not np.isfinite(w).all() or not np.isfinite(q).all() or not w.size:
        return {}
    signal, error = np.einsum("ij,ij->i", w, w), np.einsum("ij,ij->i", q - w, q - w)
    rounding = np.einsum("ij,ij->i", have.steps, have.steps) / 12
    told: dict[str, Any] = {}
    if error.sum() > 0 and signal.sum() > 0:
        told["sqnr_db"] = float(10 * np.log10(signal.sum() / error.sum()))
    live = signal > 1e-12 * max(float(signal.max()), 1e-300)
    if live.any():
        excess = np.where(live & (have.steps.max(axis=1) > 0), error / np.maximum(rounding, 1e-12 * signal + 1e-300), 0)
        worst = int(excess.argmax())
        told.update(excess=float(excess.max()), excess_channel=worst, count=int(w.size))
        if w.shape[1] // have.groups >= _FEW:
            told.update(_line(w[worst].reshape(have.groups, -1), q[worst].reshape(have.groups, -1), have.steps[worst]))
        elif (bad := excess > _FAR_OFF).any():
            told.update(_offset((q - w)[bad], have.steps[bad]))
        gain = np.where(live, np.einsum("ij,ij->i", w, q) / np.maximum(signal, 1e-300), 1.0)
        far = int(np.abs(gain - 1).argmax())
        told.update(gain=float(gain[far]), gain_channel=far)
        told["zero_channels"] = tuple(int(c) for c in np.flatnonzero(live & ~q.any(axis=1))[:100])
        largest = np.abs(w).max(axis=1)
        told["range_ratio"] = float(largest.max() / max(float(np.median(largest[live])), 1e-300))
        # Of each element's own group: where a block shares a scale, one large weight spoils only that.
        rms = np.sqrt(signal / w.shape[1])
        peaks = np.where(live, largest / np.maximum(rms, 1e-300), 0.0)
        told.update(peak=float(peaks.max()), peak_channel=int(peaks.argmax()))
        told["like"] = _like(w, q, live)
    if have.steps.any():
        told["one_scale"] = bool(w.shape[0] > 1 and np.ptp(have.steps) <= 1e-6 * have.steps.max())
    if want.bias.size and np.abs(want.bias).max() > 0:
        step = np.maximum(have.steps.max(axis=1), _LEAST_STEP)
        steps = np.abs(want.bias) / step
        told.update(bias_steps=float(steps.max()), bias_channel=int(steps.argmax()))
        bias = have.bias if have.bias.size else np.zeros_like(want.bias)
        told["bias_gap"] = float(np.abs(bias - want.bias).max() / np.abs(want.bias).max())
        told["bias_zero"] = not bias.any()
    return told


def _line(w: Floats, q: Floats, steps: Floats) -> dict[str, float]:
    """q = slope * w + offset in each group of a channel [groups, rest]: of the group that is farthest off; and what
    such lines leave of the error, over rounding, in the group that fits worst."""
    step = steps.reshape(w.shape)[:, 0]
    wide = w - w.mean(axis=1, keepdims=True)
    power = np.einsum("ij,ij->i", wide, wide)
    if not (power > 0).all() or not (steps > 0).all():
        return {}
    slope = np.einsum("ij,ij->i", wide, q) / power
    offset = q.mean(axis=1) - slope * w.mean(axis=1)
    rest = q - slope[:, None] * w - offset[:, None]
    left = np.einsum("ij,ij->i", rest, rest) / (w.shape[1] * step * step / 12)
    far = int(np.einsum("ij,ij->i", q - w, q - w).argmax())
    if abs(slope[far] - 1) < 4 * step[far] / np.sqrt(12 * power[far]):
        slope[far] = 1.0  # rounding alone moves it so far
    return {"slope": float(slope[far]), "offset": float(offset[far] / step[far]), "left": float(left.max())}


def _offset(error: Floats, steps: Floats) -> dict[str, float]:
    """The same of channels with too few weights for a line each [channels, rest]: only what is added, all of them
    together."""
    step = steps[:, :1]
    if error.shape[1] < 2 or not (step > 0).all():
        return {}
    added = error.mean(axis=1, keepdims=True)
    left = float(np.square((error - added) / step).sum() / ((error.shape[1] - 1) * len(error) / 12))
    return {"slope": 1.0, "offset": float(np.median(added / step)), "left": left}


def _like(w: Floats, q: Floats, live: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """A channel whose quantized weights are another's float ones, and not its own."""
    if not 1 < w.shape[0] <= _MOST_LIKE or w.shape[1] < 4:
        return None
    own = np.einsum("ij,ij->i", q - w, q - w)
    bad = np.flatnonzero(live & (own > 0.25 * np.einsum("ij,ij->i", w, w)))
    for channel in bad[:16]:
        distance = np.einsum("ij,ij->i", w - q[channel], w - q[channel])
        other = int(distance.argmin())
        if other != channel and distance[other] < 0.05 * own[channel]:
            return int(channel), other
    return None
