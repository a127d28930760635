"""Many cases of one output, folded into the worst of each metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgequant.compare.decibel import SQNR_CAP_DB, amplitude_db, capped_db
from edgequant.compare.metrics import Problem, TensorComparison
from edgequant.compare.table import TABLE, Kind


@dataclass(frozen=True)
class OutputSummary:
    """One output over all cases: the worst of each metric, and which case it came from.

    Attributes:
        cases: how many cases were compared.
        kind: "float" or "int"; "float" where there was no case at all.
        values: metric name -> worst value over the cases where it is defined; None where it never is.  Cases whose
            reference is not finite are left out, and so is the cosine of constant ones, unless there are no others.
        worst_cases: metric name -> the case its worst value is from.
        worst_case: the case to look at first: a problem before a number, then the lowest SQNR or highest mismatch.
        problems: case -> why it could not be compared as a whole (see TensorComparison.problem).
        details: case -> that problem in words, with shapes, dtypes or counts.
        nan, inf, ref_nan, ref_inf, swallowed: sums over the cases.
        zero_cases: case -> max_abs, where a float reference is all zero.
        constant_cases, empty_cases: names of the cases where a float reference has one value, or no elements.
        largest_constant: elements of the largest constant reference: one element is constant by nature.
        reference_max_abs: largest |reference| over the cases; None where unknown.
        exact: every case equal in every element.
        elements: sum over the cases.
        judgeable: how many cases have a finite, non-empty reference and an array to hold against it.
        cosine_says_nothing: the cosine comes from constant references only.
        audible: as `values`, of the cases whose error is somewhere larger than NEAR_NOTHING, with the worst case.
        by_case: what all of this was made from, in the order of the cases' names.
    """

    cases: int
    kind: Kind
    values: Mapping[str, float | None]
    worst_cases: Mapping[str, str]
    worst_case: str | None
    problems: Mapping[str, Problem]
    details: Mapping[str, str]
    nan: int
    inf: int
    ref_nan: int
    ref_inf: int
    swallowed: int
    zero_cases: Mapping[str, float]
    constant_cases: tuple[str, ...]
    empty_cases: tuple[str, ...]
    largest_constant: int
    reference_max_abs: float | None
    exact: bool
    elements: int
    judgeable: int
    cosine_says_nothing: bool
    audible: Mapping[str, tuple[float, str] | None]
    by_case: Mapping[str, TensorComparison] = field(default_factory=dict, repr=False)

    @property
    def faint_cases(self) -> tuple[str, ...]:
        """Names of the cases where it is a score that is nothing in both: see `FAINT`."""
        return tuple(case for case, c in self.by_case.items() if c.faint)


NEAR_NOTHING = 1e-6
"""An error that is nowhere larger than this, in the output's unit, is that of arithmetic: eight last bits of a number
near 1, which is where scores, gates and probabilities come from.  Around values of that size cosine and SQNR hold
rounding against rounding; `rel_max` still says whether the values are there at all."""

FAINT = 1e-3
"""A score (what a sigmoid gives, between 0 and 1) that is nowhere larger than this says no, and so does one that is off
by no more: a detector that sees nothing.  How far both are apart in relation to their size is chance."""

_RANK: dict[Problem | None, int] = {
    "missing": 5, "dtype": 4, "shape": 3, "nonfinite": 2, "reference_nonfinite": 1, None: 0,
}  # fmt: skip


def summarize(per_case: Mapping[str, TensorComparison]) -> OutputSummary:
    """Fold one output's comparisons over all cases; the order of the cases does not matter."""
    items = sorted(per_case.items())
    sound = [(case, c) for case, c in items if c.reference_kind in ("normal", "constant", "zero")]
    measured = sound or [(case, c) for case, c in items if c.reference_kind == "nonfinite"]
    telling = [(case, c) for case, c in measured if c.reference_kind != "constant"]
    cosine_says_nothing = bool(measured) and not any(c.cosine is not None for _, c in telling)
    values: dict[str, float | None] = {}
    audible: dict[str, tuple[float, str] | None] = {}
    worst_cases: dict[str, str] = {}
    for name, metric in TABLE.items():
        among = measured if metric.of_constants or cosine_says_nothing else telling
        found = [(getattr(c, name), case) for case, c in among if getattr(c, name) is not None]
        worst = metric.worst(found)
        loud = [(getattr(c, name), case) for case, c in among if getattr(c, name) is not None and not _quiet(c)]
        audible[name] = metric.worst(loud)
        values[name] = None if worst is None else worst[0]
        if worst is not None:
            worst_cases[name] = worst[1]
    known = [c.reference_max_abs for _, c in items if c.reference_max_abs is not None]
    scale = max(known, default=None)
    constant = {case: c.elements for case, c in items if c.kind == "float" and c.reference_kind == "constant"}
    return OutputSummary(
        cases=len(items),
        kind="int" if items and all(c.kind == "int" for _, c in items) else "float",
        values=values,
        worst_cases=worst_cases,
        worst_case=max(items, key=lambda item: _badness(item[1], scale))[0] if items else None,
        problems={case: c.problem for case, c in items if c.problem is not None},
        details={case: _detail(c) for case, c in items if c.problem is not None},
        nan=sum(c.nan for _, c in items),
        inf=sum(c.inf for _, c in items),
        ref_nan=sum(c.ref_nan for _, c in items),
        ref_inf=sum(c.ref_inf for _, c in items),
        swallowed=sum(c.swallowed for _, c in items),
        zero_cases={case: c.max_abs for case, c in items if _all_zero(c) and c.max_abs is not None},
        constant_cases=tuple(constant),
        empty_cases=tuple(case for case, c in items if c.reference_kind == "empty"),
        largest_constant=max(constant.values(), default=0),
        reference_max_abs=scale,
        exact=bool(items) and all(c.exact for _, c in items),
        elements=sum(c.elements for _, c in items),
        judgeable=sum(c.problem in (None, "nonfinite") for _, c in sound),
        cosine_says_nothing=cosine_says_nothing,
        audible=audible,
        by_case=dict(items),
    )


