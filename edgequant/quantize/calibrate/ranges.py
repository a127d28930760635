"""Ranges of a float model's inner tensors in each sample for itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgequant.errors import EdgequantError, ToolError
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.gather import CHUNK, in_parts, run_part

Ranges = list[tuple[float, float]]


def gather_ranges(
    model: Path, tensors: Sequence[str], runs: Runs, *, chunk: int = CHUNK
) -> tuple[dict[str, Ranges], dict[str, str]]:
    """(Smallest, largest value) of each tensor in each sample; and tensors that could not be read, with the reason.

    Runs as `gather` does, and raises the same.
    """
    out = runs.work / "ranges.npz"

    def attempt(names: list[str]) -> dict[str, Ranges] | EdgequantError:
        problem = run_part("ranges", model, names, runs, out)
        if problem is not None:
            return problem
        try:
            with np.load(out, allow_pickle=False) as arrays:
                found = arrays["ranges"]
        except (OSError, ValueError, KeyError) as error:
            raise ToolError("CALIBRATION_BAD_ANSWER", f"the ranges cannot be read: {error}") from None
        if found.shape != (len(names), runs.samples.count, 2) or found.dtype != np.float64:
            raise ToolError("CALIBRATION_BAD_ANSWER", f"the ranges have shape {found.shape} and type {found.dtype}")
        return {name: [(low, high) for low, high in rows] for name, rows in zip(names, found.tolist(), strict=True)}

    return in_parts(tensors, chunk, attempt)
