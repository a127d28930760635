"""Weights of a .mnn as numbers again: what each layer of a quantized file has, beside the float ones.

The form of packed weights is told by `quantize.encode`, which writes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, IDSTQuanType
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.models.model import BrokenFileError

Floats = npt.NDArray[np.float64]
_MOST_LIKE = 8192
"""Channels up to which those that are far off are looked for among the others."""


@dataclass(frozen=True)
class Unpacked:
    """weights: float64 [channels, rest].  steps: of each element's scale, the same shape; zeros where float.  bias:
    float64 [channels], or empty."""

    weights: Floats
    steps: Floats
    bias: Floats


def unpacked(op: Table, layer: Weights) -> Unpacked | None:
    """None where it is kept in a way that is not known here.  Raises BrokenFileError."""
    parameter = convolution(op)
    if parameter is None or layer.channels <= 0:
        return None
    bias = np.frombuffer(parameter.raw(Convolution2D.bias), "<f4").astype(np.float64)
    bias = bias if bias.size == layer.channels else np.zeros(0)
    plain = np.frombuffer(parameter.raw(Convolution2D.weight), "<f4").astype(np.float64)
    quant = parameter.table(Convolution2D.quan_parameter)
    if plain.size and plain.size % layer.channels == 0:
        rows = plain.reshape(layer.channels, -1)
        return Unpacked(rows, np.zeros_like(rows), bias)
    if quant is None:
        return None
    raw = quant.raw(IDSTQuan.buffer)
    if quant.number(IDSTQuan.type) == IDSTQuanType.FP16:
        halves = np.frombuffer(raw, "<f2").astype(np.float64)
        if not halves.size or halves.size % layer.channels:
            return None
        rows = halves.reshape(layer.channels, -1)
        return Unpacked(rows, np.zeros_like(rows), bias)
    codes = _codes(raw, wide=bool(quant.number(IDSTQuan.shape_int32)))
    scales = np.frombuffer(quant.raw(IDSTQuan.alpha), "<f4").astype(np.float64)
    if codes is None or not scales.size:
        return None
    groups = scales.size if layer.sym else scales.size // 2
    if not groups or codes.size % groups or codes.size % layer.channels or groups % layer.channels:
        return None
    rows = codes.reshape(groups, -1)
    if layer.sym:
        step, start = scales, np.zeros(groups)
    else:
        start, step = scales[0::2], scales[1::2]
        rows = rows - quant.number(IDSTQuan.a_min)
    weights = rows * step[:, None] + start[:, None]
    steps = np.broadcast_to(np.abs(step)[:, None], rows.shape)
    return Unpacked(weights.reshape(layer.channels, -1), steps.reshape(layer.channels, -1), bias)


def _codes(raw: bytes, *, wide: bool) -> Floats | None:
    """What each code means, before scale and zero point."""
    if len(raw) < 3:
        return None
    dims = raw[0]
    at = 1 + dims * (4 if wide else 2)
    sizes = np.frombuffer(raw, "<u4" if wide else "<u2", dims, 1)
    if dims == 0 or len(raw) <= at:
        return None
    count = raw[at] or 256
    values = np.frombuffer(raw, "<i1", count, at + 1).astype(np.float64) if len(raw) >= at + 1 + count else None
    bits = max(1, math.ceil(math.log2(count)))
    total = int(np.prod(sizes.astype(np.int64)))
    packed = np.frombuffer(raw, np.uint8, -1, at + 1 + count) if values is not None else None
    if values is None or packed is None or packed.size * 8 < total * bits:
        return None
    if bits == 8:
        return np.asarray(values[np.minimum(packed[:total], count - 1)])
    each = np.unpackbits(packed)[: total * bits].reshape(total, bits)
    index = each @ (1 << np.arange(bits - 1, -1, -1))
    return np.asarray(values[np.minimum(index, count - 1)])


def weight_facts(quantized: Path, float_model: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """By layer: the fields of `archive.layers.WeightFacts`.  Raises InputError (MODEL_BROKEN)."""
    plain = {each.key: each for each in read_weights(float_model)}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with open_net(quantized) as net, open_net(float_model) as other:
        for layer in read_weights(quantized):
            told: dict[str, Any] = {
                "kept": layer.kept, "bits": layer.bits, "block": layer.block, "sym": layer.sym,
                "channels": layer.channels,
            }  # fmt: skip
            found[layer.key] = told
            if layer.key not in plain:
                continue
            try:
                want, have = (
                    unpacked(other.at(plain[layer.key].place), plain[layer.key]),
                    unpacked(net.at(layer.place), layer),
                )
            except (BrokenFileError, ValueError):
                continue
            if want is not None and have is not None and want.weights.shape == have.weights.shape:
                told.update(_compared(want, have))
    return found


def _compared(want: Unpacked, have: Unpacked) -> dict[str, Any]:
    w, q = want.weights, have.weights
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
        told.update(excess=float(excess.max()), excess_channel=int(excess.argmax()))
        gain = np.where(live, np.einsum("ij,ij->i", w, q) / np.maximum(signal, 1e-300), 1.0)
        far = int(np.abs(gain - 1).argmax())
        told.update(gain=float(gain[far]), gain_channel=far)
        told["zero_channels"] = tuple(int(c) for c in np.flatnonzero(live & ~q.any(axis=1))[:100])
        largest = np.abs(w).max(axis=1)
        told["range_ratio"] = float(largest.max() / max(float(np.median(largest[live])), 1e-300))
        # Of each element's own group: where a block shares a scale, one large weight spoils only that.
        rms = np.sqrt(signal / w.shape[1])
        told["peak"] = float((largest[live] / np.maximum(rms[live], 1e-300)).max())
        told["like"] = _like(w, q, live)
    if have.steps.any():
        told["one_scale"] = bool(w.shape[0] > 1 and np.ptp(have.steps) <= 1e-6 * have.steps.max())
    if want.bias.size and np.abs(want.bias).max() > 0:
        bias = have.bias if have.bias.size else np.zeros_like(want.bias)
        told["bias_gap"] = float(np.abs(bias - want.bias).max() / np.abs(want.bias).max())
        told["bias_zero"] = not bias.any()
    return told


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
