"""Writes ONNX models of one operator, without ONNX's own package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgequant.models.onnx_defaults import attribute_field, bytes_field, number_field

_IR_VERSION, _FLOAT = 9, 1


def one_operator(
    kind: str, attributes: Mapping[str, float | int | str], constants: Sequence[np.ndarray], opset: int
) -> bytes:
    """x float32 [R, C] -> y, through one operator whose further inputs are constants (float32)."""
    names = [f"c{number}" for number in range(len(constants))]
    node = b"".join(
        [
            *(bytes_field(1, name.encode()) for name in ("x", *names)),
            bytes_field(2, b"y"),
            bytes_field(4, kind.encode()),
            *(bytes_field(5, attribute_field(name, value)) for name, value in attributes.items()),
        ]
    )
    graph = b"".join(
        [
            bytes_field(1, node),
            bytes_field(2, b"g"),
            *(bytes_field(5, _constant(name, array)) for name, array in zip(names, constants, strict=True)),
            bytes_field(11, _value("x")),
            bytes_field(12, _value("y")),
        ]
    )
    return number_field(1, _IR_VERSION) + bytes_field(7, graph) + bytes_field(8, number_field(2, opset))


def _value(name: str) -> bytes:
    """A ValueInfoProto: float32, of two dimensions that are open."""
    shape = b"".join(bytes_field(1, bytes_field(2, symbol)) for symbol in (b"R", b"C"))
    tensor = number_field(1, _FLOAT) + bytes_field(2, shape)
    return bytes_field(1, name.encode()) + bytes_field(2, bytes_field(1, tensor))


def _constant(name: str, array: np.ndarray) -> bytes:
    """A TensorProto: float32."""
    dims = b"".join(number_field(1, size) for size in array.shape)
    data = array.astype("<f4").tobytes()
    return dims + number_field(2, _FLOAT) + bytes_field(8, name.encode()) + bytes_field(9, data)
