"""With precision low, inner numbers that fp16 has no room for are told, also where nothing computes in fp16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.spec import RunOptions
from tests import generated
from tests.jobs.support import do


@pytest.mark.parametrize(
    ("size", "precision", "told"), [(1e6, "low", True), (1.0, "low", False), (1e6, "normal", False)]
)
def test_inner_numbers_beyond_fp16(tmp_path: Path, size: float, precision: str, told: bool) -> None:
    x = np.random.default_rng(0).uniform(-size, size, (1, 3, 32, 32)).astype(np.float32)
    save_npz(tmp_path / "a.npz", {"x": x})
    options = RunOptions.model_validate({"threads": 1, "precision": precision})
    model = generated.conv_cnn(tmp_path / "m.onnx")
    report = do(model, tmp_path / "run", "float", inputs=tmp_path / "a.npz", options=options)
    found = [each for each in report.findings if each.code == "BEYOND_HALF"]
    assert bool(found) is told
    if told:
        assert max(found[0].evidence["largest"].values()) > 65504
        assert found[0].severity == "warn"
    assert not list((tmp_path / "run" / "models").glob(".*"))
