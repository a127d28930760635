"""Ranges of inner tensors per sample: against ONNX Runtime's values, and where the model computes NaN."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from edgequant.errors import InputError
from edgequant.models import read_model
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.ranges import gather_ranges
from edgequant.quantize.calibrate.samples import spool


def measured(source, model, samples, tensors, folder, chunk):
    folder.mkdir()
    inputs = read_model(source).inputs or ()
    spooled = spool(({"x": each} for each in samples), inputs, folder / "samples")
    return gather_ranges(model, tensors, Runs(spooled, folder, folder, 120), chunk=chunk)


def test_against_another_runtime(generated_model, as_mnn, tmp_path):
    source = generated_model("conv_cnn")
    draw = np.random.default_rng(0)
    samples = [(k * draw.standard_normal((1, 3, 32, 32))).astype("f4") for k in (1, 5, 2)]
    session = ort.InferenceSession(str(source))
    expected = [
        (float(out.min()), float(out.max())) for out in (session.run(["y"], {"x": each})[0] for each in samples)
    ]
    for chunk in (1, 32):
        tensors = ["x", "r2", "y", "no such tensor"]
        found, lost = measured(source, as_mnn(source), samples, tensors, tmp_path / f"chunk-{chunk}", chunk)
        assert list(lost) == ["no such tensor"]
        np.testing.assert_allclose(found["y"], expected, rtol=1e-3)
        np.testing.assert_allclose(found["x"], [(each.min(), each.max()) for each in samples])
        assert all(low >= 0 for low, _ in found.get("r2", []))


def test_nan_inside_is_named(generated_model, as_mnn, tmp_path):
    """log(-1): the sigmoid behind it hides that from the output."""
    source = generated_model("nan_swallowed")
    samples = [np.ones((1, 8), "f4"), -np.ones((1, 8), "f4")]
    with pytest.raises(InputError) as caught:
        measured(source, as_mnn(source), samples, ["inner", "y"], tmp_path / "work", 32)
    assert caught.value.code == "CALIBRATION_NOT_FINITE"
    assert caught.value.evidence == {"tensor": "inner", "sample": 1}
