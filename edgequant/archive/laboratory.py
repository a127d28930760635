"""What a measurement has beside the times of inferences: how the machine was set up, long runs, energy, operators."""

from __future__ import annotations

from pydantic import Field

from edgequant.archive.record import Name, Record
from edgequant.archive.timing import ConditionsCapture, EnergyCapture


class PeriodCapture(Record):
    """One period of a long run; times in milliseconds of one inference.  at, seconds: since its begin, and long."""

    at: float = Field(ge=0)
    seconds: float = Field(ge=0)
    n: int = Field(ge=1)
    mean: float
    min: float
    max: float
    p50: float
    p90: float
    cpu: float
    work_ms: float
    energy: EnergyCapture | None = None
    conditions: ConditionsCapture


class SustainCapture(Record):
    """A model without a pause.  asked: seconds that it was to take.  begun: the moment before, with `begun_work_ms` of
    known work.  complete: it got to its end."""

    asked: float = Field(gt=0)
    begun: ConditionsCapture | None = None
    begun_work_ms: float | None = None
    periods: tuple[PeriodCapture, ...] = ()
    complete: bool = False


class OperatorCapture(Record):
    """mflops: as MNN counts them, 0 where it does not."""

    name: Name
    type: str
    mflops: float = 0.0
    ms: float


class OperatorsCapture(Record):
    """Medians over `runs` inferences; watched_ms: of whole ones in which each operator was watched, plain_ms: of those
    between them in which none was.  why: there are none."""

    runs: int = 0
    plain_ms: float | None = None
    watched_ms: float | None = None
    operators: tuple[OperatorCapture, ...] = ()
    why: str | None = None
