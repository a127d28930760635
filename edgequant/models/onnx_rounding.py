"""A copy of an ONNX model that rounds what its layers with weights read to 8 bits, as quantizing while it runs does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgequant.models.onnx_cut import Node, OnnxFile, Value, attribute, tensor
from edgequant.models.proto_write import content

MOST_BYTES = 256 << 20
"""Of a file that is copied."""
_PRODUCTS = ("Gemm", "MatMul", "Einsum")
_LAYERS = ("Conv", "ConvTranspose", *_PRODUCTS, "GRU", "LSTM", "RNN")
_RECURRENT = ("GRU", "LSTM", "RNN")
_BODIES = ("If", "Loop", "Scan", "SequenceMap")
"""Operators that may have layers in them which are not seen here."""
_AXES_ARE_INPUTS = 18
"""The operator set from which on a reduction reads its axes."""
_PREFIX = "edgequant::rounded::"


def round_activations(file: OnnxFile, out: Path, steps: int = 255, *, whole: bool = False) -> int:
    """Write the copy; returns how many layers read what is rounded.  0: nothing was written, for there is no such
    layer, some may be in bodies and branches, or the file is too large.

    Each row that a layer multiplies with its weights (the channels at one place, and for a convolution those of all
    places its kernel lies over) has a scale of its own: x becomes low + step * round((x - low) / step) with step =
    (high - low) / 255.  Depthwise convolutions read floats in MNN, too.  What a recurrent layer hands on to its own
    next step cannot be rounded here; what it reads is rounded to half as many steps in its place.

    steps: between the ends of a range.  whole: one scale for each tensor, with which zero is kept, and depthwise
    convolutions read what is rounded too, as static int8 has it.
    """
    if file.size > MOST_BYTES or any(node.kind in _BODIES for node in file.nodes):
        return 0
    before: dict[int, bytes] = {}
    reads: dict[int, dict[str, str]] = {}
    known: set[str] = set()
    for place, node in enumerate(file.nodes):
        name = _activation(file, node, grouped=whole)
        if name is None:
            continue
        axis, window = (1, _window(node)) if "Conv" in node.kind else (-1, ())
        unit = "coarse" if node.kind in _RECURRENT else "steps"
        own = f"{_PREFIX}{name}::" + (unit if whole else f"{unit}::{axis}::{','.join(map(str, window))}")
        rounding = _by_tensor(name, own, unit) if whole else _by_row(name, own, unit, axis, window, file.opset)
        before[place] = b"" if own in known else rounding
        reads[place] = {name: own}
        known.add(own)
    if not before:
        return 0
    constants = {"steps": steps, "coarse": steps // 2, "half": 0.5, "least": 1e-30}
    stored = [content(5, tensor(_PREFIX + name, np.array(value, np.float32))) for name, value in constants.items()]
    before[min(before)] = b"".join(stored) + before[min(before)]
    file.spliced(before, reads, out)
    return len(before)


def _activation(file: OnnxFile, node: Node, *, grouped: bool) -> str | None:
    """What a layer reads beside its weights; None where it is no such layer."""
    if node.kind not in _LAYERS or len(node.inputs) < 2:
        return None
    if not grouped and "Conv" in node.kind and node.attributes.get("group", 1) != 1:
        sizes = file.sizes(node.inputs[1])
        channels = None if sizes is None else sizes[0] if node.kind == "ConvTranspose" else sizes[1] * _group(node)
        if channels == _group(node):
            return None
    one, two = node.inputs[:2]
    if two in file.constant:
        return None if one in file.constant else one
    return two if one in file.constant and node.kind in _PRODUCTS else None


def _group(node: Node) -> int:
    found = node.attributes.get("group", 1)
    return found if isinstance(found, int) else 1


def _window(node: Node) -> tuple[int, ...]:
    """Places that a convolution's kernel lies over, in each direction; none where that is one."""

    def sizes(name: str) -> tuple[int, ...]:
        found = node.attributes.get(name, ())
        return tuple(int(each) for each in found) if isinstance(found, tuple) else ()

    kernel = sizes("kernel_shape") if node.kind == "Conv" else ()
    dilations = sizes("dilations") or (1,) * len(kernel)
    window = tuple((size - 1) * each + 1 for size, each in zip(kernel, dilations, strict=False))
    return window if any(size > 1 for size in window) else ()


class _Graph:
    """Fields of a graph that make `own` out of others, written one after another."""

    def __init__(self, own: str) -> None:
        self.own = own
        self.pieces: list[bytes] = []

    def node(self, kind: str, *inputs: str, result: str | None = None, **attributes: Value) -> str:
        """Returns the name of what it makes."""
        result = result or f"{self.own}::{len(self.pieces)}"
        fields = [*(content(1, each) for each in inputs), content(2, result), content(4, kind)]
        fields += [content(5, attribute(key, value)) for key, value in attributes.items()]
        self.pieces.append(content(1, b"".join(fields)))
        return result

    def rounded(self, array: str, low: str | None, step: str) -> bytes:
        node = self.node
        moved = node("Sub", array, low) if low else array
        found = node("Mul", node("Round", node("Div", moved, step)), step, result=None if low else self.own)
        if low:
            node("Add", found, low, result=self.own)
        return b"".join(self.pieces)


def _by_tensor(name: str, own: str, unit: str) -> bytes:
    graph = _Graph(own)
    node = graph.node
    largest = node("ReduceMax", node("Abs", name), keepdims=0)
    half = node("Floor", node("Mul", f"{_PREFIX}{unit}", f"{_PREFIX}half"))
    return graph.rounded(name, None, node("Add", node("Div", largest, half), f"{_PREFIX}least"))


def _by_row(name: str, own: str, unit: str, axis: int, window: tuple[int, ...], opset: int) -> bytes:
    graph = _Graph(own)
    node = graph.node

    def largest(of: str) -> str:
        if opset < _AXES_ARE_INPUTS:
            found = node("ReduceMax", of, axes=(axis,), keepdims=1)
        else:
            found = node("ReduceMax", of, f"{own}::axis", keepdims=1)
        return node("MaxPool", found, kernel_shape=window, auto_pad="SAME_UPPER") if window else found

    if opset >= _AXES_ARE_INPUTS:
        graph.pieces.append(content(5, tensor(f"{own}::axis", np.array([axis], np.int64))))
    low, high = node("Neg", largest(node("Neg", name))), largest(name)
    step = node("Add", node("Div", node("Sub", high, low), f"{_PREFIX}{unit}"), f"{_PREFIX}least")
    return graph.rounded(name, low, step)
