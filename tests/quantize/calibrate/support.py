"""Small models for calibration, and what the tests do with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.models import read_model
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.samples import spool
from edgequant.quantize.calibrate.static import StaticInt8, StaticOptions, make_static
from edgequant.quantize.convert import convert
from edgequant.spec import Variant

Sample = dict[str, np.ndarray]
node = helper.make_node


def build(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shapes: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    **weights: Any,
) -> Path:
    """An ONNX model with float32 inputs of the given shapes."""
    inputs = [helper.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in shapes.items()]
    results = [helper.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in outputs.items()]
    consts = [
        numpy_helper.from_array(np.asarray(value, None if np.asarray(value).dtype == np.int64 else np.float32), name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(list(nodes), "g", inputs, results, consts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def one_layer(path: Path, weights: np.ndarray, bias: np.ndarray, group: int = 1, relu: bool = False) -> Path:
    """x [1,C,H,W] -> y: one 3x3 or 1x1 convolution without a change of size, and a ReLU when asked for."""
    pad = weights.shape[2] // 2
    nodes = [node("Conv", ["x", "w", "b"], ["c" if relu else "y"], pads=[pad] * 4, group=group)]
    nodes += [node("Relu", ["c"], ["y"])] if relu else []
    channels = weights.shape[1] * group
    return build(path, nodes, {"x": [1, channels, "h", "w"]}, {"y": [1, len(weights), "h", "w"]}, w=weights, b=bias)


def images(count: int, channels: int = 3, seed: int = 0, sizes: Sequence[int] = (16, 24, 20)) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [
        {"x": rng.standard_normal((1, channels, sizes[i % len(sizes)], 20)).astype(np.float32)} for i in range(count)
    ]


def float_mnn(source: Path, folder: Path) -> Path:
    out = folder / f"{source.stem}.float.mnn"
    return convert(source, Variant.parse("float"), out, log_dir=folder / "logs").path


def runs_over(source: Path, samples: Sequence[Sample] | Iterator[Sample], folder: Path, **options: Any) -> Runs:
    (folder / "work").mkdir()
    inputs = read_model(source).inputs
    assert inputs is not None
    return Runs(spool(samples, inputs, folder / "samples"), folder / "work", folder / "logs", **options)


def static(source: Path, samples: list[Sample], folder: Path, **options: object) -> StaticInt8:
    return make_static(
        source,
        iter(samples),
        StaticOptions(**options),
        folder / "static.mnn",
        log_dir=folder / "logs",  # type: ignore[arg-type]
    )


def worst(model: StaticInt8) -> float:
    return min(each.sqnr_db for each in model.fidelity.values())


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"logs"}


def speech_like(count: int) -> list[Sample]:
    rng = np.random.default_rng(2)
    found = []
    for number in range(count):
        length = 20 + 5 * number
        level = np.cumsum(rng.standard_normal((1, 1, length, 32)), axis=2) / 5
        tone = rng.standard_normal((1, 2, length, 96)) * np.exp(rng.standard_normal((1, 1, length, 1)))
        found.append({"feat_erb": np.clip(level, -1, 1).astype(np.float32), "feat_spec": tone.astype(np.float32)})
    return found


def three_layers(path: Path, first: str | None) -> Path:
    """Convolutions, with this operator behind the first and a Sigmoid behind the second.

    Where that is Exp, the second's input has a few huge values: int8 leaves nothing of the others.
    """
    rng = np.random.default_rng(3)
    weights = {f"w{number}": rng.standard_normal((16, 16, 1, 1)) / 8 for number in (1, 2, 3)}
    biases = {f"b{number}": rng.standard_normal(16) / 4 for number in (1, 2, 3)}
    weights["w1"] *= 4
    nodes = [node("Conv", ["x", "w1", "b1"], ["c1"])]
    nodes += [node(first, ["c1"], ["h1"])] if first else []
    nodes += [
        node("Conv", ["h1" if first else "c1", "w2", "b2"], ["c2"]),
        node("Sigmoid", ["c2"], ["h2"]),
        node("Conv", ["h2", "w3", "b3"], ["y"]),
    ]
    return build(path, nodes, {"x": [1, 16, "h", "w"]}, {"y": [1, 16, "h", "w"]}, **weights, **biases)
