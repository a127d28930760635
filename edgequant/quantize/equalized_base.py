"""The float model that a static int8 file was made from, where its channels were equalized first.

Equalization (`calibrate.equalize`) changes weights and no result.  A layer of such a file can only be held against, or
exchanged with, one whose channels have the same factors; the file does not name them, but its weights and biases do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgequant.models import read_model
from edgequant.models.mnn.dequantize import Unpacked, unpacked
from edgequant.models.mnn.net import open_net
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.calibrate.equalize import equalized, find_joints
from edgequant.quantize.calibrate.layers import read_layers

_APART = 0.05
"""A channel's weights are another size than rounding leaves them."""
_MANY = 0.5
"""Of the channels of a tensor: so many are not a fault, but equalization, which leaves only the loudest as they are."""


def equalized_like(quantized: Path, float_model: Path, out: Path) -> bool:
    """Write the float model with the channel factors of `quantized` to `out`; False (and nothing) where it has none.

    Factors come from biases where these are not 0, else from weights, to about one part in a thousand: whatever they
    are, the copy computes what the float model computes.

    Raises InputError (MODEL_BROKEN), OSError.
    """
    if not any(layer.kept == "static" for layer in read_weights(quantized)):
        return False
    joints = find_joints(read_model(float_model), read_layers(float_model))
    have = _unpacked(quantized, {joint.maker.name for joint in joints})
    current, done = float_model, False
    for joint in joints:
        want = _unpacked(current, {joint.maker.name}).get(joint.maker.name)
        scales = None if want is None else _scales(want, have.get(joint.maker.name))
        if scales is not None and equalized(current, [joint], {joint.tensor: scales}, out):
            current, done = out, True
    return done


def _unpacked(path: Path, names: set[str]) -> dict[str, Unpacked]:
    with open_net(path) as net:
        found = {
            layer.name: unpacked(net.at(layer.place), layer)
            for layer in read_weights(path)
            if layer.name in names and not layer.subgraph
        }
    return {name: each for name, each in found.items() if each is not None}


def _scales(want: Unpacked, have: Unpacked | None) -> np.ndarray | None:
    """float32 [channels], the largest 1; None where it was not equalized."""
    if have is None or want.weights.shape != have.weights.shape:
        return None
    power = np.einsum("ij,ij->i", want.weights, want.weights)
    both = np.einsum("ij,ij->i", want.weights, have.weights)
    good = (power > 0) & (both > 0)
    if not good.any():
        return None
    scales = np.where(good, power / np.where(good, both, 1.0), 1.0)
    if want.bias.size and have.bias.size:
        told = np.abs(want.bias) > 1e-3 * max(float(np.abs(want.bias).max()), 1e-30)
        told &= (have.bias != 0) & (np.sign(have.bias) == np.sign(want.bias))
        scales = np.where(told, want.bias / np.where(told, have.bias, 1.0), scales)
    if (np.abs(scales - 1) > _APART).mean() < _MANY:
        return None
    return np.asarray(scales / scales.max(), np.float32)
