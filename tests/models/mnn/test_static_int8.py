"""What is read of a file's static int8 layers.  What MNN makes of them: tests/jobs/test_arm_static.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.models.mnn.static_int8 import StaticLayers, odd_groups, read_max_pools, read_static
from edgequant.models.model import BrokenFileError
from tests import generated
from tests.beds.models import ModelByName
from tests.quantize.calibrate.support import build, float_mnn, images, node, static


@pytest.mark.parametrize("flags", [(), ("--fp16",), ("--weightQuantBits", "8")])
def test_nothing_is_static_without_scales(
    flags: tuple[str, ...], generated_model: ModelByName, as_mnn: Callable[..., Path]
) -> None:
    assert read_static(as_mnn(generated_model("conv_cnn"), *flags)) == StaticLayers(0)


def test_a_damaged_file_is_refused(generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path) -> None:
    data = as_mnn(generated_model("conv_cnn")).read_bytes()
    damaged = tmp_path / "damaged.mnn"
    for cut in (5, 20):
        damaged.write_bytes(data[:cut])
        with pytest.raises(BrokenFileError):
            read_static(damaged)


def test_max_pools_are_found(generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path) -> None:
    """By what they are, in a float file too; average pools are none."""
    assert read_max_pools(as_mnn(generated_model("conv_cnn"))) == []
    node, value = generated._node, generated._value
    nodes = [
        node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", ["p"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    source = generated.save(tmp_path / "m.onnx", nodes, [value("x", [1, 4, 8, 8])], [value("y", [1, 4, 2, 2])])
    ((_, result),) = read_max_pools(as_mnn(source))
    assert result == "p"


@pytest.mark.parametrize(
    ("channels", "groups", "odd"),
    [
        (1, 1, True),
        (4, 1, True),
        (5, 1, False),
        (8, 1, False),
        (12, 1, True),
        (24, 2, True),
        (32, 2, False),
        (8, 0, False),
    ],
)
def test_odd_groups(channels: int, groups: int, odd: bool) -> None:
    assert odd_groups(channels, groups) is odd


@pytest.mark.parametrize(("mode", "found"), [("linear", ["up"]), ("nearest", [])])
def test_bilinear_resizes_between_int8_layers_are_found(mode: str, found: list[str], tmp_path: Path) -> None:
    """What the kernel for ARM makes of them: tests/jobs/test_arm_static.py."""
    made = static(up(tmp_path / "m.onnx", mode), images(4, sizes=(6,)), tmp_path, calib="minmax")
    assert list(read_static(made.file.path).resizes) == found
    assert not read_static(float_mnn(up(tmp_path / "m.onnx", mode), tmp_path)).resizes


def up(path: Path, mode: str) -> Path:
    """x [1,3,6,W] -> y [1,8,12,2W], a resize by two between two convolutions."""
    rng = np.random.default_rng(1)
    half_pixel = {"coordinate_transformation_mode": "half_pixel" if mode == "linear" else "asymmetric"}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        node("Resize", ["c", "", "scales"], ["up"], name="up", mode=mode, **half_pixel),
        node("Conv", ["up", "v", "d"], ["y"], pads=[1] * 4),
    ]
    return build(
        path, nodes, {"x": [1, 3, 6, "W"]}, {"y": [1, 8, 12, "V"]}, w=rng.standard_normal((8, 3, 3, 3)) / 5,
        b=rng.standard_normal(8) / 3, v=rng.standard_normal((8, 8, 3, 3)) / 8, d=rng.standard_normal(8) / 3,
        scales=[1.0, 1.0, 2.0, 2.0],
    )  # fmt: skip
