"""What faulty int8 kernels of MNN's would get wrong stays float unasked: by the file alone, without a device.

tests/jobs/test_arm_static.py has the kernels themselves run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgequant.models.mnn.static_int8 import read_static
from tests.quantize.calibrate.support import build, node, static

RANDOM = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return np.asarray(RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))


def samples(*shape: int) -> list[dict[str, np.ndarray]]:
    return [{"x": RANDOM.standard_normal(shape).astype(np.float32)} for _ in range(4)]


def test_an_odd_number_of_channel_groups(tmp_path: Path) -> None:
    """12 channels are three groups of four, which the i8mm kernel gets wrong."""
    source = build(
        tmp_path / "m.onnx",
        [node("Conv", ["x", "w", "b"], ["a"], name="three"), node("Conv", ["a", "v"], ["y"], name="four")],
        {"x": [1, 8, 1, 5]},
        {"y": [1, 16, 1, 5]},
        w=weight(12, 8, 1, 1), b=weight(12, 1)[:, 0], v=weight(16, 12, 1, 1),
    )  # fmt: skip
    made = static(source, samples(1, 8, 1, 5), tmp_path, calib="minmax")
    assert [(each.how == "static") for each in made.layers] == [False, True]
    assert "12 output channels" in (made.layers[0].why or "")
    assert not read_static(made.file.path).half_tiles


def test_a_sum_whose_end_would_not_be_written(tmp_path: Path) -> None:
    """42 values are no multiple of four."""
    source = build(
        tmp_path / "m.onnx",
        [
            node("MatMul", ["x", "v"], ["m"]),
            node("MatMul", ["x", "w"], ["n"]),
            node("Add", ["m", "n"], ["s"], name="sum"),
            node("MatMul", ["s", "u"], ["y"]),
        ],
        {"x": [1, 7, 8]},
        {"y": [1, 7, 8]},
        v=weight(8, 6), w=weight(8, 6), u=weight(6, 8),
    )  # fmt: skip
    made = static(source, samples(1, 7, 8), tmp_path, calib="minmax")
    assert any("'s'" in (each.why or "") for each in made.layers), made.layers
    assert not read_static(made.file.path).tails


def test_a_max_pool_between_int8_layers(tmp_path: Path) -> None:
    """Both sides have a scale of their own, so that MNN pools in float: its int8 max pool is wrong on x86."""
    source = build(
        tmp_path / "m.onnx",
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
            node("Relu", ["c"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "v", "d"], ["y"], pads=[1] * 4),
        ],
        {"x": [1, 3, 16, 16]},
        {"y": [1, 16, 8, 8]},
        w=weight(16, 3, 3, 3), b=weight(16, 1)[:, 0], v=weight(16, 16, 3, 3), d=weight(16, 1)[:, 0],
    )  # fmt: skip
    made = static(source, samples(1, 3, 16, 16), tmp_path, calib="minmax", sym=False)
    assert [each.how for each in made.layers] == ["static", "static"]
    assert not read_static(made.file.path).max_pools
