"""What a runner does for a measurement beside inferences: state and settings of its machine, long runs, operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, Field

from edgequant.deadline import Deadline
from edgequant.runner.answers import Answer, Conditions, Energy, Milliseconds
from edgequant.runner.session import RunnerSession

MAX_PERIODS = 10_000
"""What the runner itself stops at."""

Model = TypeVar("Model", bound=BaseModel)
_Text = Annotated[str, Field(max_length=500)]
_Cores = Annotated[list[Annotated[int, Field(ge=0, lt=4096)]], Field(max_length=4096)]
_Positive = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class State(Answer):
    """What may disturb a timing now, and milliseconds of known work."""

    conditions: Conditions
    work_ms: Milliseconds


class Governor(Answer):
    """set: every core has the one that was asked for.  was: what they had before, and which.  why: it is not set."""

    set: bool
    was: dict[_Text, _Cores] = Field(default_factory=dict, max_length=64)
    why: _Text | None = None


class Cluster(Answer):
    """Cores that are alike.  capacity: of 1024.  mhz: at most.  None: the kernel does not tell."""

    cpus: _Cores = Field(min_length=1)
    capacity: int | None = Field(default=None, ge=0, le=1 << 20)
    mhz: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None


class _Clusters(Answer):
    clusters: list[Cluster] = Field(min_length=1, max_length=4096)


class Begun(Answer):
    """The moment before a long run."""

    conditions: Conditions
    work_ms: Milliseconds


class Period(Answer):
    """One period of a long run: see device_scripts/sustain.py.  cpu: milliseconds of CPU time of one inference."""

    at: _Positive
    seconds: _Positive
    n: int = Field(ge=1, le=10_000_000)
    mean: Milliseconds
    min: Milliseconds
    max: Milliseconds
    p50: Milliseconds
    p90: Milliseconds
    cpu: Milliseconds
    work_ms: Milliseconds
    energy: Energy | None = None
    conditions: Conditions


class Operator(Answer):
    """mflops: as MNN counts them; 0 where it does not."""

    name: _Text
    type: Annotated[str, Field(max_length=100)]
    mflops: _Positive = 0.0
    ms: Milliseconds


class Operators(Answer):
    """Medians over `runs` inferences: of whole ones without calls, of whole ones with them, of each operator."""

    runs: int = Field(ge=1)
    plain_ms: Milliseconds
    watched_ms: Milliseconds
    operators: list[Operator] = Field(min_length=1, max_length=20_000)


class Laboratory:
    """Of one runner.  Every method raises DeviceError.

    seconds: what one job may take.
    """

    def __init__(self, session: RunnerSession, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    def state(self) -> State:
        return self._asked(State, "conditions")

    def clusters(self) -> list[Cluster]:
        """Fastest first; one where cores are alike, or nothing tells them apart."""
        return self._asked(_Clusters, "clusters").clusters

    def governor(self, name: str) -> Governor:
        """Set it on all cores.  The runner gives back what was there at its end, however that comes."""
        return self._asked(Governor, "governor", name=name)

    def sustain(
        self,
        handle: int,
        inputs: Mapping[str, np.ndarray],
        *,
        seconds: float,
        period: float,
        came: Callable[[Begun | Period], None],
    ) -> None:
        """Infer without a pause; `came` gets the moment before, and each period as soon as it is over."""
        count = 0

        def heard(event: dict[str, object]) -> None:
            nonlocal count
            if event.get("event") == "begun":
                came(self._session.checked(Begun, event))
            if event.get("event") == "period":
                count += 1
                if count > MAX_PERIODS:
                    raise self._session.broken(f"it sent more than {MAX_PERIODS} periods")
                came(self._session.checked(Period, event))

        self._session.request(
            "sustain",
            {"handle": handle, "seconds": seconds, "period": period},
            inputs,
            deadline=Deadline(seconds + self._seconds),
            on_event=heard,
        )

    def operators(self, handle: int, inputs: Mapping[str, np.ndarray], *, runs: int, seconds: float) -> Operators:
        """Time of each operator, in a pass of its own.  Only for models without subgraphs."""
        header, _ = self._session.request(
            "operators",
            {"handle": handle, "runs": runs, "seconds": seconds},
            inputs,
            deadline=Deadline(seconds + self._seconds),
        )
        return self._session.checked(Operators, header)

    def _asked(self, model: type[Model], op: str, **header: object) -> Model:
        answer, _ = self._session.request(op, header, deadline=Deadline(self._seconds))
        return self._session.checked(model, answer)
