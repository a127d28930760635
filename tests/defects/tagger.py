"""Small models of text: ids are looked up in a table, a mask says which of them count.

ids int64 [B,T], mask float [B,T] -> tags [B,T,10].  Without a mask there is no float input at all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests.defects.departing import const, value
from tests.generated import save

ROWS, SIZE, TAGS = 200, 32, 10
_node = helper.make_node


def _normal(name: str, *shape: int, scale: float) -> onnx.TensorProto:
    return const(name, scale * np.random.default_rng([*name.encode()]).standard_normal(shape))


def _dense(name: str, given: str, rows: int, columns: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = [_node("MatMul", [given, f"{name}_w"], [f"{name}_m"]), _node("Add", [f"{name}_m", f"{name}_b"], [name])]
    return nodes, [_normal(f"{name}_w", rows, columns, scale=1.4 / rows**0.5), _normal(f"{name}_b", columns, scale=0.2)]


def make(path: Path, *, masked: bool) -> Path:
    """One layer of attention between words that count, then two layers for each word."""
    nodes = [_node("Gather", ["table", "ids"], ["rows"])]
    weights = [_normal("table", ROWS, SIZE, scale=1.0), const("scale", SIZE**-0.5), const("one", 1.0)]
    for name in "qkv":
        more, arrays = _dense(name, "rows", SIZE, SIZE)
        nodes, weights = [*nodes, *more], [*weights, *arrays]
    nodes += [
        _node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        _node("MatMul", ["q", "kt"], ["products"]),
        _node("Mul", ["products", "scale"], ["scores"]),
    ]
    if masked:
        weights += [const("far", 1e4), const("axis", [1], "int64")]
        nodes += [
            _node("Sub", ["mask", "one"], ["absent"]),
            _node("Mul", ["absent", "far"], ["below"]),
            _node("Unsqueeze", ["below", "axis"], ["added"]),
            _node("Add", ["scores", "added"], ["allowed"]),
        ]
    nodes += [
        _node("Softmax", ["allowed" if masked else "scores"], ["shares"], axis=-1),
        _node("MatMul", ["shares", "v"], ["mixed"]),
        _node("Add", ["rows", "mixed"], ["both"]),
    ]
    more, arrays = _dense("hidden", "both", SIZE, 64)
    nodes, weights = [*nodes, *more, _node("Relu", ["hidden"], ["active"])], [*weights, *arrays]
    more, arrays = _dense("tags", "active", 64, TAGS)
    inputs = [value("ids", ["B", "T"], onnx.TensorProto.INT64), *([value("mask", ["B", "T"])] if masked else [])]
    return save(path, [*nodes, *more], inputs, [value("tags", ["B", "T", TAGS])], [*weights, *arrays])


def cases(*, masked: bool) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(12)
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, (batch, length) in enumerate(((1, 24), (2, 17), (1, 24), (3, 40), (1, 9))):
        found[f"c{number}"] = {"ids": rng.integers(0, ROWS, (batch, length))}
        if masked:
            mask = np.ones((batch, length), np.float32)
            for row in range(1, batch):
                mask[row, -3 * row :] = 0
            found[f"c{number}"]["mask"] = mask
    return found
