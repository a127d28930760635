"""What a release has to keep, as users write it: models x variants x devices, and rules (`edgequant accept`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, field_validator, model_validator

from edgequant.errors import InputError
from edgequant.spec import Access, Decision, Limit, RunOptions, Variant
from edgequant.spec.images import ImageOptions
from edgequant.spec.numbers import Count, Number, Switch
from edgequant.spec.options import _Strict
from edgequant.spec.rule_metrics import TASK
from edgequant.spec.rules import Glob, Rule, Scope, WrittenRule, fits, limit_of, only, parse_rule

_NAME = r"^[^\x00-\x1f\x7f/*?]{1,100}$"
"""Of a model, a variant or a device: a glob must not mean a name."""
Name = Annotated[str, Field(pattern=_NAME)]
FLOAT = "float"
"""The variant that relative rules are held against."""
MOST_TRIALS = 10_000
MOST_RESULTS = 300_000
"""Rules times trials: what is more is a mistake, and takes minutes to look at."""


class TrialKey(NamedTuple):
    """One model in one variant on one device, by the names of the spec."""

    model: str
    variant: str
    device: str

    def __str__(self) -> str:
        return f"{self.model}, {self.variant}, {self.device}"


def _mapping(key: str, entry: Any) -> BeforeValidator:
    """One value alone stands for the mapping that has it under `key`."""
    return BeforeValidator(
        lambda data: {key: data} if isinstance(data, str) else data, json_schema_input_type=str | entry
    )


def _written(schema: Any) -> BeforeValidator:
    """What the published schema says of something that is parsed."""
    return BeforeValidator(lambda data: data, json_schema_input_type=schema)


class VariantEntry(_Strict):
    """A variant, with what is asked of it alone.  name: by default the variant as it is written."""

    variant: str = Field(max_length=4200)
    name: Name | None = None
    options: RunOptions = Field(default_factory=RunOptions)
    goals: tuple[str, ...] = Field(default=(), max_length=1000)
    budget: Literal["size", "latency"] = "size"
    fallback: Switch = True

    @field_validator("variant")
    @classmethod
    def _one_way(cls, text: str) -> str:
        try:
            return str(Variant.parse(text))
        except InputError as error:
            raise ValueError(error.message) from None

    @field_validator("goals")
    @classmethod
    def _goals(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            limit_of(text)
        return texts

    @model_validator(mode="after")
    def _float_is_float(self) -> VariantEntry:
        if self.name == FLOAT and self.variant != FLOAT:
            raise ValueError(f"'{FLOAT}' is the name of what rules are held against: {self.variant} needs another")
        return self

    @property
    def key(self) -> str:
        return self.name or self.variant


Variants = Annotated[tuple[Annotated[VariantEntry, _mapping("variant", VariantEntry)], ...], Field(max_length=1000)]


class ModelEntry(_Strict):
    """A source model and its cases: what VerifySpec has of one.  variants, devices: in place of the spec's own;
    devices are names."""

    path: Path
    inputs: Path | None = None
    reference: Path | None = None
    calibration: str | None = Field(default=None, min_length=1, max_length=4000)
    images: ImageOptions | None = None
    shapes: dict[str, tuple[Count, ...]] = Field(default_factory=dict, max_length=10_000)
    decides: dict[str, Decision] = Field(default_factory=dict, max_length=10_000)
    rollout: Count | None = Field(default=None, ge=2, le=10_000)
    feedback: tuple[str, ...] = Field(default=(), max_length=1000)
    options: RunOptions = Field(default_factory=RunOptions)
    variants: Variants | None = None
    devices: tuple[str, ...] | None = Field(default=None, max_length=1000)

    @field_validator("path", "inputs", "reference", mode="before")
    @classmethod
    def _paths(cls, path: Any) -> Any:
        return _path(path)

    @field_validator("shapes")
    @classmethod
    def _shapes(cls, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for name, sizes in shapes.items():
            if any(not 0 < size < 10**9 for size in sizes):
                raise ValueError(f"'{name}': every size must be a whole number of at least 1")
        return shapes


class DeviceEntry(_Strict):
    """A device: how it is reached, and what is asked of it alone.  variants: names or globs of those it runs."""

    uri: str = Field(min_length=1, max_length=4000)
    tags: tuple[Name, ...] = Field(default=(), max_length=100)
    options: RunOptions = Field(default_factory=RunOptions)
    device_options: Access = Field(default_factory=Access)
    variants: tuple[Glob, ...] | None = Field(default=None, max_length=1000)


class TaskEntry(_Strict):
    """A metric of the user's own: ``module:function`` or ``path/file.py:function``.

    labels: what the cases should come to: a JSON file {case: anything}, or a folder of CASE.npz.  model: of which
    models, a name or a glob.
    """

    function: str = Field(min_length=3, max_length=4000, pattern=r".:[^\W\d]\w*(\.[^\W\d]\w*)*$")
    better: Literal["lower", "higher"]
    timeout: Number = Field(default=60.0, gt=0, le=86400)
    memory_mb: Number = Field(default=4096.0, gt=0, le=1e6)
    labels: Path | None = None
    model: Glob | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, path: Any) -> Any:
        return _path(path)


class BenchEntry(_Strict):
    """How latency is measured: see `edgequant bench`.  within: percent of p50 that half of its interval may have."""

    blocks: Count = Field(default=7, ge=3, le=1000)
    runs: Count = Field(default=30, ge=1, le=1_000_000)
    seconds: Number = Field(default=1.0, ge=0, le=3600)
    warm_up: Number = Field(default=8.0, gt=0, le=3600)
    allow: tuple[str, ...] = Field(default=(), max_length=100)
    within: Number = Field(default=2.5, gt=0, le=100)
    governor: str | None = Field(default=None, pattern=r"^[a-z_]{1,40}$")


class WrittenDeviation(_Strict):
    """A deviation as it stands in a file."""

    rule: str | None = None
    finding: str | None = None
    model: Glob | None = None
    variant: Glob | None = None
    device: Glob | None = None
    reason: str
    expires: date


class Deviation(_Strict):
    """What is known and borne until a day: a rule of the spec, as it is written there, or a finding's code."""

    rule: str | None = None
    finding: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{0,99}$")
    scope: Scope = Field(default_factory=Scope)
    reason: str = Field(min_length=3, max_length=2000)
    expires: date
    line: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        rest = only(data, WrittenDeviation)
        scope = {name: rest.pop(name) for name in ("model", "variant", "device") if name in rest}
        if isinstance(rest.get("rule"), str):
            rest["rule"] = parse_rule(rest["rule"])["text"]
        return {**rest, "scope": scope}

    @field_validator("expires", mode="before")
    @classmethod
    def _a_day(cls, value: Any) -> Any:
        if type(value) is date or (isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)):
            return value
        raise ValueError("must be a day such as 2027-01-31")

    @model_validator(mode="after")
    def _one_thing(self) -> Deviation:
        if (self.rule is None) == (self.finding is None):
            raise ValueError("it accepts either a rule or a finding: give one of the two")
        if self.finding == "LIMIT_EXCEEDED":
            raise ValueError("LIMIT_EXCEEDED is every broken limit: name the rule that is broken")
        return self

    def __str__(self) -> str:
        where = str(self.scope)
        return f"{self.rule or self.finding}{f' ({where})' if where else ''}"


