"""Holds the weights of a file that was made against those of the float model: `archive.types.LayerRounding`."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgequant.archive.types import Artifact, LayerRounding
from edgequant.errors import InputError
from edgequant.models import read_model
from edgequant.models.mnn.rounding import Rounded, rounded
from edgequant.models.mnn.static_int8 import read_scales
from edgequant.quantize.calibrate.equalize import equalized, find_joints
from edgequant.quantize.calibrate.layers import read_layers


def with_rounding(artifact: Artifact, float_model: Path) -> Artifact:
    """The artifact with what rounding did to its layers, and the scales that its file has; as it is where that is not
    known."""
    if artifact.run_as.method == "float":
        return artifact
    if artifact.scales:
        has = read_scales(artifact.path)
        scales = tuple(each.model_copy(update={"found": has.get(each.tensor)}) for each in artifact.scales)
        artifact = artifact.model_copy(update={"scales": scales})
    try:
        found = (
            _alike(float_model, artifact.path, artifact.equalized)
            if artifact.equalized
            else _rounding(float_model, artifact.path, artifact.sha256)
        )
    except InputError:
        return artifact  # MNN wrote it in a form that is not known here: then nothing is claimed of it
    if found is None:
        return artifact
    done = None if artifact.equalized is None else bool(artifact.equalized)
    layers = tuple(LayerRounding(**asdict(each), equalized=done) for each in found)
    return artifact.model_copy(update={"rounding": layers})


@functools.lru_cache(maxsize=4)  # `weight:8` and `dynamic:8` are one file
def _rounding(float_model: Path, made: Path, _sha256: str) -> list[Rounded] | None:
    return rounded(float_model, made)


def _alike(float_model: Path, made: Path, channels: Mapping[str, tuple[float, ...]]) -> list[Rounded] | None:
    """The same, the channels of the float model equalized as those of the file were."""
    with tempfile.TemporaryDirectory(prefix="edgequant-") as scratch:
        copy = Path(scratch) / "equalized.mnn"
        joints = find_joints(read_model(float_model), read_layers(float_model))
        ranges = {tensor: np.asarray(each) for tensor, each in channels.items()}
        return rounded(copy if equalized(float_model, joints, ranges, copy) else float_model, made)
