"""A quantized .mnn with some of its layers in float again, made without a run of the converter.

The counter-proof of a diagnosis: with only the blamed layers in float the limits have to hold, with all others in float
they still have to break.  The file is the quantized one, byte for byte, with float operators appended to it and the
offsets in its lists of operators changed to lead there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.net import open_net
from edgequant.models.mnn.schema import Net, TensorDescribe
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.models.model import BrokenFileError
from edgequant.quantize.search.blob import float_blob

Key = tuple[str, str]
"""A layer: (subgraph, name)."""


def swappable(quantized: Path, float_model: Path) -> list[Key]:
    """The layers of `quantized` that `with_float` can make float again, in file order."""
    plain = {each.key for each in read_weights(float_model) if each.kept == "float" and each.payload}
    made = [each for each in read_weights(quantized) if each.kept != "float"]
    return list(dict.fromkeys(each.key for each in made if each.key in plain))


def with_float(quantized: Path, float_model: Path, layers: Collection[Key]) -> bytes:
    """The bytes of `quantized` with these layers as `float_model` has them.

    A tensor's fixed scale goes where no static layer is left that takes or makes the tensor.

    Raises:
        ToolError: SWAP_IMPOSSIBLE: a layer is not in both files, or one of them is of a form not known here.
    """
    wanted = set(layers)
    try:
        with open_net(float_model) as net:
            plain = {
                each.key: net.at(each.place)
                for each in read_weights(float_model)
                if each.kept == "float" and each.payload and each.key in wanted
            }
            data = quantized.read_bytes()
            made = read_weights(quantized)
            if lost := wanted - plain.keys() - {each.key for each in made if each.kept == "float"}:
                raise ToolError("SWAP_IMPOSSIBLE", f"the float model has no layer '{sorted(lost)[0][1]}'")
            return _swapped(data, plain, [each for each in made if each.key in plain], made)
    except (BrokenFileError, ValueError) as error:
        raise ToolError("SWAP_IMPOSSIBLE", f"a layer cannot be made float: {error}") from None


def _swapped(data: bytes, plain: dict[Key, Table], out: list[Weights], made: list[Weights]) -> bytes:
    content = bytearray(data)
    net = FlatFile(data).root()
    for layer in out:
        piece, place = float_blob(plain[layer.key], net.at(layer.place))
        content += b"\0" * (-len(content) % 16)
        struct.pack_into("<I", content, layer.slot, len(content) + place - layer.slot)
        content += piece
    gone = {layer.key for layer in out}
    kept = {
        tensor
        for each in made
        if each.kept == "static" and not each.subgraph and each.key not in gone
        for tensor in (*each.inputs[:1], *each.outputs)
    }
    touched = {tensor for each in out if not each.subgraph for tensor in (*each.inputs[:1], *each.outputs)}
    everything = not kept
    _drop_scales(content, net, lambda tensor: everything or (tensor in touched and tensor not in kept))
    return bytes(content)


def _drop_scales(content: bytearray, net: Table, dropped: Callable[[int], bool]) -> None:
    """Take descriptions out of the list of them, whose length shrinks."""
    start, count = net.extent(Net.extra_tensor_describe)
    if not count:
        return
    left = []
    for _, described in net.places(Net.extra_tensor_describe):
        gone = described.has(TensorDescribe.quant_info) and dropped(described.number(TensorDescribe.index))
        if not gone:
            left.append(described.position)
    for number, position in enumerate(left):
        at = start + 4 * number
        struct.pack_into("<I", content, at, position - at)
    struct.pack_into("<I", content, start - 4, len(left))
