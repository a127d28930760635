"""What acceptance.json holds: the published schema ``edgequant.acceptance/1``.  Keys may be added, never renamed.

It has all that its states follow from: the rules, each attempt's facts, the baseline's, the day.
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from edgequant.findings import Finding
from edgequant.judge.acceptance_types import ORDER, State, worst_state
from edgequant.judge.verdict import Verdict
from edgequant.report.write import open_schema
from edgequant.spec.accept import TrialKey
from edgequant.spec.rule_metrics import Op
from edgequant.spec.rules import Bound, Scope, WrittenRule
from edgequant.version import __version__

SCHEMA = "edgequant.acceptance/1"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, defer_build=True)


class FactValue(_Model):
    """One number: see `judge.acceptance.Value`."""

    value: bool | int | float | str | None
    why: str = ""
    low: float | None = None
    high: float | None = None
    blocks: tuple[tuple[int, float], ...] = ()
    session: str = ""
    excused: str = ""


class AttemptReport(_Model):
    """One attempt at a trial: see `judge.acceptance.TrialFacts`.  state: of it by itself."""

    state: State
    verdict: Verdict
    error: str = ""
    identity: dict[str, str] = Field(default_factory=dict)
    against: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    random_inputs: bool = False
    folder: str = ""
    facts: dict[str, FactValue] = Field(default_factory=dict)


class DeviceNames(_Model):
    """How else rules may name a device."""

    uri: str
    tags: tuple[str, ...] = ()


class DeviationReport(_Model):
    """One deviation.  used: it accepts something in this run."""

    rule: str | None = None
    finding: str | None = None
    scope: Scope = Field(default_factory=Scope)
    reason: str
    expires: date
    line: int | None = None
    expired: bool = False
    used: bool = False


class RuleReport(_Model):
    """One rule on one trial.  of: what the bound is relative to; bound: what the value was held against, resolved.
    deviation: its place in the list of deviations.  attempts: the state in each."""

    rule: str
    metric: str
    output: str | None = None
    op: Op
    of: Bound
    scope: Scope = Field(default_factory=Scope)
    required: bool = True
    margin: float | None = None
    line: int | None = None
    state: State
    value: bool | int | float | str | None = None
    low: float | None = None
    high: float | None = None
    bound: bool | int | float | str | None = None
    why: str = ""
    deviation: int | None = None
    attempts: tuple[State, ...] = ()


class TrialReport(_Model):
    """One model in one variant on one device.  method: the variant as verify takes it.  informative: it decides
    nothing."""

    model: str
    variant: str
    device: str
    method: str = ""
    state: State
    informative: bool = False
    rules: tuple[RuleReport, ...] = ()
    attempts: tuple[AttemptReport, ...] = ()

    @property
    def key(self) -> TrialKey:
        return TrialKey(self.model, self.variant, self.device)

    @model_validator(mode="after")
    def _not_better_than_its_rules(self) -> TrialReport:
        parts = worst_state([State.PASS, *(each.state for each in self.rules if each.required)])
        if ORDER.index(self.state) < ORDER.index(parts):
            raise ValueError(f"{self.key}: {self.state} is better than its rules' {parts}")
        return self


class BaselineTrial(_Model):
    """What an earlier release had in one trial."""

    model: str
    variant: str
    device: str
    verdict: Verdict
    identity: dict[str, str] = Field(default_factory=dict)
    facts: dict[str, FactValue] = Field(default_factory=dict)


class BaselineReport(_Model):
    """The earlier release that relative rules are held against.  path: as it was given."""

    path: str
    name: str = ""
    trials: tuple[BaselineTrial, ...] = ()


class Acceptance(_Model):
    """The whole.  today: the day against which deviations expire.  spec_sha256: of the spec's text.  tasks: name -> the
    models it is for.  interrupted: it has not come to its end, and may be gone on with."""

    schema_: Literal["edgequant.acceptance/1"] = Field(default="edgequant.acceptance/1", alias="schema")
    state: State
    interrupted: bool = False
    name: str
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc).replace(microsecond=0))
    today: date
    edgequant: str = __version__
    spec: str = ""
    spec_sha256: str = ""
    models: dict[str, str] = Field(default_factory=dict)
    devices: dict[str, DeviceNames] = Field(default_factory=dict)
    tasks: dict[str, str | None] = Field(default_factory=dict)
    rules: tuple[WrittenRule, ...] = ()
    random_inputs: Literal["inconclusive", "accepted"] = "inconclusive"
    trials: tuple[TrialReport, ...] = ()
    deviations: tuple[DeviationReport, ...] = ()
    findings: tuple[Finding, ...] = ()
    baseline: BaselineReport | None = None

    @model_validator(mode="after")
    def _not_better_than_its_trials(self) -> Acceptance:
        parts = worst_state(each.state for each in self.trials if not each.informative)
        if ORDER.index(self.state) < ORDER.index(parts):
            raise ValueError(f"{self.state} is better than its trials' {parts}")
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of acceptance.json."""
    return open_schema(Acceptance, "edgequant.acceptance/1")
