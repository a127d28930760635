"""Whether a model computes what its reference computes at all.  Far below any limit, and before any verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgequant.compare.metrics import compare

SANE_COSINE = 0.5
"""Below this an output has nothing to do with its reference: such a model is not written."""
SANE_MISMATCH = 0.5
"""The same for whole numbers: more than half of them differ."""


@dataclass(frozen=True)
class Sanity:
    """Attributes:
    ok: every output came back whole, finite, not stuck at one value, and resembles its reference.
    why: what is wrong, in one line; what was seen where nothing is.
    output, case: where the worst is.
    cosine: the lowest; None where no output is of a kind that has one.
    """

    ok: bool
    why: str
    output: str | None = None
    case: str | None = None
    cosine: float | None = None


def sanity(
    runs: Iterable[tuple[str, Mapping[str, np.ndarray], Mapping[str, np.ndarray] | None]],
) -> Sanity:
    """Look at (case, reference outputs, outputs) of every case; outputs None: the model could not run it.

    Nothing to compare is not sane: it says nothing about the model.
    """
    worst: Sanity | None = None
    compared = 0
    for case, references, outputs in runs:
        if outputs is None:
            return Sanity(False, f"it cannot run case '{case}'", case=case)
        for name, reference in references.items():
            got = outputs.get(name)
            found = compare(reference, got)
            if found.problem in ("missing", "dtype", "shape", "nonfinite"):
                what = {
                    "missing": "is missing",
                    "dtype": f"is {found.got_dtype} instead of {found.reference_dtype}",
                    "shape": f"has shape {list(found.got_shape or ())} instead of {list(found.reference_shape)}",
                    "nonfinite": f"holds {found.nan} NaN and {found.inf} Inf",
                }[found.problem]
                return Sanity(False, f"output '{name}' {what}", name, case)
            if found.kind == "int" and found.mismatch is not None:
                compared += 1
                if found.mismatch > SANE_MISMATCH:
                    return Sanity(False, f"output '{name}' differs in {found.mismatch:.0%} of its numbers", name, case)
            if found.kind == "int" or found.cosine is None:
                continue
            compared += 1
            assert got is not None
            if found.reference_kind == "normal" and float(np.min(got)) == float(np.max(got)):
                return Sanity(False, f"output '{name}' is {float(np.min(got)):g} everywhere", name, case)
            if worst is None or worst.cosine is None or found.cosine < worst.cosine:
                ok = found.cosine >= SANE_COSINE
                why = f"cosine {found.cosine:.4f} of output '{name}'"
                worst = Sanity(ok, why if ok else f"{why}: it has nothing to do with its reference", name, case,
                               found.cosine)  # fmt: skip
    if worst is not None:
        return worst
    return Sanity(bool(compared), "its whole numbers agree" if compared else "there is nothing to compare it with")
