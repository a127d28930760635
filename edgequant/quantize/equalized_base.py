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

_FAR = 0.5
"""(ln) Between what makes a channel and what reads it: the maker is exact where it is sound, the reader never."""


def equalized_like(quantized: Path, float_model: Path, out: Path) -> bool:
    """Write the float model with the channel factors of `quantized` to `out`; False (and nothing) where it has none.

    Factors come from biases where these are not 0, else from the maker's weights, to about one part in a thousand; from
    the reader's, where the two contradict each other.  Whatever they are, the copy computes what the float model does.

    Raises InputError (MODEL_BROKEN), OSError.
    """
    if not any(layer.kept == "static" for layer in read_weights(quantized)):
        return False
    joints = find_joints(read_model(float_model), read_layers(float_model))
    names = {each.name for joint in joints for each in (joint.maker, *joint.readers)}
    have = _unpacked(quantized, names)
    current, done = float_model, False
    for joint in joints:
        wanted = _unpacked(current, {joint.maker.name, joint.readers[0].name})
        want, reader = wanted.get(joint.maker.name), joint.readers[0]
        read = None
        if reader.type == "Convolution" and reader.name in wanted and reader.name in have:
            read = _read(wanted[reader.name], have[reader.name], joint.maker.channels)
        scales = None if want is None else _scales(want, have.get(joint.maker.name), read)
        if scales is not None and equalized(current, [joint], {joint.tensor: scales}, out):
            current, done = out, True
    return done


def _unpacked(path: Path, names: set[str]) -> dict[str, Unpacked]:
    with open_net(path) as net:
        found = {
            layer.name: unpacked(net, layer)
            for layer in read_weights(path)
            if layer.name in names and not layer.subgraph
        }
    return {name: each for name, each in found.items() if each is not None}


def _read(want: Unpacked, have: Unpacked, channels: int) -> np.ndarray | None:
    """The factors of the channels a layer reads, up to one of all of them: what its weights for a channel have more of
    than its others, in the median over its own output channels.  A fault in some of these changes no median."""
    if want.weights.shape != have.weights.shape or want.weights.shape[1] % channels:
        return None
    w, q = (each.weights.reshape(each.weights.shape[0], channels, -1) for each in (want, have))
    power, both = np.einsum("ock,ock->oc", w, w), np.einsum("ock,ock->oc", w, q)
    good = (both > 0) & (power > 0.25 * power.mean(axis=1, keepdims=True))
    if not good.any(axis=0).all() or not good.any(axis=1).all():
        return None
    gains = np.where(good, np.log(np.where(good, both / np.where(good, power, 1.0), 1.0)), np.nan)
    for _ in range(3):
        gains = gains - np.nanmedian(gains, axis=1, keepdims=True)
        found = np.nanmedian(gains, axis=0)
        gains = np.where(good, gains - found, np.nan) + found
    return np.asarray(np.exp(found))


def _scales(want: Unpacked, have: Unpacked | None, read: np.ndarray | None) -> np.ndarray | None:
    """float32 [channels], the largest 1; None where it was not equalized."""
    if have is None or want.weights.shape != have.weights.shape:
        return None
    power = np.einsum("ij,ij->i", want.weights, want.weights)
    both = np.einsum("ij,ij->i", want.weights, have.weights)
    good = (power > 0) & (both > 0)
    if not good.any():
        return None
    scales = np.where(good, power / np.where(good, both, 1.0), 1.0)
    if read is not None:
        read = read * float(np.median(scales[good] / read[good]))
        far = good & (np.abs(np.log(np.where(good, scales / read, 1.0))) > _FAR)
        scales = np.where(far, read, scales)
    if want.bias.size and have.bias.size:
        told = np.abs(want.bias) > 1e-3 * max(float(np.abs(want.bias).max()), 1e-30)
        told &= (have.bias != 0) & (np.sign(have.bias) == np.sign(want.bias))
        scales = np.where(told, want.bias / np.where(told, have.bias, 1.0), scales)
    if (np.abs(scales - 1) > _APART).mean() < _MANY:
        return None
    return np.asarray(scales / scales.max(), np.float32)
