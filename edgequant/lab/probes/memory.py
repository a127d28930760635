"""What MNN says a session of the model holds."""

from __future__ import annotations

from edgequant.archive.types import SessionCapture
from edgequant.cases.case import Case
from edgequant.errors import RunnerError
from edgequant.lab.take import Place, Taking, feed


def session_memory(place: Place, case: Case) -> tuple[float | None, str | None]:
    """MNN's MB (2^20 bytes) with the sizes of a case, or why it does not tell."""
    shapes = {name: tuple(array.shape) for name, array in feed(place.loaded, case.inputs).items()}
    try:
        return place.runner.session_memory(place.loaded, shapes), None
    except RunnerError as error:
        if error.code.startswith("RUNNER_"):
            raise
        return None, error.message


class SessionMemoryProbe:
    """Loads the model a second time: whatever is measured of the process comes before it."""

    name = "memory"

    def __init__(self, *, has_subgraphs: bool) -> None:
        self._subgraphs = has_subgraphs

    def take(self, taking: Taking) -> None:
        if self._subgraphs:
            why = "the model has subgraphs: only MNN's Interpreter tells, and it cannot run them"
            taking.session = SessionCapture(why=why)
            return
        mb, why_null = session_memory(taking.place, taking.middle)
        taking.session = SessionCapture(mb=mb, why=why_null)
