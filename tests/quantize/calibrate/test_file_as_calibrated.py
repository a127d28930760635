"""A static int8 file that is not what calibrating made is told by the file alone, equalized or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import Artifact
from edgequant.files import sha256_of
from edgequant.jobs.rounding import with_rounding
from edgequant.judge.rounding import beyond_rounding
from edgequant.models.mnn.weights import read_weights
from tests.defects.layer_edits import EDITS, planted
from tests.quantize.calibrate.support import float_mnn, images, static, three_layers

NOT_OF_THIS = ("zero point of weights 12 steps off", "zero point of weights 3 steps off", "a scale is infinite")


@pytest.fixture(scope="module", params=[True, False], ids=["equalized", "plain"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    """A file, and the float model."""
    folder = tmp_path_factory.mktemp("equalized" if request.param else "plain")
    source = three_layers(folder / "m.onnx", "Relu")
    file = static(source, images(4, channels=16), folder, equalize=request.param, calib="minmax").file
    return file, float_mnn(source, folder)


def test_what_was_made_is_right(made: tuple[Artifact, Path]) -> None:
    artifact, floats = made
    found = with_rounding(artifact, floats)
    assert not beyond_rounding(found).findings
    assert any(each.equalized for each in found.rounding or ()) == (artifact.path.parent.name[:4] == "equa")
    assert found.scales
    assert all(each.found == (np.float32(each.scale), each.zero) for each in found.scales)


@pytest.mark.parametrize("fault", [name for name in EDITS if name not in NOT_OF_THIS])
def test_what_is_something_else_is_told(fault: str, made: tuple[Artifact, Path], tmp_path: Path) -> None:
    artifact, floats = made
    path = tmp_path / "other.mnn"
    layers = [each for each in read_weights(artifact.path) if planted(artifact.path, each, EDITS[fault][0], path)]
    assert layers
    for layer in layers:
        assert planted(artifact.path, layer, EDITS[fault][0], path)
        other = artifact.model_copy(update={"path": path, "sha256": sha256_of(path)})
        (finding,) = beyond_rounding(with_rounding(other, floats)).findings
        assert (finding.code, finding.severity) == ("QUANTIZATION_BEYOND_ROUNDING", "fail")
        assert finding.where in (layer.name, *(each.tensor for each in artifact.scales))
