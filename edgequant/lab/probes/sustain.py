"""One model without a pause, period by period."""

from __future__ import annotations

from collections.abc import Callable

from edgequant.archive.laboratory import PeriodCapture, SustainCapture
from edgequant.archive.timing import ConditionsCapture
from edgequant.lab.take import Taking, feed
from edgequant.runner.laboratory import Begun, Period


class SustainProbe:
    """Of the middle case.  `came` is called with all there is as soon as a period is over: a run of an hour that is
    ended half-way has half an hour."""

    name = "sustain"

    def __init__(self, seconds: float, period: float, came: Callable[[SustainCapture], None]) -> None:
        self._seconds = seconds
        self._period = period
        self._came = came

    def take(self, taking: Taking) -> None:
        place = taking.place
        taking.sustained = SustainCapture(asked=self._seconds)

        def heard(event: Begun | Period) -> None:
            assert taking.sustained is not None
            if isinstance(event, Begun):
                taking.sustained = taking.sustained.model_copy(
                    update={
                        "begun": ConditionsCapture.model_validate(event.conditions.model_dump()),
                        "begun_work_ms": event.work_ms,
                    }
                )
                return
            period = PeriodCapture.model_validate(event.model_dump())
            taking.sustained = taking.sustained.model_copy(update={"periods": (*taking.sustained.periods, period)})
            self._came(taking.sustained)

        place.runner.laboratory.sustain(
            place.loaded.handle, feed(place.loaded, taking.middle.inputs),
            seconds=self._seconds, period=self._period, came=heard,
        )  # fmt: skip
        taking.sustained = taking.sustained.model_copy(update={"complete": True})
