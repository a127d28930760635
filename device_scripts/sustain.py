"""One model without a pause, for as long as somebody wants: what it takes when the device is warm through."""

from __future__ import annotations

import gc
import time
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from . import conditions, energy

MAX_PERIODS = 10000
MAX_SAMPLES = 2000000
"""Of one period: what a loop over nothing could reach in a minute."""


def run(
    timed: Callable[[], Tuple[float, Any]], header: Dict[str, Any], emit: Callable[[Dict[str, Any]], None]
) -> Dict[str, Any]:
    """Infer for `seconds`, and send what each `period` of seconds was like as soon as it is over.

    What a period has is reduced here: a model of 0.1 ms brings 6 million samples in ten minutes.  The first message is
    of the moment before.
    """
    period = float(header["period"])
    begin = time.perf_counter()
    end = begin + float(header["seconds"])
    emit({"event": "begun", "conditions": conditions.read(), "work_ms": conditions.known_work()})
    periods = 0
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        while time.perf_counter() < end and periods < MAX_PERIODS:
            meter = energy.Meter()
            meter.start()
            start, cpu = time.perf_counter(), time.process_time()
            until = min(start + period, end)
            samples: List[float] = []
            now = start
            while now < until and len(samples) < MAX_SAMPLES:
                elapsed, results = timed()
                del results
                samples.append(elapsed)
                meter.note()
                now = time.perf_counter()
            cpu = time.process_time() - cpu
            noted = conditions.read()
            array = np.array(samples)
            emit(
                {
                    "event": "period",
                    "at": start - begin,
                    "seconds": now - start,
                    "n": len(samples),
                    "mean": float(array.mean()),
                    "min": float(array.min()),
                    "max": float(array.max()),
                    "p50": float(np.percentile(array, 50)),
                    "p90": float(np.percentile(array, 90)),
                    "cpu": cpu * 1e3 / len(samples),
                    "work_ms": conditions.known_work(),
                    "energy": meter.stop(),
                    "conditions": noted,
                }
            )
            periods += 1
            gc.collect()
    finally:
        if gc_was_on:
            gc.enable()
    return {"periods": periods}
