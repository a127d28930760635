"""Every metric, and all that is known of it in one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from edgequant.spec.limits import METRICS, Direction

Kind = Literal["float", "int"]
_Case = TypeVar("_Case")


@dataclass(frozen=True)
class Metric:
    """One measure of how far an output is from its reference; `metrics.TensorComparison` has the formulas.

    Attributes:
        name: as in comparisons, reports and limits.
        title: above its column.
        better: ``>=`` where more of it is better, ``<=`` where less is.
        kinds: of output that it is defined for.
        of_constants: whether it says something where the reference has one value only: any two positive constants
            have a cosine of 1.
        decimals: shown to so many, rounded down, so that nothing looks better than it is; None: three digits.
    """

    name: str
    title: str
    better: Direction
    kinds: frozenset[Kind] = frozenset({"float"})
    of_constants: bool = True
    decimals: int | None = None

    def worst(self, cases: Iterable[tuple[float, _Case]]) -> tuple[float, _Case] | None:
        """How it is folded: the worst of the cases, of equals the first; None where there are none."""
        pick: Callable[..., tuple[float, _Case] | None] = min if self.better == ">=" else max
        return pick(cases, key=lambda pair: pair[0], default=None)


TABLE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("cosine", "cosine", METRICS["cosine"], of_constants=False, decimals=5),
        Metric("centered_cosine", "centered cosine", METRICS["cosine"], decimals=5),
        Metric("sqnr_db", "SQNR dB", METRICS["sqnr_db"], decimals=1),
        Metric("centered_sqnr_db", "centered SQNR dB", METRICS["sqnr_db"], decimals=1),
        Metric("max_abs", "max abs", METRICS["max_abs"], frozenset({"float", "int"})),
        Metric("rel_max", "rel max", METRICS["rel_max"]),
        Metric("mean_abs", "mean abs", METRICS["mean_abs"]),
        Metric("p99_abs", "p99 abs", METRICS["p99_abs"]),
        Metric("mismatch", "mismatch", METRICS["mismatch"], frozenset({"int"})),
    )
}
"""By name, in the order in which they are reported."""
