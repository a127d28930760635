"""Whether it computes the same twice."""

from __future__ import annotations

from edgequant.lab.take import Taking, feed


class RepeatProbe:
    """Runs the middle case once more, after all others."""

    name = "repeat"

    def take(self, taking: Taking) -> None:
        place, case = taking.place, taking.middle
        result = place.runner.run(place.loaded, feed(place.loaded, case.inputs))
        taking.repeated.append(taking.keep(case, result))