class AcceptSpec(_Strict):
    """What `edgequant accept` is given.  docs/accept-rules.md has every key.

    retries: more attempts at a trial that did not PASS.  latency: false: verify does not time (bench does, where a rule
    asks for it).  diagnose: what FAILs is looked into at once.
    """

    name: str = Field(default="", max_length=200)
    models: dict[Name, Annotated[ModelEntry, _mapping("path", ModelEntry)]] = Field(min_length=1, max_length=1000)
    variants: Variants = ()
    devices: dict[Name, Annotated[DeviceEntry, _mapping("uri", DeviceEntry)]] = Field(min_length=1, max_length=1000)
    options: RunOptions = Field(default_factory=RunOptions)
    device_options: Access = Field(default_factory=Access)
    random_inputs: Literal["inconclusive", "accepted"] = "inconclusive"
    retries: Count = Field(default=0, ge=0, le=10)
    latency: Switch = True
    diagnose: Switch = False
    baseline: Path | None = None
    bench: BenchEntry = Field(default_factory=BenchEntry)
    tasks: dict[Name, TaskEntry] = Field(default_factory=dict, max_length=100)
    rules: tuple[Annotated[Rule, _written(str | WrittenRule)], ...] = Field(default=(), max_length=10_000)
    deviations: tuple[Annotated[Deviation, _written(WrittenDeviation)], ...] = Field(default=(), max_length=10_000)

    @field_validator("baseline", mode="before")
    @classmethod
    def _baseline(cls, path: Any) -> Any:
        return _path(path)

    def variants_of(self, model: str) -> tuple[VariantEntry, ...]:
        """Of one model: its own, or those of all."""
        own = self.models[model].variants
        return self.variants if own is None else own

    def variant(self, key: TrialKey) -> VariantEntry:
        """The entry of a trial; float where it is only what others are held against."""
        found = next((each for each in self.variants_of(key.model) if each.key == key.variant), None)
        return found or VariantEntry(variant=FLOAT)

    def trials(self) -> tuple[TrialKey, ...]:
        """What is asked for, in the order of the spec."""
        return tuple(self._trials())

    def _trials(self) -> Iterator[TrialKey]:
        for model, entry in self.models.items():
            for variant in self.variants_of(model):
                for device, told in self.devices.items():
                    wanted = entry.devices is None or device in entry.devices
                    if wanted and (told.variants is None or any(fits(each, variant.key) for each in told.variants)):
                        yield TrialKey(model, variant.key, device)

    def float_beside(self) -> tuple[TrialKey, ...]:
        """Trials of the float variant that only others are held against: shown, and decide nothing."""
        asked = self.trials()
        wanted = (
            TrialKey(key.model, FLOAT, key.device)
            for key in asked
            if any(rule.bound.of == "float" for rule in self.rules_of(key))
        )
        return tuple(dict.fromkeys(key for key in wanted if key not in set(asked)))

    def in_scope(self, scope: Scope, key: TrialKey) -> bool:
        """Whether a trial is meant: a device by its name, its URI or one of its tags."""
        return in_scope(scope, key, self.aliases())

    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Device -> what else it is called."""
        return {name: (each.uri, *each.tags) for name, each in self.devices.items()}

    def rules_of(self, key: TrialKey) -> tuple[Rule, ...]:
        """Those that are meant for a trial."""
        aliases = self.aliases()
        return tuple(rule for rule in self.rules if applies(rule, key, aliases, self.tasks))

    def limits_of(self, key: TrialKey) -> tuple[Limit, ...]:
        """The limits a trial is judged with, so that its verdict agrees with its rules: the strictest of each metric
        and output."""
        strictest: dict[tuple[str | None, str], Limit] = {}
        for rule in self.rules_of(key):
            limit = rule.limit
            if limit is not None:
                held = strictest.get((limit.output, limit.metric))
                if held is None or (limit.value > held.value if limit.op == ">=" else limit.value < held.value):
                    strictest[limit.output, limit.metric] = limit
        return tuple(strictest.values())


def in_scope(scope: Scope, key: TrialKey, aliases: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a trial is meant.  aliases: device -> its URI and tags."""
    return (
        fits(scope.model, key.model)
        and fits(scope.variant, key.variant)
        and fits(scope.device, key.device, *aliases.get(key.device, ()))
    )


def applies(rule: Rule, key: TrialKey, aliases: Mapping[str, tuple[str, ...]], tasks: Mapping[str, TaskEntry]) -> bool:
    """Whether a rule is meant for a trial: by its scope, and for a task by the task's model.  Float itself is not held
    against float."""
    if not in_scope(rule.scope, key, aliases) or (rule.bound.of == "float" and key.variant == FLOAT):
        return False
    task = tasks.get(task_of(rule.metric) or "")
    return task is None or fits(task.model, key.model)


def task_of(metric: str) -> str | None:
    """The task that measures it: NAME of ``task:NAME`` and ``task:NAME.KEY``."""
    return metric.removeprefix(TASK).partition(".")[0] if metric.startswith(TASK) else None


def _path(path: Any) -> Any:
    if isinstance(path, str) and "\0" in path:
        raise ValueError("no path holds a NUL")
    if isinstance(path, str) and not path.strip():
        raise ValueError("an empty path")
    return path
