"""A small model whose outputs are in small units, and cases for it.

x [1,8,S] -> drift [1,5,S], of some 1e-6 (a track in metres a step, say), and rate [1,3], of some 1e-4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.generated import save

SIZES = (40, 57, 40, 100, 64)
_node, _float = helper.make_node, onnx.TensorProto.FLOAT


def _weights(name: str, scale: float, *shape: int) -> onnx.TensorProto:
    values = scale * np.random.default_rng([*name.encode()]).standard_normal(shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def make(path: Path) -> Path:
    nodes = [
        _node("Conv", ["x", "w0", "b0"], ["c0"], name="conv0", kernel_shape=[5], pads=[2, 2]),
        _node("Relu", ["c0"], ["r0"]),
        _node("Conv", ["r0", "w1", "b1"], ["c1"], name="conv1", kernel_shape=[5], pads=[2, 2]),
        _node("Tanh", ["c1"], ["r1"]),
        _node("Conv", ["r1", "wt", "bt"], ["t"], name="track", kernel_shape=[1]),
        _node("Mul", ["t", "micro"], ["drift"]),
        _node("ReduceMean", ["r1"], ["mean"], axes=[2], keepdims=0),
        _node("Gemm", ["mean", "wg", "bg"], ["g"], name="whole", transB=1),
        _node("Mul", ["g", "tenth"], ["rate"]),
    ]
    weights = [
        _weights("w0", 0.22, 48, 8, 5), _weights("b0", 0.2, 48), _weights("w1", 0.09, 48, 48, 5),
        _weights("b1", 0.2, 48),
        _weights("wt", 0.14, 5, 48, 1), _weights("bt", 0.05, 5), _weights("wg", 0.14, 3, 48), _weights("bg", 0.05, 3),
        numpy_helper.from_array(np.float32(4e-6), "micro"), numpy_helper.from_array(np.float32(2e-4), "tenth"),
    ]  # fmt: skip
    outputs = [
        helper.make_tensor_value_info("drift", _float, [1, 5, "S"]),
        helper.make_tensor_value_info("rate", _float, [1, 3]),
    ]
    return save(path, nodes, [helper.make_tensor_value_info("x", _float, [1, 8, "S"])], outputs, weights)


def cases() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(12)
    found = {}
    for number, size in enumerate(SIZES):
        noise = rng.standard_normal((1, 8, size + 4))
        smooth = sum(noise[:, :, shift : shift + size] for shift in range(5)) / 5**0.5
        found[f"c{number}"] = {"x": np.asarray(smooth, np.float32)}
    return found
