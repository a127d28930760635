"""How long each operator takes."""

from __future__ import annotations

from edgequant.archive.laboratory import OperatorCapture, OperatorsCapture
from edgequant.errors import RunnerError
from edgequant.lab.take import Taking, feed

SUBGRAPHS = "the model has subgraphs: only MNN's Interpreter tells of operators, and it cannot run them"


class OperatorsProbe:
    """A pass of its own: its times are no latency."""

    name = "operators"

    def __init__(self, *, has_subgraphs: bool, runs: int = 10, seconds: float = 2.0) -> None:
        self._subgraphs = has_subgraphs
        self._runs = runs
        self._seconds = seconds

    def take(self, taking: Taking) -> None:
        place = taking.place
        if self._subgraphs:
            taking.operators = OperatorsCapture(why=SUBGRAPHS)
            return
        try:
            told = place.runner.laboratory.operators(
                place.loaded.handle, feed(place.loaded, taking.middle.inputs), runs=self._runs, seconds=self._seconds
            )
        except RunnerError as error:
            if error.code.startswith("RUNNER_"):
                raise
            taking.operators = OperatorsCapture(why=error.message)
            return
        taking.operators = OperatorsCapture(
            runs=told.runs, plain_ms=told.plain_ms, watched_ms=told.watched_ms,
            operators=tuple(OperatorCapture.model_validate(each.model_dump()) for each in told.operators),
        )  # fmt: skip
