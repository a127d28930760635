"""What the host believes of a rollout that a runner sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgequant.device_scripts import rollout as loop
from edgequant.device_scripts.server import Job
from edgequant.errors import RunnerError
from edgequant.runner.rolling import Asked, RollResult, roll

ASKED = Asked(5, {"h": "hN"}, {"h": np.zeros(2, np.float32)}, {"x": np.ones((2, 2), np.float32)})
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], object]


class Lying:
    """A runner's session whose answers are those of the real loop, changed on their way."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def request(self, _op: str, header: Any, tensors: Any, **_: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        job = Job({**header}, tensors, lambda _: None)
        told, arrays = loop.roll(job, lambda inputs: {"hN": inputs["h"] + inputs["x"]})
        assert arrays is not None
        found = dict(arrays)
        self._change(told, found)
        return told, found

    def checked(self, model: Any, header: Any) -> Any:
        try:
            return model.model_validate(header)
        except ValueError as error:
            raise self.broken(str(error)) from None

    def broken(self, why: str) -> RunnerError:
        return RunnerError("RUNNER_PROTOCOL", why)


def rolled(change: Change) -> RollResult:
    return roll(Lying(change), 1, ASKED, seconds=9, outputs=["hN"])  # type: ignore[arg-type]


def test_an_answer_as_it_should_be() -> None:
    found = rolled(lambda _told, _arrays: None)
    assert found.done == 5
    assert found.outputs["hN"].steps == (1, 2, 3, 4, 5)
    assert found.outputs["hN"].kept[:, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        lambda told, _: told.update(done=6),
        lambda told, _: told.update(done=0),
        lambda told, _: told.update(outputs=["other"]),
        lambda told, _: told.update(kept=[]),
        lambda told, _: told.update(kept=[[1, 2, 3, 4, 4]]),
        lambda told, _: told.update(kept=[[1, 2, 3, 4, 9]]),
        lambda told, _: told.update(kept=[[0, 1, 2, 3, 4]]),
        lambda told, _: told.update(kept=[[1, 2, 3]]),
        lambda told, _: told.update(kept=[[]]),
        lambda told, _: told.update(ms=float("nan")),
        lambda _, arrays: arrays.pop("kept/0"),
        lambda _, arrays: arrays.pop("stats/0"),
        lambda _, arrays: arrays.update({"stats/0": np.zeros((4, 5))}),
        lambda _, arrays: arrays.update({"stats/0": np.zeros((5, 5), np.float32)}),
        lambda _, arrays: arrays.update({"kept/0": np.array(3, np.float32)}),
    ],
)
def test_an_answer_that_cannot_be_ends_the_runner(change: Change) -> None:
    with pytest.raises(RunnerError) as error:
        rolled(change)
    assert error.value.code == "RUNNER_PROTOCOL"
