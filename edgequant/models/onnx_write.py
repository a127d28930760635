"""Writes ONNX models of one operator, without ONNX's own package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgequant.models.onnx_defaults import attribute
from edgequant.models.proto_write import content, number, numbers

_IR_VERSION, _FLOAT = 9, 1


def one_operator(
    kind: str, attributes: Mapping[str, float | int | str], constants: Sequence[np.ndarray], opset: int
) -> bytes:
    """x float32 [R, C] -> y, through one operator whose further inputs are constants (float32)."""
    names = [f"c{place}" for place in range(len(constants))]
    node = b"".join(
        [
            *(content(1, name) for name in ("x", *names)),
            content(2, b"y"),
            content(4, kind),
            *(content(5, attribute(name, value)) for name, value in attributes.items()),
        ]
    )
    graph = b"".join(
        [
            content(1, node),
            content(2, b"g"),
            *(content(5, _constant(name, array)) for name, array in zip(names, constants, strict=True)),
            content(11, _value("x")),
            content(12, _value("y")),
        ]
    )
    return number(1, _IR_VERSION) + content(7, graph) + content(8, number(2, opset))


def _value(name: str) -> bytes:
    """A ValueInfoProto: float32, of two dimensions that are open."""
    shape = b"".join(content(1, content(2, symbol)) for symbol in (b"R", b"C"))
    tensor = number(1, _FLOAT) + content(2, shape)
    return content(1, name) + content(2, content(1, tensor))


def _constant(name: str, array: np.ndarray) -> bytes:
    """A TensorProto: float32."""
    dims = numbers(1, array.shape)
    data = array.astype("<f4").tobytes()
    return dims + number(2, _FLOAT) + content(8, name) + content(9, data)
