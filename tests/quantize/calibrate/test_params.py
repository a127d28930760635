"""What becomes of each layer, and with which scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgequant.models import read_model
from edgequant.models.mnn.scale_flow import Flow
from edgequant.quantize.calibrate.kernels import Kernels, sound
from edgequant.quantize.calibrate.layers import Layer, read_layers
from edgequant.quantize.calibrate.methods import Quantizer, asymmetric, symmetric
from edgequant.quantize.calibrate.params import LayerPlan, plan, weight_scales
from tests import generated
from tests.quantize.calibrate.support import float_mnn, three_layers


def test_weight_scales() -> None:
    layer = Layer("l", "", "Convolution", "x", "y", np.array([1.27, 0.0, 254.0], np.float32), np.zeros(3, np.float32))
    assert weight_scales(layer, symmetric(1), symmetric(1)) == pytest.approx([0.01, 2e-6, 2.0])
    depthwise = Layer(**{**vars(layer), "type": "ConvolutionDepthwise", "bias": np.array([1, 1e6, 0], np.float32)})
    source, result = symmetric(1.27), asymmetric(0, 255)
    scales = weight_scales(depthwise, source, result)
    assert (scales >= 1e-6).all()
    assert (np.abs(depthwise.bias) / (scales * source.scale) <= 2**29 * 1.001).all()
    assert (abs(result.zero_point) * result.scale / (scales * source.scale) <= 2**29 * 1.001).all()


@pytest.mark.parametrize(("first", "how"), [("Exp", "weight"), (None, "float"), ("Relu", "float")])
def test_quantized_weights_are_not_put_where_mnn_would_read_int8(first: str | None, how: str, tmp_path: Path) -> None:
    model = float_mnn(three_layers(tmp_path / "m.onnx", first), tmp_path)
    layers = read_layers(model)
    second = layers[1].output
    some = {name: symmetric(4.0) for each in layers for name in (each.input, each.output)}
    plans = plan(layers, Flow(read_model(model).ops), some, unreadable={}, kept=[second])
    assert [each.how for each in plans] == ["static", how, "static"]
    plans = plan(layers, Flow(read_model(model).ops), some, unreadable={}, kept=[second], rest="float")
    assert [each.how for each in plans] == ["static", "float", "static"]


def planned(model: Path, q: Quantizer, kernels: Kernels | None = None) -> list[LayerPlan]:
    """Every tensor with the same quantizer."""
    layers = read_layers(model)
    some = {name: q for each in layers for name in (each.input, each.output)}
    kernels = sound(model, layers) if kernels is None else kernels
    return plan(layers, Flow(read_model(model).ops), some, unreadable={}, kernels=kernels)


def saved(tmp_path: Path, nodes: list[onnx.NodeProto], inputs: list[int], weights: list[onnx.TensorProto]) -> Path:
    value = generated._value
    source = generated.save(
        tmp_path / "m.onnx", nodes, [value("x", inputs)], [value("y", [None] * len(inputs))], weights
    )
    return float_mnn(source, tmp_path)


@pytest.mark.parametrize(
    ("channels", "groups", "how"),
    [(12, 1, "weight"), (9, 1, "weight"), (16, 1, "static"), (6, 1, "static"), (24, 2, "weight")],
)
def test_odd_groups_of_four_channels_stay_float(channels: int, groups: int, how: str, tmp_path: Path) -> None:
    node, weight = generated._node, generated._weight
    model = saved(
        tmp_path,
        [node("Conv", ["x", "w", "b"], ["a"], group=groups), node("Exp", ["a"], ["y"])],
        [1, 8, 4, 4],
        [weight("w", channels, 8 // groups, 1, 1), weight("b", channels)],
    )
    plans = planned(model, symmetric(4.0))
    assert {each.how for each in plans} == {how}
    assert all((how == "static") == (each.why is None) for each in plans)


@pytest.mark.parametrize(("length", "width", "how"), [(7, 6, ["float", "static", "static"]), (7, 8, ["static"] * 3)])
def test_sums_whose_end_arm_does_not_write_stay_float(length: int, width: int, how: list[str], tmp_path: Path) -> None:
    """One of the two layers in front of the sum is enough."""
    node, weight = generated._node, generated._weight
    model = saved(
        tmp_path,
        [
            node("MatMul", ["x", "v"], ["m"]),
            node("MatMul", ["x", "w"], ["n"]),
            node("Add", ["m", "n"], ["s"], name="sum"),
            node("MatMul", ["s", "u"], ["y"]),
        ],
        [1, length, 8],
        [weight("v", 8, width), weight("w", 8, width), weight("u", width, 8)],
    )
    plans = planned(model, symmetric(4.0))
    assert [each.how for each in plans] == how
    assert all("ARM" in str(each.why) for each in plans if each.how != "static")


@pytest.mark.parametrize("q", [symmetric(4.0), asymmetric(-1.0, 3.0)])
def test_the_two_sides_of_a_max_pool_are_a_bit_apart(q: Quantizer, tmp_path: Path) -> None:
    node, weight = generated._node, generated._weight
    model = saved(
        tmp_path,
        [
            node("Conv", ["x", "v", "b"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "w", "b"], ["y"]),
        ],
        [1, 8, 4, 4],
        [weight("v", 8, 8, 1, 1), weight("w", 8, 8, 1, 1), weight("b", 8)],
    )
    first, second = planned(model, q)
    assert first.output == q
    assert second.input is not None
    assert second.input.scale != q.scale
    assert second.input.scale == pytest.approx(q.scale, rel=2e-7)
    assert np.float32(second.input.scale) == second.input.scale
    assert second.input[1:] == q[1:]
