"""A small model with an output of every sort that is judged in its own way, and cases for it.

x [1,16,S] -> y [1,64,S] (features), p [1,12,S] (softmax), label [1,S] (int64), box [1,5,S] (four coordinates of 0 to
640 and a score of 0 to 1).  Its inputs dwell on 12 patterns, so that every decision is a clear one; the last of them
comes once in 150 steps.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tests.generated import save

CLASSES = 12
RARE = CLASSES - 1
SIZES = (64, 61, 303, 64, 64)
_node, _float = helper.make_node, onnx.TensorProto.FLOAT


def _weights(name: str, *shape: int) -> np.ndarray:
    return np.random.default_rng([*name.encode()]).standard_normal(shape) * np.prod(shape[1:]) ** -0.5


def _backbone() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [_node("Unsqueeze", ["x", "axis"], ["x4"])]
    arrays: dict[str, np.ndarray] = {"axis": np.array([2], np.int64)}
    last, channels = "x4", 16
    for layer, (size, out) in enumerate(((5, 64), (3, 64), (3, 64)), 1):
        arrays[f"w{layer}"] = 1.6 * _weights(f"w{layer}", out, channels, 1, size)
        arrays[f"b{layer}"] = 0.2 * _weights(f"b{layer}", out)
        nodes.append(
            _node("Conv", [last, f"w{layer}", f"b{layer}"], [f"c{layer}"], name=f"conv{layer}", kernel_shape=[1, size],
                  pads=[0, size // 2, 0, size // 2])
        )  # fmt: skip
        last, channels = f"c{layer}", out
        if layer < 3:
            last = f"r{layer}"
            nodes.append(_node("Relu", [f"c{layer}"], [last]))
    nodes.append(_node("Squeeze", [last, "axis"], ["y"]))
    # Decisions look at one step alone, or those between two patterns would be close calls.
    arrays["w4"], arrays["b4"] = 1.6 * _weights("w4", 64, 16, 1, 1), 0.2 * _weights("b4", 64)
    nodes.append(_node("Conv", ["x4", "w4", "b4"], ["c4"], name="conv4", kernel_shape=[1, 1]))
    nodes.append(_node("Relu", ["c4"], ["h"]))
    return nodes, arrays


def patterns(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1,16,length] and the pattern it shows at each step; each dwells for 4 to 9 steps, the rare one for 3."""
    rng = np.random.default_rng([7, seed])
    shown = np.empty(0, np.int64)
    while shown.size < length:
        shown = np.append(shown, np.repeat(rng.integers(RARE), rng.integers(4, 10)))
    shown = shown[:length]
    for start in range(length // 3, length - 3, 150):
        shown[start : start + 3] = RARE
    table = np.random.default_rng(5).standard_normal((CLASSES, 16))
    x = table[shown].T + 0.05 * rng.standard_normal((16, length))
    return x[None].astype(np.float32), shown


def make(path: Path) -> Path:
    """Write the model: its heads are fitted to what the backbone computes of the patterns."""
    nodes, arrays = _backbone()
    inputs = [helper.make_tensor_value_info("x", _float, [1, 16, "S"])]
    features = helper.make_tensor_value_info("y", _float, [1, 64, "S"])
    inner = helper.make_tensor_value_info("h", _float, [1, 64, 1, "S"])

    def constants() -> list[onnx.TensorProto]:
        return [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
            for name, value in arrays.items()
        ]

    session = onnxruntime.InferenceSession(str(save(path, nodes, inputs, [inner], constants())))
    x, shown = patterns(3000, 99)
    (h,) = session.run(["h"], {"x": x})
    design = np.vstack([h[0, :, 0], np.ones(h.shape[3])]).T
    wanted = np.full((len(shown), CLASSES), -3.0)
    wanted[np.arange(len(shown)), shown] = 5.0
    place = np.random.default_rng(6).uniform(-1.5, 1.5, (CLASSES, 5))
    for head, target in (("cls", wanted), ("box", place[shown])):
        fitted = np.linalg.solve(design.T @ design + 0.1 * np.eye(65), design.T @ target).T
        arrays[f"w_{head}"], arrays[f"b_{head}"] = fitted[:, :64, None, None], fitted[:, 64]
        nodes.append(_node("Conv", ["h", f"w_{head}", f"b_{head}"], [f"{head}4"], name=head, kernel_shape=[1, 1]))
        nodes.append(_node("Squeeze", [f"{head}4", "axis"], [f"{head}3"]))
    arrays["size"] = np.array([640, 640, 640, 640, 1.0])[None, :, None]
    nodes += [
        _node("Softmax", ["cls3"], ["p"], axis=1),
        _node("ArgMax", ["cls3"], ["label"], axis=1, keepdims=0),
        _node("Sigmoid", ["box3"], ["unit"]),
        _node("Mul", ["unit", "size"], ["box"]),
    ]
    outputs = [
        features,
        helper.make_tensor_value_info("p", _float, [1, CLASSES, "S"]),
        helper.make_tensor_value_info("label", onnx.TensorProto.INT64, [1, "S"]),
        helper.make_tensor_value_info("box", _float, [1, 5, "S"]),
    ]
    return save(path, nodes, inputs, outputs, constants())


def cases() -> dict[str, dict[str, np.ndarray]]:
    return {f"c{number}": {"x": patterns(size, number)[0]} for number, size in enumerate(SIZES)}
