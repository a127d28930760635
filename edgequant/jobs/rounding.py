"""Holds the weights of a file that was made against those of the float model: `archive.types.LayerRounding`."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import asdict
from pathlib import Path

from edgequant.archive.types import Artifact, LayerRounding
from edgequant.errors import InputError
from edgequant.models.mnn.rounding import rounded
from edgequant.models.mnn.static_int8 import read_scales
from edgequant.quantize.equalized_base import equalized_like


def with_rounding(artifact: Artifact, float_model: Path) -> Artifact:
    """The artifact with what rounding did to its layers, and the scales that its file has; as it is where that is not
    known."""
    asked = artifact.run_as
    if asked.method == "float":
        return artifact
    if artifact.scales:
        has = read_scales(artifact.path)
        scales = tuple(each.model_copy(update={"found": has.get(each.tensor)}) for each in artifact.scales)
        artifact = artifact.model_copy(update={"scales": scales})
    may = asked.method == "static" and (asked.calib is None or asked.equalize)
    found = _rounding(float_model, artifact.path, artifact.sha256, equalized=may)
    return artifact if found is None else artifact.model_copy(update={"rounding": found})


@functools.lru_cache(maxsize=4)  # `weight:8` and `dynamic:8` are one file
def _rounding(float_model: Path, made: Path, _sha256: str, *, equalized: bool) -> tuple[LayerRounding, ...] | None:
    """equalized: its channels may have been equalized, and then those of the float model are first."""
    with tempfile.TemporaryDirectory(prefix="edgequant-") as scratch:
        alike = Path(scratch) / "equalized.mnn"
        try:
            done = equalized_like(made, float_model, alike) if equalized else None
            found = rounded(alike if done else float_model, made)
        except InputError:
            return None  # MNN wrote it in a form that is not known here: then nothing is claimed of it
    return None if found is None else tuple(LayerRounding(**asdict(each), equalized=done) for each in found)
