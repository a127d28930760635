"""How long one inference takes."""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.archive.types import TimingCapture
from edgequant.archive.witness import Thread
from edgequant.errors import RunnerError
from edgequant.lab.take import Taking, feed, memory_of
from edgequant.lab.witness import cpu_times, during
from edgequant.runner.client import TimeResult
from edgequant.spec import RunOptions

TIMING_MIN_SECONDS = 0.5
"""At least this long is timed: on a fast model 20 samples would be over before the clock frequency settles."""
TIMING_MAX_SECONDS = 30.0
APART = 3
"""Inferences by themselves: the fastest counts, for a single one may have been held up."""
_STEP = 2.0**-10


class LatencyProbe:
    """Times the middle case; every sample is kept, those before a death too.

    Then the same once more by itself, each time on numbers that were not there before: neither a loop that does not
    compute nor a cache of what was computed once is as fast there.
    """

    name = "timing"

    def __init__(self, options: RunOptions) -> None:
        self._options = options

    def take(self, taking: Taking) -> None:
        place, case = taking.place, taking.middle
        timed = TimeResult()
        apart: tuple[float, ...] = ()
        threads: tuple[Thread, ...] = ()
        seen = not place.session.device.is_host
        try:
            before = cpu_times(place.session) if seen else {}
            place.runner.time(
                place.loaded,
                feed(place.loaded, case.inputs),
                warmup=self._options.warmup,
                repeat=self._options.repeat,
                min_seconds=TIMING_MIN_SECONDS,
                max_seconds=TIMING_MAX_SECONDS,
                into=timed,
            )
            threads = during(before, cpu_times(place.session)) if before else ()
            apart = tuple(self._apart(taking))
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
                    looped=timed.looped,
                    apart_ms=apart,
                    outputs=None if end is None else taking.refs(timed.outputs),
                    threads=threads,
                )
            )

    def _apart(self, taking: Taking) -> Iterator[float]:
        place = taking.place
        for number in range(1, APART + 1):
            inputs = {
                name: (array * (1 - number * _STEP)).astype(array.dtype) if array.dtype.kind == "f" else array
                for name, array in taking.middle.inputs.items()
            }
            try:
                yield place.runner.run(place.loaded, feed(place.loaded, inputs)).ms
            except RunnerError as error:
                if error.code != "INFERENCE_FAILED":
                    raise
                return  # other numbers may be too much for a model; then nothing is known
