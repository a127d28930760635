"""Whether a model computes what its reference computes at all.  Far below any limit, and before any verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgequant.compare.metrics import compare

SANE_COSINE = 0.5
"""Below this an output has nothing to do with its reference: such a model is not written."""
SANE_SQNR_DB = 3.0
"""The same for what a cosine does not see, such as a wrong scale: less than twice as much signal as error."""
SANE_MISMATCH = 0.5
"""The same for whole numbers: more than half of them differ."""


@dataclass(frozen=True)
class Sanity:
    """Attributes:
    ok: every output came back whole, finite, not stuck at one value, and resembles its reference.
    why: what is wrong, in one line; what was seen where nothing is.
    output, case: where the worst is; no case where it is over all of them.
    cosine: the lowest; None where no output is of a kind that has one.
    """

    ok: bool
    why: str
    output: str | None = None
    case: str | None = None
    cosine: float | None = None


@dataclass
class _Sums:
    """Of one float output over all cases, of the elements that are finite in both.

    An output may be next to nothing in one case, as of a filter that lets silence through: there its error is all that
    is left, and that says nothing about the model.
    """

    signal: float = 0.0
    power: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    varies: bool = False

    def add(self, reference: np.ndarray, got: np.ndarray) -> None:
        r, g = reference.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(r) & np.isfinite(g)
        r, g = r[finite], g[finite]
        if not r.size:
            return
        # np.vdot: no overflow to NaN where both are huge, and no third array.
        with np.errstate(over="ignore", invalid="ignore"):
            self.signal += float(np.vdot(r, r))
            self.power += float(np.vdot(g, g))
            self.product += float(np.vdot(r, g))
            self.noise += float(((r - g) ** 2).sum())
        self.low, self.high = min(self.low, float(g.min())), max(self.high, float(g.max()))
        self.varies = self.varies or float(r.min()) != float(r.max())

    def judged(self, name: str) -> Sanity:
        cosine = self.product / math.sqrt(self.signal) / math.sqrt(self.power) if self.power else 0.0
        if self.varies and self.low == self.high:
            return Sanity(False, f"output '{name}' is {self.low:g} everywhere", name, cosine=cosine)
        # Comparisons with NaN are false: what overflowed is not sane.
        if not cosine >= SANE_COSINE:
            why = f"cosine {cosine:.4f} of output '{name}': it has nothing to do with its reference"
            return Sanity(False, why, name, cosine=cosine)
        sqnr = math.inf if self.noise == 0 else 10 * math.log10(self.signal / self.noise)
        why = f"cosine {cosine:.4f}, SQNR {sqnr:.1f} dB of output '{name}', all checked cases together"
        if not sqnr >= SANE_SQNR_DB:
            return Sanity(False, f"{why}: nearly as much error as signal", name, cosine=cosine)
        return Sanity(True, why, name, cosine=cosine)


def sanity(
    runs: Iterable[tuple[str, Mapping[str, np.ndarray], Mapping[str, np.ndarray] | None]],
) -> Sanity:
    """Look at (case, reference outputs, outputs) of every case; outputs None: the model could not run it.

    Float outputs are looked at over all cases together.  Nothing to compare is not sane: it says nothing about the
    model.
    """
    sums: dict[str, _Sums] = {}
    whole = 0
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
                whole += 1
                if found.mismatch > SANE_MISMATCH:
                    return Sanity(False, f"output '{name}' differs in {found.mismatch:.0%} of its numbers", name, case)
            if found.kind == "float" and got is not None:
                sums.setdefault(name, _Sums()).add(reference, got)
    judged = [each.judged(name) for name, each in sums.items() if each.signal > 0]
    if judged:
        return min(judged, key=lambda each: (each.ok, -math.inf if each.cosine is None else each.cosine))
    return Sanity(bool(whole), "its whole numbers agree" if whole else "there is nothing to compare it with")
