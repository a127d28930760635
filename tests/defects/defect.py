"""One planted defect, and how it is run beside its twin."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.defects.outcome import Fits, Outcome, Said, judged

Way = Literal["archived", "live"]


@dataclass(frozen=True)
class Defect:
    """One defect and its twin: the same procedure with nothing planted.

    way: judged from a recording (a quarter of a second), or run from end to end (seconds).
    real: on a model that somebody uses.  home: what it is run on.
    """

    name: str
    kind: str
    what: str
    way: Way
    home: str
    real: bool
    run: Callable[[], Said]
    twin: Callable[[], Said]
    fits: Fits = field(default_factory=Fits)

    def outcome(self) -> Outcome:
        begin = time.monotonic()
        twin = self.twin()
        said = self.run()
        result, code = judged(said, twin, self.fits)
        return Outcome(
            self.name, self.kind, self.real, self.way, result, said.verdict, code, twin.verdict, twin.grave,
            not twin.healthy, round(time.monotonic() - begin, 2),
        )  # fmt: skip
