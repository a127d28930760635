"""Models mixed from several conversions of one source, without a run of the converter.

MNN's converter gives every conversion of one float .mnn the same operators in the same order over the same tensors;
only the operators with weights differ.  Offsets in FlatBuffers are relative, so a file that holds the float model and
the conversions one after the other is a float model with the others as unreachable bytes; and writing one offset makes
it use a layer of any of them, as it is there.  What such a mixture computes is bit for bit what a conversion with
these layers computes, integer kernels and activations quantized at run time included.

A mixture is for measuring: it carries the bytes of all its parts.  Models that are kept come from the converter.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgequant.errors import ToolError
from edgequant.quantize.weights import Weights, read_weights

_ALIGN = 64
_LIMIT = 2**31 - 1
"""Bytes a FlatBuffers file may have."""

Key = tuple[str, str]
"""A layer: (subgraph, name)."""
FLOAT = "float"
Choice = Mapping[Key, str]
"""What each layer is taken from: a part's label, or `FLOAT`.  Layers left out are float."""


@dataclass(frozen=True)
class Mixture:
    """A float model and conversions of it in one file.

    Attributes:
        path: the file; as it is, the float model.
        layers: of the float model, by key, in file order.  The converter knows a layer by subgraph and name, so several
            of one name are one here.
        places: of each part's label, where its layers are in the file.
        payloads: of each part's label (and `FLOAT`), bytes of weights and scales of its layers.
        base: bytes of the float file without its layers' weights.
    """

    path: Path
    layers: dict[Key, list[Weights]]
    places: dict[str, dict[Key, list[int]]]
    payloads: dict[str, dict[Key, int]]
    base: int

    def patches(self, choice: Choice) -> list[tuple[int, int]]:
        """(position, number) pairs to write as little-endian uint32, of all layers, so that it becomes `choice`."""
        found = []
        for key, layers in self.layers.items():
            label = choice.get(key, FLOAT)
            places = [each.place for each in layers] if label == FLOAT else self.places[label][key]
            found += [(each.slot, place - each.slot) for each, place in zip(layers, places, strict=True)]
        return found

    def size(self, choice: Choice) -> int:
        """Bytes a conversion of that choice will have, by the bytes of its layers."""
        return self.base + sum(self.payloads[choice.get(key, FLOAT)][key] for key in self.layers)


def mix(base: Path, parts: Mapping[str, Path], out: Path) -> Mixture:
    """Write `out`: the float model `base` and conversions of it.

    Raises:
        ToolError: MIXTURE_UNLIKE: a part is no conversion of this very file; MIXTURE_TOO_LARGE.
    """
    layers = by_key(base)
    total = base.stat().st_size + sum(path.stat().st_size + _ALIGN for path in parts.values())
    if total > _LIMIT:
        raise ToolError(
            "MIXTURE_TOO_LARGE",
            f"the model and what it is compared with are {total >> 20} MiB, more than one file can hold",
            hint="Give fewer candidates.",
        )
    places: dict[str, dict[Key, list[int]]] = {}
    payloads = {FLOAT: _payloads(layers)}
    with open(out, "wb") as file:
        _append(base, file)
        for label, path in parts.items():
            found = by_key(path)
            if _shapes(found) != _shapes(layers):
                raise ToolError(
                    "MIXTURE_UNLIKE",
                    f"the conversion {label} has other layers than the float model it was made from",
                    hint="This MNN rearranges models while it quantizes them; the search needs another version.",
                )
            start = file.tell()
            start += -start % _ALIGN
            file.write(b"\0" * (start - file.tell()))
            _append(path, file)
            places[label] = {key: [start + each.place for each in group] for key, group in found.items()}
            payloads[label] = _payloads(found)
    return Mixture(out, layers, places, payloads, base.stat().st_size - sum(payloads[FLOAT].values()))


def by_key(path: Path) -> dict[Key, list[Weights]]:
    """The layers of a .mnn by subgraph and name."""
    found: dict[Key, list[Weights]] = {}
    for each in read_weights(path):
        found.setdefault(each.key, []).append(each)
    return found


def _payloads(layers: Mapping[Key, list[Weights]]) -> dict[Key, int]:
    return {key: sum(each.payload for each in group) for key, group in layers.items()}


def _shapes(layers: Mapping[Key, list[Weights]]) -> list[tuple[object, ...]]:
    return [
        (each.key, each.type, each.inputs, each.outputs, each.channels, each.per_channel)
        for group in layers.values()
        for each in group
    ]


def _append(path: Path, file: BinaryIO) -> None:
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
