"""How far a search is, and how long the rest will take, from what it measured itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edgequant.progress import Progress, Show

_FEW = 8
"""Models of one batch after which the time of one is known."""
_SOONEST, _LATEST = 10.0, 60.0
"""Seconds between two lines: a third of what has gone by, and within these, so that no log is flooded."""


class Pace:
    """Counts the models a search measures, and says now and then how long the rest will take.

    A search goes in stages.  How many models the ones to come will take is known but for their ends: an assignment
    found twice is run once, and refining ends when nothing is gained.  So all is "about" or "at most".
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock = progress, clock
        self._started = self._told = clock()
        self._stages: list[int] = []
        self._more = self._settings = self._left = self._measured = 0
        self._each: float | None = None
        self._silent = True

    def ahead(self, stages: Sequence[int], *, more: int = 0, settings: int = 1) -> None:
        """Models of each stage to come.

        Args:
            more: how many more, at most, there may be for each setting that is refined.  0: these stages are the last,
                and may end early.
            settings: how many may be refined.
        """
        self._stages, self._more, self._settings, self._left = list(stages), more, settings, 0

    def announce(self, layers: int, forms: int, memories: Sequence[str], given: int, cases: int) -> None:
        """Say what is ahead, before anything is measured."""
        varied = f", {cases - given} varied copies of them" if cases > given else ""
        said = (
            f"auto: {layers} layers, up to {forms} forms each, memory {' and '.join(memories)}, with and without hqq, "
        )
        said += f"on {cases} cases ({given} given{varied}): about {sum(self._stages)} models to measure"
        self._progress.say(
            said + (f", then at most {self._more} for each of up to {self._settings} settings" if self._more else "")
        )

    def begin(self, text: str) -> None:
        """The next stage begins."""
        self._progress.say(text)
        self._left = self._stages.pop(0) if self._stages else 0

    def skip(self, count: int) -> None:
        """So many models of this stage are known from an earlier search."""
        self._left = max(0, self._left - count)

    @contextmanager
    def measuring(self, count: int) -> Iterator[Show]:
        """So many models are measured now; the yielded function takes how many of them are done."""
        before, left = self._measured, self._left
        first: tuple[int, float] | None = None

        def show(done: int) -> None:
            nonlocal first
            bar(done)
            self._measured, self._left = before + done, max(0, left - done)
            # Without the first, which bears the start of the process.
            if first is None and done:
                first = done, self._clock()
            elif first is not None and done - first[0] >= _FEW:
                self._each = (self._clock() - first[1]) / (done - first[0])
            self._tell()

        with self._progress.counting("auto: models measured", count) as bar:
            yield show
            show(count)

    def _tell(self) -> None:
        now = self._clock()
        gone, left = now - self._started, self._left + sum(self._stages)
        wait = 0.0 if self._silent else min(max(_SOONEST, gone / 3), _LATEST)
        if self._each is None or left + self._more == 0 or now - self._told < wait:
            return
        self._told, self._silent = now, False
        said = f"auto: {self._measured} models measured, {spoken(gone)} gone; "
        if self._more:
            most = (left + self._more * self._settings) * self._each
            said += f"{spoken(left * self._each)} to {spoken(most)} to go, by how many settings are worth refining"
        else:
            said += f"at most about {spoken(left * self._each)} to go"
        self._progress.say(said)


def spoken(seconds: float) -> str:
    """A time as one says it: 40 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
