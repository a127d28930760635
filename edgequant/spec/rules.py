"""Rules of a release as users write them: the grammar."""

from __future__ import annotations

import difflib
import math
import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from edgequant.errors import InputError
from edgequant.spec.limits import METRICS, Limit
from edgequant.spec.numbers import Number, Switch
from edgequant.spec.options import _Strict
from edgequant.spec.rule_metrics import FINDING, TABLE, TASK, Metric, Op, metric_of

Glob = Annotated[str, Field(min_length=1, max_length=500)]
"""A name, in which ``*`` is any text and ``?`` one character."""


class Scope(_Strict):
    """Where something applies; None fits all.  A device is also found by its URI and its tags."""

    model: Glob | None = None
    variant: Glob | None = None
    device: Glob | None = None

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name in ("model", "variant", "device") if (value := getattr(self, name))]
        return ", ".join(parts)


class WrittenRule(_Strict):
    """A rule as it stands in a file; its text alone may stand there too."""

    rule: str
    model: Glob | None = None
    variant: Glob | None = None
    device: Glob | None = None
    required: Switch = True
    margin: Number | None = Field(default=None, ge=0)


def only(data: Any, written: type[_Strict]) -> dict[str, Any]:
    """A copy of what was written.  Raises ValueError where it has a key that `written` has not."""
    if not isinstance(data, dict):
        raise ValueError("must be keys and values")
    for key in data:
        if key not in written.model_fields:
            near = difflib.get_close_matches(str(key), written.model_fields, n=1)
            raise ValueError(
                f"{str(key)[:60]}: there is no such key" + (f"; did you mean '{near[0]}'?" if near else "")
            )
    return dict(data)


class Bound(_Strict):
    """What a value is held against: `value`, or ``factor * base + add`` of the float variant's or the baseline's.
    percent: the factor was written as ``+ 5 %``."""

    value: float | bool | str | None = None
    of: Literal["absolute", "float", "baseline"] = "absolute"
    factor: float = 1.0
    add: float = 0.0
    percent: bool = False

    def __str__(self) -> str:
        if self.of == "absolute":
            return ("true" if self.value else "false") if isinstance(self.value, bool) else _number(self.value)
        if self.percent:
            return f"{self.of} {'+' if self.factor >= 1 else '-'} {round(abs(self.factor - 1) * 100, 8):.12g} %"
        if self.add:
            head = "" if self.factor == 1 else f"{self.factor:.12g} * "
            return f"{head}{self.of} {'+' if self.add > 0 else '-'} {abs(self.add):.12g}"
        return self.of if self.factor == 1 else f"{self.factor:.12g} * {self.of}"


class Rule(_Strict):
    """One condition on one metric.

    Attributes:
        text: in its one way of writing.
        output: None for every output that has the metric.
        required: false: shown, decides nothing.
        margin: inside the bound by less than this, in the metric's unit, is MARGINAL.
        line: where it stands in the spec.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    text: str
    metric: str
    op: Op
    bound: Bound
    output: str | None = None
    scope: Scope = Field(default_factory=Scope)
    required: Switch = True
    margin: Number | None = Field(default=None, ge=0)
    line: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        """``{rule: TEXT, model: ..., ...}`` or the text alone."""
        if isinstance(data, str):
            data = {"rule": data}
        rest = only(data, WrittenRule)
        text = rest.pop("rule", None)
        if text is None:
            raise ValueError("the rule is missing: {rule: 'sqnr_db >= 25', ...}")
        if not isinstance(text, str):
            raise ValueError("rule: must be text")
        scope = {name: rest.pop(name) for name in ("model", "variant", "device") if name in rest}
        return {**rest, **parse_rule(text), "scope": scope}

    @model_validator(mode="after")
    def _margin_fits(self) -> Rule:
        if self.margin is not None and metric_of(self.metric).kind != "number":
            raise ValueError(f"'{self.metric}' has no margin")
        return self

    @property
    def limit(self) -> Limit | None:
        """The same as a limit of verify, so that a trial's own verdict agrees; None for what is none."""
        if self.metric not in METRICS or self.bound.of != "absolute" or not self.required:
            return None
        return Limit.model_validate(
            {"output": self.output, "metric": self.metric, "op": self.op, "value": self.bound.value}
        )

    def __str__(self) -> str:
        where = str(self.scope)
        return f"{self.text} ({where})" if where else self.text


_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3})?|\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?"
_RULE = re.compile(r"(?P<left>.+?)\s*(?P<op>>=|<=|==)\s*(?P<bound>[^<>=]+)")
_RELATIVE = re.compile(
    rf"(?:(?P<factor>{_NUMBER})\s*\*\s*)?(?P<of>float|baseline)"
    rf"(?:\s*(?P<sign>[-+])\s*(?P<add>{_NUMBER})\s*(?P<unit>%|[A-Za-z]+)?)?"
)
_ABSOLUTE = re.compile(rf"(?P<value>[-+]?(?:{_NUMBER}))\s*(?P<unit>%|[A-Za-z]+)?")
_MOST = 500
"""Characters of a rule."""


