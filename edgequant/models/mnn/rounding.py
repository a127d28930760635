"""What quantizing took from each layer's weights, held against what rounding takes: the made file beside the float one.

A row of weights has a scale that follows from its range, and rounding moves no weight by more than half of that.  So
nothing has to be run, and every row of every layer is looked at by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.errors import InputError
from edgequant.models.mnn.net import open_net
from edgequant.models.mnn.unpack import Floats, Values, values
from edgequant.models.mnn.weights import Kept, Weights, read_weights
from edgequant.models.model import BrokenFileError

MOST_OF_ONE, MOST_OF_ALL = 1 << 23, 1 << 26
"""Weights in a layer, and in a model, that are looked at: of 200 MB at once, in a few seconds."""
LEAST_SCALE = 1.01e-6
"""MNN writes a row with a scale of 1e-6 or less as one value (IDSTEncoder.hpp)."""
FAR = 1e6
"""Steps; no more are told, also where there is nothing to round."""
_OFF = 1e-3
_HALF, _LEAST_HALF, _MOST_HALF = 2.0**-10, 6e-8, np.float32(65504)
"""What half precision cuts off, of a number and at least, and where it ends."""


@dataclass(frozen=True)
class Rounded:
    """One layer.

    Attributes:
        layer, subgraph: the operator and its graph; kept, bits, block, sym: as `Weights` has them.
        scale: that of the row whose scale is farthest from what its range gives, as a share of that.
        error: of the weight that is farthest from what it was, in steps as the range gives them; of half precision in
            twice what it may cut off; `FAR` where a float weight is another.
        row: where that is: the one with the scale, if it is off by a thousandth, else the one with the error.
        bias: largest change of the bias, as a share of its largest value.
    """

    layer: str
    subgraph: str
    kept: Kept
    bits: int
    block: int | None
    sym: bool
    scale: float
    error: float
    row: int
    bias: float


def rounded(float_model: Path, made: Path) -> list[Rounded] | None:
    """What became of each layer; None where the files have other layers.  Left out are layers whose weights are kept
    in a way that is not read here (sparse, in a file beside it), or are too many.

    Raises InputError (MODEL_BROKEN).
    """
    before, after = read_weights(float_model), read_weights(made)
    if [each.key for each in before] != [each.key for each in after]:
        return None
    found: list[Rounded] = []
    left = MOST_OF_ALL
    try:
        with open_net(float_model) as one, open_net(made) as two:
            for then, now in zip(before, after, strict=True):
                count = then.channels * then.per_channel * then.area
                if count > min(MOST_OF_ONE, left):
                    continue
                left -= count
                was, has = values(one, then), values(two, now)
                if was is None or has is None or was.weights.size != has.weights.size:
                    continue
                if np.isfinite(was.weights).all() and np.isfinite(was.bias).all():  # else rounding is not defined
                    found.append(_held(now, was, has))
    except (BrokenFileError, ValueError) as error:
        raise InputError("MODEL_BROKEN", f"its weights cannot be read: {error}", where=str(made)) from None
    return found


def _held(layer: Weights, was: Values, has: Values) -> Rounded:
    weights = was.weights.reshape(has.weights.shape)
    if layer.kept == "fp16":
        weights = np.clip(weights, -_MOST_HALF, _MOST_HALF)
    error = np.nan_to_num(np.abs(has.weights - weights), nan=np.inf)
    off = np.ones(len(weights))
    if has.scale is None:
        steps = 2 * (_HALF * np.abs(weights) + _LEAST_HALF) if layer.kept == "fp16" else np.zeros_like(weights)
    else:
        scale = _scale(weights, layer.bits, sym=layer.sym)
        if layer.kept == "static" and layer.type == "ConvolutionDepthwise":
            scale = np.maximum(scale, has.scale)  # as large as its bias needs, which is added up in whole numbers
        live = scale > LEAST_SCALE
        off[live] = np.nan_to_num(has.scale[live] / scale[live], nan=FAR, posinf=FAR)
        # All of such a row may be gone, which is half of this at most.
        span = 2 * np.maximum(np.ptp(weights, axis=1), np.abs(weights).max(axis=1))
        steps = np.where(live, scale, span)[:, None]
    within = error <= np.finfo(np.float32).eps * np.abs(weights)
    apart = np.where(within, 0.0, error / np.maximum(steps, np.finfo(np.float32).tiny))
    far, most = np.abs(np.log(np.maximum(off, 1 / FAR))), apart.max(axis=1, initial=0.0)
    row = int(np.argmax(far if far.max(initial=0.0) > _OFF else most)) if len(weights) else 0
    return Rounded(
        layer.name, layer.subgraph, layer.kept, layer.bits, layer.block, layer.sym,
        float(np.clip(off[row], -FAR, FAR)), min(float(most.max(initial=0.0)), FAR),
        row * layer.channels // max(1, len(weights)),
        _bias(was.bias, has.bias),
    )  # fmt: skip


def _scale(rows: Floats, bits: int, *, sym: bool) -> Floats:
    """What the range of each row gives."""
    if sym:
        return np.asarray(np.abs(rows).max(axis=1) / np.float32(2 ** (bits - 1) - 1))
    return np.asarray((rows.max(axis=1) - rows.min(axis=1)) / np.float32(2**bits - 1))


def _bias(was: Floats, has: Floats) -> float:
    if was.shape != has.shape:
        return 1.0
    size = float(np.abs(was).max(initial=0.0))
    change = min(float(np.nan_to_num(np.abs(has - was), nan=np.inf).max(initial=0.0)), float(FAR))
    return min(change / size, FAR) if size else change
