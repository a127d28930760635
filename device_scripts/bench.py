"""One block of a measurement: warm up until it is at rest, then time, and note what was going on meanwhile."""

from __future__ import annotations

import gc
import time
from typing import Any, Callable, Dict, List, Tuple

from . import conditions, energy

FAST, SLOW = 0.1, 0.005
"""Weights of the two moving averages, and below what they have to agree, so often in a row: as Jetpack Benchmark's
WarmupManager has it."""
ALIKE = 0.04
IN_A_ROW = 40
LEAST, LEAST_SECONDS, MOST_SECONDS = 30, 0.25, 8.0
MAX_SAMPLES = 1000000


class WarmUp:
    """Whether inferences take as long as they will."""

    def __init__(self, most: float = MOST_SECONDS) -> None:
        self._most = most
        self.count = 0
        self.steady = False
        self._fast = self._slow = 0.0
        self._alike = 0
        self._seconds = 0.0

    def add(self, ms: float) -> bool:
        """Take one inference; whether that is enough."""
        self.count += 1
        self._seconds += ms / 1e3
        if self.count == 1:
            self._fast = self._slow = ms
            return False
        self._fast += FAST * (ms - self._fast)
        self._slow += SLOW * (ms - self._slow)
        # A slow average remembers a slow start for hundreds of inferences: it starts anew where it is left behind.
        if self._slow > 0 and abs(self._fast / self._slow - 1) <= ALIKE:
            self._alike += 1
        else:
            self._alike, self._slow = 0, self._fast
        at_rest = self._alike >= IN_A_ROW
        self.steady = at_rest and self.count >= LEAST and self._seconds >= LEAST_SECONDS
        return self.steady or self._seconds >= self._most


def block(
    timed: Callable[[], Tuple[float, Any]], header: Dict[str, Any], emit: Callable[[Dict[str, Any]], None], every: float
) -> Tuple[Dict[str, Any], Any]:
    """Warm up for at most `warm_seconds`, then at least `runs` inferences and `seconds`, at most `max_seconds` in all.

    timed: one inference, its milliseconds and outputs.  every: seconds between two messages, each with the samples
    since the last one: milliseconds by the clock, and of CPU time of all threads.  Returns the answer and the last
    outputs.
    """
    runs, limit = int(header["runs"]), time.perf_counter() + float(header["max_seconds"])
    noted = [conditions.read()]
    meter = energy.Meter()
    work = [conditions.known_work()]
    warm = WarmUp(float(header["warm_seconds"]))
    results = None  # type: Any
    gc_was_on = gc.isenabled()
    gc.disable()  # a collection in the middle of a sample would be ours, not the model's
    try:
        while True:
            results = None
            elapsed, results = timed()
            if warm.add(elapsed) or time.perf_counter() >= limit:
                break
        emit({"event": "warm", "warmup": warm.count})
        work.append(conditions.known_work())
        noted.append(conditions.read())
        samples: List[float] = []
        cpu: List[float] = []
        sent = 0
        meter.start()
        begin = last = time.perf_counter()
        enough = begin + float(header["seconds"])
        while True:
            results = None  # what the last one made must not be held while the next is timed
            before = time.process_time_ns()
            elapsed, results = timed()
            cpu.append((time.process_time_ns() - before) / 1e6)
            samples.append(elapsed)
            meter.note()
            now = time.perf_counter()
            if (len(samples) >= runs and now >= enough) or now >= limit or len(samples) >= MAX_SAMPLES:
                break
            if now - last >= every:
                emit({"event": "samples", "samples": samples[sent:], "cpu": cpu[sent:]})
                noted.append(conditions.read())
                sent, last = len(samples), time.perf_counter()
        spent = meter.stop()
        noted.append(conditions.read())
        work.append(conditions.known_work())
    finally:
        if gc_was_on:
            gc.enable()
    emit({"event": "samples", "samples": samples[sent:], "cpu": cpu[sent:]})
    answer = {
        "warmup": warm.count,
        "steady": warm.steady,
        "n": len(samples),
        "complete": len(samples) >= runs and now >= enough,
        "work_ms": work,
        "energy": spent,
        "conditions": noted[:2] + noted[2:][-3000:],
    }
    return answer, results
