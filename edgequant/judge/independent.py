"""Which cases are independent of each other, and what as many without a failure leave possible."""

from __future__ import annotations

from collections.abc import Mapping

from edgequant.archive.types import ArrayRef, Artifact, Source
from edgequant.compare.metrics import compare
from edgequant.judge.stages import Comparer

_ALIKE = 0.9999
"""Cosine of the inputs of two cases."""


def twins(comparer: Comparer, source: Source) -> set[str]:
    """Cases whose inputs are those of an earlier one, but for their size and a hundredth: rounding errs in both alike,
    so that one says nothing that the other does not."""
    found: set[str] = set()
    seen: list[dict[str, ArrayRef]] = []
    for case in source.cases:
        if any(_alike(comparer, case.inputs, other) for other in seen):
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


def _alike(comparer: Comparer, one: Mapping[str, ArrayRef], two: Mapping[str, ArrayRef]) -> bool:
    if not one or one.keys() != two.keys() or any(one[name].shape != two[name].shape for name in one):
        return False
    for name in one:
        if one[name] == two[name]:
            continue
        found = compare(comparer.array(one[name]), comparer.array(two[name]))
        if found.cosine is None or found.cosine < _ALIKE:
            return False
    return True
