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
        better: ``>=`` where more of it is better, ``<=`` where less is.
        kinds: of output that it is defined for.
        of_constants: whether it says something where the reference has one value only: any two positive constants
            have a cosine of 1.
        decimals: shown to so many, rounded down, so that nothing looks better than it is; None: three digits.
        title: above its column.
    """

    name: str
    better: Direction
    kinds: frozenset[Kind] = frozenset({"float"})
    of_constants: bool = True
    decimals: int | None = None
    title: str = ""

    def worst(self, cases: Iterable[tuple[float, _Case]]) -> tuple[float, _Case] | None:
        """How it is folded: the worst of the cases, of equals the first; None where there are none."""
        pick: Callable[..., tuple[float, _Case] | None] = min if self.better == ">=" else max
        return pick(cases, key=lambda pair: pair[0], default=None)


def _metric(
    name: str,
    *kinds: Kind,
    of_constants: bool = True,
    decimals: int | None = None,
    title: str | None = None,
) -> Metric:
    better = METRICS[name.removeprefix("centered_")]
    return Metric(name, better, frozenset(kinds or ("float",)), of_constants, decimals, title or name.replace("_", " "))


TABLE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("cosine", of_constants=False, decimals=5),
        _metric("centered_cosine", decimals=5),
        _metric("sqnr_db", decimals=1, title="SQNR dB"),
        _metric("centered_sqnr_db", decimals=1, title="centered SQNR dB"),
        _metric("max_abs", "float", "int"),
        _metric("rel_max"),
        _metric("mean_abs"),
        _metric("p99_abs"),
        _metric("mismatch", "int"),
    )
}
"""By name, in the order in which they are reported."""
