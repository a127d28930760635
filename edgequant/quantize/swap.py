"""A quantized .mnn with some of its layers in float again, made without a run of the converter.

The counter-proof of a diagnosis: with only the blamed layers in float the limits have to hold, with all others in float
they still have to break.  The file is the quantized one, byte for byte, with float operators appended to it and the
offsets in its lists of operators changed to lead there.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from edgequant.errors import ToolError
from edgequant.models.flat import Table
from edgequant.models.mnn.net import open_net
from edgequant.models.mnn.schema import Net, TensorDescribe
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.models.model import BrokenFileError
from edgequant.quantize.search.blob import float_blob

Key = tuple[str, str]
"""A layer: (subgraph, name)."""


class Exchange:
    """A copy of `quantized` to which all float layers are appended once; any are chosen by changing a few offsets
    in place, and nothing is written anew.

    Raises:
        ToolError: SWAP_IMPOSSIBLE: one of the files is of a form not known here.
        OSError.
    """

    def __init__(self, quantized: Path, float_model: Path, out: Path) -> None:
        self.path = out
        self._made = read_weights(quantized)
        self._floats: dict[Key, list[tuple[int, int, int]]] = {}
        """Layer -> of each operator of that name: the position of the offset that leads to it, where it is, and where
        its float form is."""
        try:
            with open_net(float_model) as net, open_net(quantized) as here, out.open("wb") as file:
                with quantized.open("rb") as given:
                    shutil.copyfileobj(given, file, 1 << 20)
                plain = {each.key: each for each in read_weights(float_model) if each.kept == "float" and each.payload}
                for layer in self._made:
                    if layer.kept == "float" or layer.key not in plain:
                        continue
                    piece, place = float_blob(net.at(plain[layer.key].place), here.at(layer.place))
                    file.write(b"\0" * (-file.tell() % 16))
                    found = layer.slot, layer.place, file.tell() + place
                    self._floats.setdefault(layer.key, []).append(found)
                    file.write(piece)
                self._described = _Described(here)
        except (BrokenFileError, ValueError) as error:
            raise ToolError("SWAP_IMPOSSIBLE", f"a layer cannot be made float: {error}") from None

    @property
    def layers(self) -> list[Key]:
        """Those that can be chosen, in file order."""
        return list(self._floats)

    def choose(self, layers: Collection[Key]) -> None:
        """Have these layers, and no others, in float.  Of several that share a name, all.

        A tensor's fixed scale goes where no static layer is left that takes or makes the tensor.

        Raises ToolError (SWAP_IMPOSSIBLE) where one is not in both files; OSError.
        """
        wanted = set(layers)
        if lost := wanted - self._floats.keys() - {each.key for each in self._made if each.kept == "float"}:
            raise ToolError("SWAP_IMPOSSIBLE", f"the float model has no layer '{sorted(lost)[0][1]}'")
        out = [each for each in self._made if each.key in wanted and each.key in self._floats]
        with self.path.open("r+b") as file:
            for key, places in self._floats.items():
                for slot, own, other in places:
                    _write(file, slot, (other if key in wanted else own) - slot)
            self._described.keep(file, self._kept(out))

    def _kept(self, out: list[Weights]) -> Callable[[int], bool]:
        gone = {layer.key for layer in out}
        kept = {
            tensor
            for each in self._made
            if each.kept == "static" and not each.subgraph and each.key not in gone
            for tensor in (*each.inputs[:1], *each.outputs)
        }
        touched = {tensor for each in out if not each.subgraph for tensor in (*each.inputs[:1], *each.outputs)}
        return lambda tensor: bool(kept) and (tensor not in touched or tensor in kept)


def _write(file: BinaryIO, at: int, number: int) -> None:
    file.seek(at)
    file.write(struct.pack("<I", number))


class _Described:
    """The list of descriptions of tensors, which shrinks where fixed scales are taken out of it."""

    def __init__(self, net: Table) -> None:
        self._start, self._count = net.extent(Net.extra_tensor_describe)
        self._places = [
            (described.position, described.number(TensorDescribe.index), described.has(TensorDescribe.quant_info))
            for _, described in net.places(Net.extra_tensor_describe)
        ]

    def keep(self, file: BinaryIO, wanted: Callable[[int], bool]) -> None:
        """Those without a scale, and those of tensors (by number) that are wanted."""
        if not self._count:
            return
        left = [place for place, tensor, scaled in self._places if not scaled or wanted(tensor)]
        for number, position in enumerate(left):
            at = self._start + 4 * number
            _write(file, at, position - at)
        _write(file, self._start - 4, len(left))
