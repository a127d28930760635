"""What is read of a file's static int8 layers.  What MNN makes of them: tests/jobs/test_arm_static.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.models.mnn.static_int8 import StaticLayers, odd_groups, read_max_pools, read_static
from edgequant.models.model import BrokenFileError
from tests import generated
from tests.beds.models import ModelByName


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
