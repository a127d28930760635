"""What must not be int8 because MNN's own kernels compute something else there; see `models.mnn.static_int8`.

The file is made so that no kernel known to be wrong on some CPU is used on any: where it will run is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.models.mnn.scale_flow import Flow
from edgequant.models.mnn.static_int8 import odd_groups, read_max_pools
from edgequant.quantize.calibrate.layers import Layer
from edgequant.quantize.calibrate.methods import Quantizer


@dataclass(frozen=True)
class Kernels:
    """What is known to go wrong.  Empty: nothing is avoided.

    Attributes:
        half_tiles: why a layer must not be int8, by its output tensor.
        whole: tensors whose number of values is a multiple of four whatever the input; None: sums of others are int8
            as well.
        max_pools: (input, output) tensors.
    """

    half_tiles: Mapping[str, str]
    whole: frozenset[str] | None
    max_pools: tuple[tuple[str, str], ...]


ANY = Kernels({}, None, ())
"""Every kernel is used, right or wrong."""


def sound(model: Path, layers: Sequence[Layer]) -> Kernels:
    """What to avoid in a float .mnn that `read_model` has accepted."""
    half_tiles = {
        layer.output: f"MNN's int8 kernel for ARM CPUs with i8mm gets {layer.channels} output channels wrong"
        for layer in layers
        if layer.type == "Convolution" and odd_groups(layer.channels, layer.groups)
    }
    whole = frozenset(layer.output for layer in layers if layer.channels % 4 == 0)
    return Kernels(half_tiles, whole, tuple(read_max_pools(model)))


def tailed(kernels: Kernels, flow: Flow, static: Sequence[Layer], described: Collection[str]) -> dict[str, str]:
    """The layers that would make an int8 sum or product of which MNN leaves the end unwritten on ARM, by their output
    tensor, with the reason.

    static: the layers that are int8 so far; described: their tensors.
    """
    reasons: dict[str, str] = {}
    if kernels.whole is None:
        return reasons
    for name, inputs in flow.tails(described, kernels.whole):
        choices = []
        for tensor in inputs:
            near = flow.nearest(tensor, described)
            choices.append([layer.output for layer in static if {layer.input, layer.output} & near])
        # One float input is enough, so that the one is taken which costs fewer layers.
        fewest = min(choices, key=len)
        for output in fewest:
            reasons[output] = f"MNN would not write the end of '{name}', which would be int8, on ARM"
    return reasons


def apart(kernels: Kernels, flow: Flow, adjusted: Mapping[str, Quantizer]) -> dict[str, Quantizer]:
    """Quantizers with which no max pool between two int8 layers is int8: MNN pools in float where its scales differ.

    They differ by the last bit of a float, which moves no value by more than that.  A pool with a scale on one side
    only is int8 all the same: MNN gives the other side the same scale.
    """
    found = dict(adjusted)
    for source, result in kernels.max_pools:
        if result not in found:
            continue
        near = flow.nearest(source, found) - {result}
        while any(found[name][:2] == found[result][:2] for name in near):
            own = found[result]
            found[result] = own._replace(scale=float(np.nextafter(np.float32(own.scale), np.float32(np.inf))))
    return found
