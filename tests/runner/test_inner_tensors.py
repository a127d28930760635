"""Inner tensors of a model, handed out like its outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from device_scripts.model_file import tensor_names
from edgequant.errors import RunnerError
from edgequant.models.mnn.read import read_mnn
from edgequant.runner.client import MnnRunner
from tests.runner.support import ModelByName

AsMnn = Callable[..., Path]


def from_onnx(source: Path, names: list[str], feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors as ONNX Runtime computes them."""
    model = onnx.load(source)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize(
    ("name", "names"),
    [("conv_cnn", ["r1", "r2", "pooled", "y"]), ("conv_cnn", ["r2"]), ("gru", ["hs", "xt", "stateN"])],
)
def test_they_are_what_onnx_runtime_computes(
    runner: MnnRunner, generated_model: ModelByName, as_mnn: AsMnn, name: str, names: list[str]
) -> None:
    generator = np.random.default_rng(3)
    shapes = {"conv_cnn": {"x": (1, 3, 32, 32)}, "gru": {"x": (1, 5, 32), "state": (1, 1, 64)}}[name]
    feed = {key: generator.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    source = generated_model(name)
    model = runner.load(str(as_mnn(source)), "normal", outputs=names)
    assert model.answer.outputs == names
    found = runner.run(model, feed).outputs
    for key, expected in from_onnx(source, names, feed).items():
        assert found[key].shape == expected.shape
        np.testing.assert_allclose(found[key], expected, atol=1e-4)


def test_every_tensor_of_the_main_graph(runner: MnnRunner, generated_model: ModelByName, as_mnn: AsMnn) -> None:
    """Constants, shapes, empty ones, what the converter has put in, and what it has merged away."""
    path = as_mnn(generated_model("conv_cnn"))
    names = [name for op in read_mnn(path.read_bytes(), path).ops for name in op.outputs]
    assert tensor_names(str(path)) == set(names)
    assert "c1" not in names  # merged with the activation behind it
    model = runner.load(str(path), "normal", outputs=names)
    found = runner.run(model, {"x": np.ones((1, 3, 32, 32), np.float32)}).outputs
    assert set(found) == set(names)
    assert any(array.size == 0 for array in found.values())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("conv_cnn", "nosuch"), ("conv_cnn", "c1"), ("conv_cnn", ""), ("gru", "O_next"), ("branches", "b")],
)
def test_one_that_is_not_there(
    runner: MnnRunner, generated_model: ModelByName, as_mnn: AsMnn, name: str, wanted: str
) -> None:
    path = str(as_mnn(generated_model(name)))
    with pytest.raises(RunnerError) as caught:
        runner.load(path, "normal", outputs=[wanted])
    assert caught.value.code == "TENSOR_UNKNOWN"
    assert repr(wanted) in caught.value.message
    assert "y" in runner.load(path, "normal").answer.outputs


@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_of_a_file_that_is_no_model(
    runner: MnnRunner, generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path, damage: str
) -> None:
    data = as_mnn(generated_model("gru")).read_bytes()
    bad = {"empty": b"", "cut": data[:200], "noise": bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))}
    (tmp_path / "bad.mnn").write_bytes(bad[damage])
    with pytest.raises(RunnerError) as caught:
        runner.load(str(tmp_path / "bad.mnn"), "normal", outputs=["y"])
    assert caught.value.code == "MODEL_LOAD_FAILED"
    assert runner.alive()
