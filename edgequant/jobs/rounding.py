"""Holds the weights of a file that was made against those of the float model: `archive.types.LayerRounding`."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path

from edgequant.archive.types import Artifact, LayerRounding
from edgequant.errors import InputError
from edgequant.models.mnn.rounding import rounded


def with_rounding(artifact: Artifact, float_model: Path) -> Artifact:
    """The artifact with what rounding did to its layers; as it is where that is not known."""
    if artifact.run_as.method == "float":
        return artifact
    found = _rounding(float_model, artifact.path, artifact.sha256)
    return artifact if found is None else artifact.model_copy(update={"rounding": found})


@functools.lru_cache(maxsize=4)  # `weight:8` and `dynamic:8` are one file
def _rounding(float_model: Path, made: Path, _sha256: str) -> tuple[LayerRounding, ...] | None:
    try:
        found = rounded(float_model, made)
    except InputError:
        return None  # MNN wrote it in a form that is not known here: then nothing is claimed of it
    return None if found is None else tuple(LayerRounding(**asdict(each)) for each in found)
