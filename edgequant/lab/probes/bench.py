"""One block of a measurement: how long inferences take in a process of their own, and what was going on meanwhile."""

from __future__ import annotations

from edgequant.archive.timing import ConditionsCapture, EnergyCapture, Readied, TimingCapture
from edgequant.lab.take import Taking, feed, memory_of
from edgequant.runner.client import TimeResult

CAP_SECONDS = 600.0
"""What a block may take beyond what is asked for."""


class BenchProbe:
    """Times the middle case.  Every sample is kept, those before a death too."""

    name = "bench"

    def __init__(self, *, runs: int, seconds: float, warm_seconds: float, readied: Readied | None = None) -> None:
        self._readied = readied
        self._runs = runs
        self._seconds = seconds
        self._warm_seconds = warm_seconds

    def take(self, taking: Taking) -> None:
        place, case = taking.place, taking.middle
        timed = TimeResult()
        try:
            place.runner.bench(
                place.loaded,
                feed(place.loaded, case.inputs),
                runs=self._runs,
                seconds=self._seconds,
                warm_seconds=self._warm_seconds,
                max_seconds=self._warm_seconds + self._seconds + CAP_SECONDS,
                into=timed,
            )
        finally:
            end = timed.block
            taking.timings.append(
                TimingCapture(
                    case=case.name,
                    samples_ms=tuple(timed.samples),
                    cpu_ms=tuple(timed.cpu),
                    warmup=timed.warmup,
                    complete=None if end is None else end.complete,
                    steady=None if end is None else end.steady,
                    work_ms=() if end is None else tuple(end.work_ms),
                    conditions=()
                    if end is None
                    else tuple(ConditionsCapture.model_validate(each.model_dump()) for each in end.conditions),
                    memory=None if end is None else memory_of(end.memory),
                    seconds=timed.seconds,
                    looped=timed.looped,
                    energy=None
                    if end is None or end.energy is None
                    else EnergyCapture.model_validate(end.energy.model_dump()),
                    readied=self._readied,
                    outputs=None if end is None else taking.refs(timed.outputs),
                )
            )
