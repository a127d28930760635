"""How long one inference takes."""

from __future__ import annotations

from edgequant.archive.types import TimingCapture
from edgequant.lab.take import Taking, feed, memory_of
from edgequant.runner.client import TimeResult
from edgequant.spec import RunOptions

TIMING_MIN_SECONDS = 0.5
"""At least this long is timed: on a fast model 20 samples would be over before the clock frequency settles."""
TIMING_MAX_SECONDS = 30.0


class LatencyProbe:
    """Times the middle case; every sample is kept, those before a death too."""

    name = "timing"

    def __init__(self, options: RunOptions) -> None:
        self._options = options

    def take(self, taking: Taking) -> None:
        place, case = taking.place, taking.middle
        timed = TimeResult()
        try:
            place.runner.time(
                place.loaded,
                feed(place.loaded, case.inputs),
                warmup=self._options.warmup,
                repeat=self._options.repeat,
                min_seconds=TIMING_MIN_SECONDS,
                max_seconds=TIMING_MAX_SECONDS,
                into=timed,
            )
        finally:
            end = timed.end
            taking.timings.append(
                TimingCapture(
                    case=case.name,
                    samples_ms=tuple(timed.samples),
                    warmup=timed.warmup,
                    complete=None if end is None else end.complete,
                    memory=None if end is None else memory_of(end.memory),
                    seconds=timed.seconds,
                    outputs=None if end is None else taking.refs(timed.outputs),
                )
            )
