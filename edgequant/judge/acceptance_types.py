"""What judging a release takes, and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from edgequant.errors import EXIT_ERROR, EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_PASS
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.spec.accept import Deviation, TrialKey
from edgequant.spec.rules import Rule


class State(str, Enum):
    """What is said of a rule, a trial or a release."""

    PASS = "PASS"  # noqa: S105 - no password
    MARGINAL = "MARGINAL"
    """Kept, but by less than the margin."""
    ACCEPTED = "ACCEPTED"
    """Broken, and a deviation that has not expired says why that is borne."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """It could not be evaluated."""
    FLAKY = "FLAKY"
    """It failed in one attempt and passed in another."""
    ERROR = "ERROR"
    """Its trial could not be run."""
    FAIL = "FAIL"

    @property
    def exit_code(self) -> int:
        return _EXIT[self]

    def __str__(self) -> str:
        return self.value


_EXIT = {
    State.PASS: EXIT_PASS,
    State.MARGINAL: EXIT_PASS,
    State.ACCEPTED: EXIT_PASS,
    State.INCONCLUSIVE: EXIT_INCONCLUSIVE,
    State.FLAKY: EXIT_INCONCLUSIVE,
    State.ERROR: EXIT_ERROR,
    State.FAIL: EXIT_FAIL,
}
ORDER = tuple(State)
"""From the best to the worst."""


def worst_state(states: Iterable[State]) -> State:
    """FAIL > ERROR > FLAKY > INCONCLUSIVE > ACCEPTED > MARGINAL > PASS; nothing at all is ERROR."""
    return max(states, key=ORDER.index, default=State.ERROR)


@dataclass(frozen=True)
class Value:
    """One number of one trial.

    Attributes:
        value: None where there is none, or none that is valid; `why` says why.
        low, high: its 95 % interval.
        blocks: (round, the same number of that block alone), for ratios.
        session: what was measured in the same session has the same; its blocks are compared round by round.
        excused: why a bound is kept whatever the number is: "its error is that of arithmetic".
    """

    value: float | str | bool | None
    why: str = ""
    low: float | None = None
    high: float | None = None
    blocks: tuple[tuple[int, float], ...] = ()
    session: str = ""
    excused: str = ""


Facts = Mapping[str, Value]
"""Metric -> value; ``OUTPUT:metric`` where it is of an output; ``finding:CODE`` -> True for each finding there is."""


@dataclass(frozen=True)
class TrialFacts:
    """What one attempt at a trial has brought.

    Attributes:
        verdict: the trial's own.
        identity: what must be alike for a comparison: cases, memory, precision, threads, cores, cpu, device.
        error: why it could not be run.
        against: what speaks against it: ``finding:CODE``, or ``limit:OUTPUT:METRIC>=BOUND`` of each broken limit.
        doubts: codes of what keeps it from being judged.
        random_inputs: it has seen no inputs of the user's.
        folder: of the attempt, relative to that of the acceptance.
    """

    key: TrialKey
    verdict: Verdict
    facts: Facts
    identity: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    against: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    random_inputs: bool = False
    folder: str = ""


@dataclass(frozen=True)
class RuleResult:
    """One rule on one trial.

    Attributes:
        bound: what the value was held against, resolved; None where there was nothing.
        deviation: the one that accepts it.
        attempts: the state in each of them.
    """

    rule: Rule
    trial: TrialKey
    state: State
    value: Value
    bound: float | str | bool | None
    why: str
    deviation: Deviation | None = None
    attempts: tuple[State, ...] = ()


@dataclass(frozen=True)
class TrialResult:
    """One trial: the worst of its required rules.  informative: it only serves others to be held against."""

    key: TrialKey
    state: State
    rules: tuple[RuleResult, ...]
    attempts: tuple[State, ...]
    informative: bool = False


@dataclass(frozen=True)
class AcceptanceJudgement:
    """The whole: the worst of its trials.  used: deviations that accept something."""

    state: State
    trials: tuple[TrialResult, ...]
    findings: tuple[Finding, ...] = ()
    used: tuple[Deviation, ...] = ()
