"""Cross-layer equalization: the channels of a tensor between two layers get the same range, without another result.

Between a layer whose output scales with its weights and bias (no activation, or a ReLU) and the convolutions that alone
read it, channel c may be divided by any s_c > 0 if the readers' weights for c are multiplied by it (Nagel et al. 2019,
*Data-Free Quantization Through Weight Equalization and Bias Correction*, section 4.1).  One scale for the whole tensor
then loses as little of a quiet channel as of a loud one.

s_c is the largest magnitude of channel c in the samples, divided by that of the loudest channel: SmoothQuant's formula
(Xiao et al. 2023, equation 4) with all of the difficulty moved to the weights, which have a scale for each output
channel.  Measured on samples, and not on weights alone as by Nagel et al., for it is activations that have one scale.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.errors import EdgequantError, ToolError
from edgequant.models.model import ModelGraph
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.gather import CHUNK, in_parts, run_part
from edgequant.quantize.calibrate.layers import Layer

_LEAST = 2.0**-8
"""A channel quieter than this beside the loudest one was less than half a step of 8 bits; it is lifted no further."""


@dataclass(frozen=True)
class Joint:
    """A tensor of the main graph, the layer that makes it and all that read it."""

    tensor: str
    maker: Layer
    readers: tuple[Layer, ...]


def find_joints(graph: ModelGraph, layers: Sequence[Layer]) -> list[Joint]:
    """The tensors of a float .mnn whose channels can be scaled, in the order they are computed.

    Args:
        graph, layers: of the same file, as `read_model` and `read_layers` tell them.
    """
    # A file made elsewhere may keep equal numbers once: what is changed for one layer would change for all of them.
    places = Counter(place[0] for layer in layers for place in (layer.weight_at, layer.bias_at))
    able = {
        layer.output: layer
        for layer in layers
        if layer.why_not is None and places[layer.weight_at[0]] == places[layer.bias_at[0]] == 1
    }
    readers: dict[str, list[Layer | None]] = defaultdict(list)
    """None: something that is no such layer."""
    for op in graph.ops:
        if op.subgraph is None:
            for name in op.inputs:
                readers[name].append(able.get(op.outputs[0]) if op.outputs else None)
    for spec in graph.outputs or ():
        readers[spec.name].append(None)
    found = []
    for tensor, maker in able.items():
        fit = [each for each in readers[tensor] if each is not None and _reads(each, maker.channels)]
        if not maker.clipped and fit and len(fit) == len(readers[tensor]):
            found.append(Joint(tensor, maker, tuple(fit)))
    return found


def _depthwise(layer: Layer) -> bool:
    return layer.type == "ConvolutionDepthwise"


def _reads(reader: Layer, channels: int) -> bool:
    """Whether it has weights for each of so many input channels."""
    if _depthwise(reader):
        return reader.channels == channels
    return reader.groups == 1 and reader.weight_at[1] % (reader.channels * channels) == 0


def gather_channels(
    model: Path, tensors: Sequence[str], runs: Runs, *, chunk: int = CHUNK
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Largest magnitude of each channel (axis 1) over all samples, float32 [channels], by tensor.

    And tensors that could not be read, with the reason.  Runs as `gather` does, and raises the same.
    """
    out = runs.work / "channels.npz"

    def attempt(names: list[str]) -> dict[str, np.ndarray] | EdgequantError:
        problem = run_part("channels", model, names, runs, out)
        if problem is not None:
            return problem
        try:
            with np.load(out, allow_pickle=False) as arrays:
                found = {name: arrays[str(number)] for number, name in enumerate(names)}
        except (OSError, ValueError, KeyError) as error:
            raise ToolError("CALIBRATION_BAD_ANSWER", f"the channels' ranges cannot be read: {error}") from None
        for name, values in found.items():
            if values.dtype != np.float32 or values.ndim != 1:
                raise ToolError("CALIBRATION_BAD_ANSWER", f"ranges of '{name}' have shape {values.shape}")
        return found

    return in_parts(tensors, chunk, attempt)


def equalized(model: Path, joints: Sequence[Joint], ranges: Mapping[str, np.ndarray], out: Path) -> int:
    """Write a copy of the model with the joints' channels equalized; how many joints are.

    Args:
        joints: of this file.
        ranges: largest magnitude of each channel, by tensor; a joint without is left as it is, as is one whose channels
            are all 0 or whose numbers would overflow.
    """
    data = bytearray(model.read_bytes())
    done = 0
    for joint in joints:
        found = ranges.get(joint.tensor)
        channels = joint.maker.channels
        if found is None or found.shape != (channels,) or not np.isfinite(found).all() or not found.max() > 0:
            continue
        scales = np.maximum(found.astype(np.float64) / float(found.max()), _LEAST)
        scales[found == 0] = 1.0
        maker = joint.maker
        changed = [
            (maker.weight_at, _read(data, maker.weight_at).reshape(channels, -1) / scales[:, None]),
            (maker.bias_at, _read(data, maker.bias_at) / scales),
        ]
        for reader in joint.readers:
            weights = _read(data, reader.weight_at)
            if _depthwise(reader):
                weights = weights.reshape(channels, -1) * scales[:, None]
            else:
                weights = weights.reshape(reader.channels, channels, -1) * scales[None, :, None]
            changed.append((reader.weight_at, weights))
        if all(np.abs(values).max(initial=0) <= np.finfo(np.float32).max for _, values in changed):
            for (position, _), values in changed:
                raw = values.astype("<f4").tobytes()
                data[position : position + len(raw)] = raw
            done += 1
    out.write_bytes(data)
    return done


def _read(data: bytearray, place: tuple[int, int]) -> np.ndarray:
    position, count = place
    return np.frombuffer(data, "<f4", count, position).astype(np.float64)