def parse_rule(text: str) -> dict[str, Any]:
    """The fields of a Rule that its text has.  Raises ValueError saying what is wrong."""
    match = _RULE.fullmatch(text.strip()) if len(text) <= _MOST else None
    if match is None:
        raise ValueError(
            f"rule '{text[:100]}': not of the form [OUTPUT:]METRIC >= BOUND (or <=, ==), such as 'sqnr_db >= 25' or "
            "'latency_ms.p50 <= baseline + 5 %'"
        )
    try:
        output, metric = _left(match["left"].strip())
        bound = _bound(metric, match["op"], match["bound"].strip())
    except ValueError as error:
        raise ValueError(f"rule '{text.strip()[:100]}': {error}") from None
    shown = f"{output + ':' if output else ''}{metric.name} {match['op']} "
    shown += ("present" if bound.value else "absent") if metric.kind == "presence" else str(bound)
    return {"text": shown, "metric": metric.name, "output": output, "op": match["op"], "bound": bound}


def _left(left: str) -> tuple[str | None, Metric]:
    output, _, name = left.rpartition(":")
    # An output may be called "task", and hold colons itself.
    if name in TABLE and output:
        if not TABLE[name].per_output:
            raise ValueError(f"'{name}' is not of one output")
        return output.strip(), TABLE[name]
    return None, metric_of(left if left.startswith((FINDING, TASK)) else name if output else left)


def _bound(metric: Metric, op: str, text: str) -> Bound:
    if metric.better is not None and op != metric.better:
        raise ValueError(f"'{metric.name}' is bounded with {metric.better}")
    if metric.kind != "number":
        return _word(metric, op, text)
    if op == "==":
        raise ValueError(f"'{metric.name}' is a measured number: bound it with >= or <=")
    relative = _RELATIVE.fullmatch(text)
    if relative:
        return _relative(metric, relative)
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        raise ValueError(f"'{text[:60]}' is not a bound: a number, or one beside float or baseline")
    value = _twelve(absolute["value"])
    if absolute["unit"] == "%" and metric.most == 1 and metric.least == 0:
        value /= 100
    else:
        _same_unit(metric, absolute["unit"])
    best = metric.most if op == ">=" else metric.least
    if not math.isfinite(value):
        raise ValueError("the bound must be a finite number")
    if value > best if op == ">=" else value < best or (value == best and metric.never_least):
        best_told = f"is above {best:g}" if metric.never_least else f"there is is {best:g}"
        raise ValueError(f"nothing can keep it: the best '{metric.name}' {best_told}")
    if metric.better is not None and (value <= metric.least if op == ">=" else value >= metric.most):
        raise ValueError("everything keeps it")
    return Bound(value=value)


def _relative(metric: Metric, match: re.Match[str]) -> Bound:
    if not metric.relative:
        raise ValueError(f"'{metric.name}' cannot be held against {match['of']}")
    factor = 1.0 if match["factor"] is None else _twelve(match["factor"])
    percent = match["unit"] == "%"
    if not metric.scaled and (match["factor"] is not None or percent):
        example = f"{match['of']} - 2" if metric.better == ">=" else f"{match['of']} + 2"
        raise ValueError(f"'{metric.name}' cannot be multiplied: write '{example}'")
    if percent and match["factor"] is not None:
        raise ValueError("a factor and a percentage are two ways to say one thing")
    if not math.isfinite(factor) or not 0 < factor <= 1e6:
        raise ValueError("the factor must be above 0")
    add = 0.0 if match["add"] is None else _twelve(f"{match['sign']}{match['add']}")
    if not math.isfinite(add):
        raise ValueError("the bound must be a finite number")
    if percent:
        if not -100 < add <= 10_000:
            raise ValueError("nothing can keep it" if add < 0 else "everything keeps it")
        factor, add = round(1 + round(add, 8) / 100, 12), 0.0
    else:
        _same_unit(metric, match["unit"])
    return Bound.model_validate({"of": match["of"], "factor": factor, "add": add, "percent": percent})


def _twelve(text: str) -> float:
    """A number as it is shown: with twelve digits, so that what is shown is what is judged."""
    return float(f"{float(text):.12g}")


def _word(metric: Metric, op: str, text: str) -> Bound:
    words = {"flag": {"true": True, "false": False}, "presence": {"present": True, "absent": False}}
    if metric.kind == "version":
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){0,2}", text):
            raise ValueError(f"'{text[:60]}' is not a version such as 3.0.1")
        return Bound(value=text)
    if op != "==":
        raise ValueError(f"'{metric.name}' is bounded with ==")
    allowed = words[metric.kind]
    if text not in allowed:
        raise ValueError(f"'{text[:60]}' is not one of {', '.join(allowed)}")
    return Bound(value=allowed[text])


def _same_unit(metric: Metric, unit: str | None) -> None:
    if unit is not None and unit != metric.unit:
        raise ValueError(
            f"'{metric.name}' is in {metric.unit}, not in {unit}" if metric.unit else f"'{metric.name}' has no unit"
        )


def _number(value: float | str | None) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def limit_of(text: str) -> Limit:
    """A limit of verify.  Raises ValueError."""
    try:
        return Limit.parse(text)
    except InputError as error:
        raise ValueError(error.message) from None


def fits(pattern: str | None, *names: str) -> bool:
    """Whether a glob fits one of the names.  Takes time proportional to both lengths, whatever the pattern."""
    return pattern is None or any(_glob(pattern, name) for name in names)


def _glob(pattern: str, name: str) -> bool:
    at = place = 0
    star, held = -1, 0
    while place < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, held, at = at, place, at + 1
        elif at < len(pattern) and pattern[at] in ("?", name[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            # The last star takes one character more: those before it never have to.
            held += 1
            at, place = star + 1, held
        else:
            return False
    return not pattern[at:].strip("*")
