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

import mmap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.errors import EdgequantError, ToolError
from edgequant.graph.flat import FlatFile, Table
from edgequant.graph.model import ModelGraph
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.gather import CHUNK, in_parts, run_part
from edgequant.quantize.calibrate.layers import Layer

_NET_OPS, _NET_TENSORS, _NET_SUBGRAPHS = 3, 7, 10
_SUB_NODES = 4
_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_OUTPUTS = 0, 1, 2, 4
_CONV_PARAMETERS = 9
_CONV_COMMON, _CONV_WEIGHT, _CONV_BIAS = 0, 1, 2
_COMMON_RELU6 = 13
_LEAST = 2.0**-8
"""A channel quieter than this beside the loudest one was less than half a step of 8 bits; it is lifted no further."""


@dataclass(frozen=True)
class _Floats:
    """Where a layer's numbers are in its file: (position in bytes, number of float32)."""

    layer: Layer
    weight: tuple[int, int]
    bias: tuple[int, int]

    @property
    def depthwise(self) -> bool:
        return self.layer.type == "ConvolutionDepthwise"


@dataclass(frozen=True)
class Joint:
    """A tensor of the main graph, the layer that makes it and all that read it."""

    tensor: str
    maker: _Floats
    readers: tuple[_Floats, ...]


def find_joints(model: Path, graph: ModelGraph, layers: Sequence[Layer]) -> list[Joint]:
    """The tensors of a float .mnn whose channels can be scaled, in the order they are computed.

    Args:
        model: a file that `read_model` has read as `graph`, and `read_layers` as `layers`.
    """
    able = {layer.output: layer for layer in layers if layer.why_not is None}
    readers: dict[str, list[str | None]] = defaultdict(list)
    """Output tensors of the layers that read it; None: something else does."""
    for op in graph.ops:
        if op.subgraph is None:
            for name in op.inputs:
                readers[name].append(op.outputs[0] if op.outputs and op.outputs[0] in able else None)
    for spec in graph.outputs or ():
        readers[spec.name].append(None)
    found = {}
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        names = net.strings(_NET_TENSORS)
        floats: dict[str, _Floats] = {}
        clipped = set()
        for made in net.tables(_NET_OPS):
            output = _first(made, _OP_OUTPUTS, names)
            parameter = made.table(_OP_MAIN)
            if output not in able or parameter is None or _first(made, _OP_INPUTS, names) != able[output].input:
                continue
            weight, bias = parameter.extent(_CONV_WEIGHT, 4), parameter.extent(_CONV_BIAS, 4)
            floats[output] = _Floats(able[output], weight, bias)
            common = parameter.table(_CONV_COMMON)
            if common is None or common.number(_COMMON_RELU6, "b"):
                clipped.add(output)  # what is clipped at 6 does not scale
        # A file made elsewhere may keep equal numbers once: what is changed for one layer would change for all of them.
        places = Counter(place[0] for op in net.tables(_NET_OPS) for place in _places(op))
        for subgraph in net.tables(_NET_SUBGRAPHS):
            places.update(place[0] for op in subgraph.tables(_SUB_NODES) for place in _places(op))
        floats = {name: each for name, each in floats.items() if places[each.weight[0]] == places[each.bias[0]] == 1}
        for tensor, maker in floats.items():
            behind = [floats.get(name) if name is not None else None for name in readers[tensor]]
            fit = [each for each in behind if each is not None and _reads(each, maker.layer.channels)]
            if tensor not in clipped and fit and len(fit) == len(behind):
                found[tensor] = Joint(tensor, maker, tuple(fit))
    return list(found.values())


def _places(op: Table) -> list[tuple[int, int]]:
    """Where an operator's weights and bias are, if it has some."""
    parameter = op.table(_OP_MAIN) if op.number(_OP_KIND, "B") == _CONV_PARAMETERS else None
    return [] if parameter is None else [parameter.extent(field, 4) for field in (_CONV_WEIGHT, _CONV_BIAS)]


def _first(op: Table, field: int, names: Sequence[str]) -> str:
    indexes = op.numbers(field)
    return names[indexes[0]] if indexes and 0 <= indexes[0] < len(names) else ""


def _reads(reader: _Floats, channels: int) -> bool:
    """Whether it has weights for each of so many input channels."""
    if reader.depthwise:
        return reader.layer.channels == channels
    return reader.layer.groups == 1 and reader.weight[1] % (reader.layer.channels * channels) == 0


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
        channels = joint.maker.layer.channels
        if found is None or found.shape != (channels,) or not np.isfinite(found).all() or not found.max() > 0:
            continue
        scales = np.maximum(found.astype(np.float64) / float(found.max()), _LEAST)
        scales[found == 0] = 1.0
        maker = joint.maker
        changed = [
            (maker.weight, (_read(data, maker.weight).reshape(channels, -1) / scales[:, None])),
            (maker.bias, _read(data, maker.bias) / scales),
        ]
        for reader in joint.readers:
            weights = _read(data, reader.weight)
            if reader.depthwise:
                changed.append((reader.weight, weights.reshape(channels, -1) * scales[:, None]))
            else:
                changed.append(
                    (reader.weight, weights.reshape(reader.layer.channels, channels, -1) * scales[None, :, None])
                )
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
