"""Models whose layers keep their weights in any form, made without a run of the converter.

A model that MNN's converter quantized differs from the float .mnn it started from in its operators with weights, and in
nothing else.  Offsets in FlatBuffers are relative.  So a float file with such operators appended to it (see `blob`),
and the offsets of its lists of operators changed to lead there, is that quantized model: what it computes is bit for
bit what the converter's own computes, integer kernels and activations quantized at run time included.

A mixture is for measuring: it carries the float weights too.  Models that are kept come from the converter.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgequant.errors import ToolError
from edgequant.models.flat import Table, fields
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.schema import Convolution2D, Convolution2DCommon, Op
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.encode import Encoded, Form, encode, usable_block
from edgequant.quantize.halves import constants, round_to_halves
from edgequant.quantize.search.blob import blob

Key = tuple[str, str]
"""A layer: (subgraph, name)."""
Choice = Mapping[Key, Form]
"""What each layer becomes; layers left out stay float."""


@dataclass(frozen=True)
class Piece:
    """A layer in one form, in the library: at which byte, how many, and where in them the operator is."""

    start: int
    length: int
    place: int
    payload: int
    error: float


@dataclass
class Mixture:
    """A float model, and a library of its layers in other forms.

    Attributes:
        base: the float model; halved: the same with its constants rounded to half precision, as fp16 has them.
        library: the pieces, one behind the other.
        layers: of the float model, by key, in file order.  The converter knows a layer by subgraph and name, so several
            of one name are one here.
        constants: bytes of the float model's constants, which fp16 keeps in half of that.
    """

    base: Path
    halved: Path
    library: Path
    layers: dict[Key, list[Weights]]
    constants: int
    _base_size: int
    _pieces: dict[tuple[Key, Form], list[Piece]] = field(default_factory=dict)

    def forms(self, key: Key, forms: Iterable[Form]) -> list[Form]:
        """Those of `forms` that differ for this layer: a block it cannot have is none."""
        per_channel = self.layers[key][0].per_channel
        return list(dict.fromkeys(Form(f.bits, usable_block(f.block, per_channel), f.sym, f.hqq) for f in forms))

    def add(self, wanted: Iterable[tuple[Key, Form]]) -> None:
        """Make pieces that are not there yet, each layer's weights read once."""
        todo: dict[Key, list[Form]] = {}
        for key, form in dict.fromkeys(wanted):
            if (key, form) not in self._pieces:
                todo.setdefault(key, []).append(form)
        if not todo:
            return
        with open_net(self.base) as net, open(self.library, "ab") as out:
            for key, forms in todo.items():
                for form in forms:
                    self._pieces[key, form] = []
                for layer in self.layers[key]:
                    op = net.at(layer.place)
                    weights = _float_weights(op, layer)
                    for form in forms:
                        encoded = encode(weights, layer.channels, layer.area, form)
                        self._pieces[key, form].append(_write(out, op, encoded))

    def pieces(self, choice: Choice) -> list[tuple[int, int, int, int]]:
        """(slot in the base, start and length in the library, place of the operator) of all layers that are not float.

        Their pieces have to be there (`add`).
        """
        found = []
        for key, form in choice.items():
            for layer, piece in zip(self.layers[key], self._pieces[key, form], strict=True):
                found.append((layer.slot, piece.start, piece.length, piece.place))
        return found

    def payload(self, key: Key, form: Form | None) -> int:
        """Bytes of a layer's weights and scales; of its float weights where form is None."""
        if form is None:
            return sum(each.payload for each in self.layers[key])
        return sum(piece.payload for piece in self._pieces[key, form])

    def error(self, key: Key, form: Form) -> float:
        """Sum of squares of what a layer's weights lose."""
        return sum(piece.error for piece in self._pieces[key, form])

    def size(self, choice: Choice, *, halved: bool) -> int:
        """About what a conversion of that choice has in bytes, by its weights."""
        saved = sum(self.payload(key, None) - self.payload(key, form) for key, form in choice.items())
        return self._base_size - saved - (self.constants // 2 if halved else 0)


def open_mixture(base: Path, folder: Path) -> Mixture:
    """Prepare mixtures of a float .mnn in a private folder.

    Raises:
        ToolError: MIXTURE_UNKNOWN: its layers have properties that are not known here and would be lost.
    """
    layers: dict[Key, list[Weights]] = {}
    with open_net(base) as net:
        for each in read_weights(base):
            if each.kept == "float" and each.payload:
                _check(net.at(each.place), base)
                layers.setdefault(each.key, []).append(each)
        floats = constants(net)
    halved = folder / "halved.mnn"
    shutil.copyfile(base, halved)
    round_to_halves(halved, [])
    library = folder / "pieces.bin"
    library.write_bytes(b"")
    return Mixture(base, halved, library, layers, 4 * sum(count for _, count in floats), base.stat().st_size)


def _check(op: Table, base: Path) -> None:
    parameter = convolution(op)
    common = parameter.table(Convolution2D.common) if parameter is not None else None
    if (
        parameter is None
        or common is None
        or op.fields > len(fields(Op))
        or parameter.fields > len(fields(Convolution2D))
        or common.fields > len(fields(Convolution2DCommon))
        or any(map(parameter.has, (Convolution2D.symmetric_quan, Convolution2D.sparse_parameter)))
    ):
        raise ToolError(
            "MIXTURE_UNKNOWN",
            "this MNN writes layers with properties that are not known here",
            hint="The search by layers needs another MNN version; plain variants work.",
            where=str(base),
        )


def _float_weights(op: Table, layer: Weights) -> np.ndarray:
    parameter = convolution(op)
    assert parameter is not None
    return np.frombuffer(parameter.raw(Convolution2D.weight), "<f4", layer.payload // 4)


def _write(out: BinaryIO, op: Table, encoded: Encoded) -> Piece:
    content, place = blob(op, encoded)
    start = out.tell()
    out.write(content)
    return Piece(start, len(content), place, encoded.payload, encoded.error)


def assemble(base: bytes, library: BinaryIO, pieces: Iterable[Iterable[int]]) -> bytes:
    """The bytes of a mixture: for those who have to hold it in a file of its own, and for tests."""
    content = bytearray(base)
    for slot, start, length, place in pieces:
        content += b"\0" * (-len(content) % 16)
        struct.pack_into("<I", content, slot, len(content) + place - slot)
        library.seek(start)
        content += library.read(length)
    return bytes(content)
