"""Limits on what an output may be off by, as users write them."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from edgequant.errors import InputError
from edgequant.problems import first_problem

Direction = Literal[">=", "<="]

METRICS: dict[str, Direction] = {
    "cosine": ">=",
    "sqnr_db": ">=",
    "max_abs": "<=",
    "rel_max": "<=",
    "mean_abs": "<=",
    "p99_abs": "<=",
    "mismatch": "<=",
    "device_sqnr_db": ">=",
}
"""Metrics a limit can name, each with the direction that is good."""

DEVICE_METRIC = "device_sqnr_db"
"""The one that holds a device against this host instead of against the reference."""

SQNR_CAP_DB = 200.0
"""SQNR is kept within +-200 dB: identical arrays would give infinity, which JSON cannot carry.  Two float32 arrays that
differ at all stay below about 160 dB; float64 reaches about 320 dB, where the difference no longer matters."""

_BEST = {"cosine": 1.0, "sqnr_db": SQNR_CAP_DB, DEVICE_METRIC: SQNR_CAP_DB}
"""Of the metrics with a lower bound; the others cannot be below 0."""


class Limit(BaseModel):
    """One condition on one metric, of one output or (output None) of every output.

    A bound in the metric's wrong direction (``cosine<=0.9``) would pass what is bad, so it is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    output: str | None = None
    metric: str
    op: Direction
    value: float

    @model_validator(mode="after")
    def _sane(self) -> Limit:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric '{self.metric}'; there are {', '.join(METRICS)}")
        if self.op != METRICS[self.metric]:
            raise ValueError(f"'{self.metric}' is bounded with {METRICS[self.metric]}")
        if not math.isfinite(self.value):
            raise ValueError("the bound must be a finite number")
        if self.value > _BEST[self.metric] if self.op == ">=" else self.value < 0:
            best = _BEST.get(self.metric, 0)
            raise ValueError(f"nothing can keep it: the best '{self.metric}' there is is {best:g}")
        return self

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``sqnr_db>=30`` or ``lsnr:cosine>=0.99``.  Raises InputError (LIMIT_INVALID)."""
        # The output may itself hold colons (TensorFlow's "x:0"), so it is everything before the last one.
        match = re.fullmatch(r"(?:(?P<output>.+):)?\s*(?P<metric>\w+)\s*(?P<op>>=|<=)\s*(?P<value>\S+)\s*", text)
        try:
            if not match:
                raise ValueError("not of the form [OUTPUT:]METRIC>=X or [OUTPUT:]METRIC<=X")
            # float() also reads 0_9 and the digits of other scripts, which nobody means.
            if not re.fullmatch(r"[-+.0-9eE]+|[-+]?(?:inf|nan)", match["value"]):
                raise ValueError(f"'{match['value']}' is not a number")
            return cls.model_validate({**match.groupdict(), "value": float(match["value"])})
        except ValidationError as error:
            why = first_problem(error)
        except ValueError as error:
            why = str(error)
        raise InputError(
            "LIMIT_INVALID", f"limit '{text}': {why}", hint="For example: sqnr_db>=30 or lsnr:cosine>=0.99."
        )

    def __str__(self) -> str:
        return f"{self.output + ':' if self.output else ''}{self.metric}{self.op}{self.value:g}"
