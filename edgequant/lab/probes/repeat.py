"""Whether it computes the same twice."""

from __future__ import annotations

from edgequant.errors import RunnerError
from edgequant.lab.take import Taking, each_case, refusal_of


class RepeatProbe:
    """Runs every case once more, the last one first: each comes after other sizes than before."""

    name = "repeat"

    def take(self, taking: Taking) -> None:
        for case, result in each_case(taking.place, reversed(taking.done)):
            kept = refusal_of(case, result) if isinstance(result, RunnerError) else taking.keep(case, result)
            taking.repeated.append(kept)