def faint(c: TensorComparison) -> bool:
    """Whether a score is nothing in both."""
    known = c.problem is None and c.kind == "float" and c.reference_max_abs is not None and c.max_abs is not None
    return known and max(c.reference_max_abs or 0.0, c.max_abs or 0.0) <= FAINT


def _quiet(c: TensorComparison) -> bool:
    return c.faint or (c.kind == "float" and c.max_abs is not None and c.max_abs <= NEAR_NOTHING)


def _all_zero(c: TensorComparison) -> bool:
    return c.kind == "float" and c.reference_kind == "zero"


def _badness(c: TensorComparison, scale: float | None) -> tuple[float, ...]:
    lost = c.sqnr_db
    if lost is None and c.max_abs and c.kind == "float":
        # An all-zero reference has no SQNR; measure its error against the output's size in the other cases.
        lost = capped_db(amplitude_db(scale or 0.0, c.max_abs))
    return (_RANK[c.problem], c.mismatch or 0.0, -SQNR_CAP_DB if lost is None else -lost, c.max_abs or 0.0)


def _detail(c: TensorComparison) -> str:
    if c.problem == "missing":
        return "no such output came back"
    if c.problem == "shape":
        return f"shape {list(c.got_shape or ())} instead of {list(c.reference_shape)}"
    if c.problem == "dtype":
        return f"{c.got_dtype} instead of {c.reference_dtype}"
    if c.problem == "nonfinite":
        return f"{c.nan} NaN and {c.inf} Inf among {c.elements} elements"
    return f"the reference has {c.ref_nan} NaN and {c.ref_inf} Inf among {c.elements} elements"
