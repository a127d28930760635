"""Which cases are independent of each other, and what as many without a failure leave possible."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgequant.archive.types import ArrayRef, Artifact, Source
from edgequant.compare.metrics import compare
from edgequant.judge.stages import Comparer

Floats = npt.NDArray[np.float64]
_ALIKE = 0.9999
"""Cosine of the inputs of two cases."""
_APART = float(np.sqrt(2 * (1 - _ALIKE))) + 1e-6
"""Further than this from each other are no two vectors of length 1 that are alike."""
_PIECES = 64


def twins(comparer: Comparer, source: Source) -> frozenset[str]:
    """Cases whose inputs are those of an earlier one, but for their size and a hundredth: rounding errs in both alike,
    so that one says nothing that the other does not."""
    key = tuple((case.name, *((name, ref.sha256) for name, ref in case.inputs.items())) for case in source.cases)
    if key not in comparer.twins:
        comparer.twins[key] = frozenset(_twins(comparer, source))
    return comparer.twins[key]


def _twins(comparer: Comparer, source: Source) -> set[str]:
    found: set[str] = set()
    seen: list[dict[str, ArrayRef]] = []
    sketches = Sketches(comparer)
    for case in source.cases:
        if any(_alike(comparer, sketches, case.inputs, other) for other in seen):
            found.add(case.name)
        else:
            seen.append(case.inputs)
    return found


def independent(comparer: Comparer, source: Source, artifact: Artifact) -> int:
    """Cases that may be drawn from what the model meets: the user's own, each with inputs of its own.

    Of random ones there are none, for they are drawn from nowhere; nor of those that the file was made to suit.
    """
    own = {case.name for case in source.cases if not case.generated and case.kind == "usual"}
    suited = artifact.asked.method == "auto" or any(each.code == "CALIBRATED_ON_CASES" for each in artifact.findings)
    return len(own - twins(comparer, source)) if own and not suited else 0


def failing_share(cases: int) -> float | None:
    """The largest share of failing inputs that so many independent cases without a failure leave possible, at 95 %;
    None without any.  Exact, of a binomial: (1 - share)^cases = 0.05."""
    return 1 - 0.05 ** (1 / cases) if cases else None


class Sketches(dict[str, Floats]):
    """Hash of an array -> a few numbers that tell most pairs apart, where each element of both would be compared."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    def apart(self, one: ArrayRef, two: ArrayRef) -> bool:
        """Whether they cannot be alike; False where that is not known."""
        return float(np.linalg.norm(self._of(one) - self._of(two))) > _APART

    def _of(self, ref: ArrayRef) -> Floats:
        if ref.sha256 not in self:
            self[ref.sha256] = sketch(self._comparer.array(ref))
        return self[ref.sha256]


def sketch(array: npt.ArrayLike) -> Floats:
    """The array scaled to length 1, then a number for each of at most 64 pieces of it; NaN where it has no length.

    Sketches are no further apart than the arrays are: the sum over n elements is at most sqrt(n) times their length.
    """
    flat = np.asarray(array, np.float64).ravel()
    length = float(np.linalg.norm(flat))
    edges = np.unique(np.linspace(0, flat.size, _PIECES + 1).astype(int))
    if not 0 < length < np.inf:
        return np.full(len(edges) - 1, np.nan)
    return np.asarray(np.add.reduceat(flat, edges[:-1]) / np.sqrt(np.diff(edges)) / length)


def _alike(comparer: Comparer, sketches: Sketches, one: Mapping[str, ArrayRef], two: Mapping[str, ArrayRef]) -> bool:
    if not one or one.keys() != two.keys() or any(one[name].shape != two[name].shape for name in one):
        return False
    others = [name for name in one if one[name] != two[name]]
    if any(sketches.apart(one[name], two[name]) for name in others):
        return False
    for name in others:
        found = compare(comparer.array(one[name]), comparer.array(two[name]))
        if found.cosine is None or found.cosine < _ALIKE:
            return False
    return True
