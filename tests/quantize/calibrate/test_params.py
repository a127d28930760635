"""What becomes of each layer, and with which scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.graph import read_model
from edgequant.quantize.calibrate.flow import Flow
from edgequant.quantize.calibrate.layers import Layer, read_layers
from edgequant.quantize.calibrate.methods import asymmetric, symmetric
from edgequant.quantize.calibrate.params import plan, weight_scales
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
