"""Reading an acceptance spec: what is wrong is named with its line and its key."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgequant.blame import TABLE as CODES
from edgequant.errors import InputError
from edgequant.files import read_bounded
from edgequant.problems import Place, dotted, first_problem
from edgequant.spec.accept import (
    MOST_RESULTS,
    MOST_TRIALS,
    AcceptSpec,
    BenchEntry,
    DeviceEntry,
    ModelEntry,
    TaskEntry,
    TrialKey,
    VariantEntry,
    WrittenDeviation,
    applies,
    in_scope,
    task_of,
)
from edgequant.spec.causes import CAUSES
from edgequant.spec.file import MAX_BYTES, _calibration
from edgequant.spec.options import Access, RunOptions
from edgequant.spec.rule_metrics import FINDING, TABLE
from edgequant.spec.rules import Rule, WrittenRule, fits

_HINT = "docs/accept-rules.md has every key and every rule."
_COMPARED = ("INT8_SLOWER",)
"""Codes that only a comparison which came to something gives: no rule."""
_VERIFYS = "It looks like a spec of `edgequant verify --spec`, which takes one model: give it to that command, or name "
_KEYS: Mapping[str, type[BaseModel]] = {
    "models": ModelEntry, "devices": DeviceEntry, "variants": VariantEntry, "tasks": TaskEntry, "bench": BenchEntry,
    "rules": WrittenRule, "deviations": WrittenDeviation, "options": RunOptions, "device_options": Access,
}  # fmt: skip


class _Mistake(Exception):
    """Something that only shows when the parts of a spec are seen together."""

    def __init__(self, place: Place, why: str) -> None:
        super().__init__(why)
        self.place = place


def load_accept(path: Path, base: Path | None = None) -> AcceptSpec:
    """Read and check a spec.  base: the folder its paths are relative to; by default the spec's own.  Whether they
    exist is not looked at.  Raises InputError (SPEC_NOT_FOUND, SPEC_INVALID), which names the line and the key."""
    try:
        text = read_bounded(path, MAX_BYTES)
    except OSError as error:
        code = "SPEC_INVALID" if error.errno in (errno.EFBIG, errno.ETIMEDOUT) else "SPEC_NOT_FOUND"
        hint = f"Give the path of a spec; {_HINT}" if code == "SPEC_NOT_FOUND" else None
        raise InputError(code, f"{path}: {error.strerror}", hint=hint) from None
    from edgequant.spec.plain_yaml import read

    data, lines = read(path, text)
    if not isinstance(data, dict):
        raise InputError("SPEC_INVALID", f"{path}: must be keys and values, such as 'models:'", hint=_HINT)
    if "models" not in data and (isinstance(data.get("devices"), list) or {"inputs", "limits"} & set(data)):
        raise InputError("SPEC_INVALID", f"{path}: models: it is missing", hint=f"{_VERIFYS}models and rules here.")
    try:
        spec = AcceptSpec.model_validate(data)
        spec = spec.model_copy(
            update={
                "name": spec.name or path.stem,
                "rules": tuple(_at(rule, lines, "rules", at) for at, rule in enumerate(spec.rules)),
                "deviations": tuple(_at(each, lines, "deviations", at) for at, each in enumerate(spec.deviations)),
            }
        )
        _look(spec)
    except ValidationError as error:
        place = tuple(error.errors(include_url=False)[0]["loc"])
        raise _invalid(path, lines, place, first_problem(error, keys=_keys, place=_as_written)) from None
    except _Mistake as mistake:
        raise _invalid(path, lines, mistake.place, f"{dotted(mistake.place)}: {mistake}") from None
    return _resolved(spec, path.parent if base is None else base)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a spec."""
    schema = AcceptSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "edgequant.accept/1", **schema}


def _invalid(path: Path, lines: Mapping[Place, int], place: Place, why: str) -> InputError:
    from edgequant.spec.plain_yaml import at_line

    return InputError("SPEC_INVALID", f"{at_line(path, lines, place)}: {why}", hint=_HINT)


def _keys(place: Place) -> Sequence[str]:
    """The keys there are where an unknown one stands."""
    for part in reversed(place[:-1]):
        if isinstance(part, str) and part in _KEYS:
            return list(_KEYS[part].model_fields)
    return list(AcceptSpec.model_fields) if len(place) == 1 else []


def _as_written(place: Place) -> str:
    """A rule and a deviation keep where they apply apart; who writes them does not."""
    inner = place[:1] in (("rules",), ("deviations",)) and place[2:3] == ("scope",)
    return dotted((*place[:2], *place[3:]) if inner else place)


def _at(each: Any, lines: Mapping[Place, int], key: str, at: int) -> Any:
    return each.model_copy(update={"line": lines.get((key, at))})


def _resolved(spec: AcceptSpec, folder: Path) -> AcceptSpec:
    def under(path: Path | None) -> Path | None:
        return None if path is None else folder / path

    models = {
        name: each.model_copy(
            update={
                "path": folder / each.path,
                "inputs": under(each.inputs),
                "reference": under(each.reference),
                "calibration": _calibration(each.calibration, folder),
            }
        )
        for name, each in spec.models.items()
    }
    tasks = {
        name: each.model_copy(update={"function": _calibration(each.function, folder), "labels": under(each.labels)})
        for name, each in spec.tasks.items()
    }
    return spec.model_copy(update={"models": models, "tasks": tasks, "baseline": under(spec.baseline)})


# ---- what only shows when the parts are seen together


def _look(spec: AcceptSpec) -> None:
    for name, model in spec.models.items():
        _names(("models", name, "devices"), model.devices or (), spec.devices)
        _apart(("models", name, "variants"), [each.key for each in model.variants or ()])
    _apart(("variants",), [each.key for each in spec.variants])
    for name in spec.models:
        if not spec.variants_of(name):
            raise _Mistake(
                ("models", name), "it has no variant, and there is none for all models (variants: [dynamic:8])"
            )
    keys = spec.trials()
    if not keys:
        raise _Mistake(("devices",), "there is nothing to try: no variant is left for any device")
    if len(keys) > MOST_TRIALS:
        raise _Mistake(("models",), f"{len(keys)} trials are more than the {MOST_TRIALS} there may be")
    if (results := len(keys) * (len(spec.rules) + len(spec.deviations))) > MOST_RESULTS:
        raise _Mistake(("rules",), f"{results} times a rule meets a trial: more than the {MOST_RESULTS} there may be")
    for name, device in spec.devices.items():
        for at, pattern in enumerate(device.variants or ()):
            if not any(fits(pattern, key.variant) for key in keys):
                variants = dict.fromkeys(key.variant for key in keys)
                raise _Mistake(
                    ("devices", name, "variants", at), f"'{pattern}' fits no variant{_near(pattern, variants)}"
                )
        if not any(key.device == name for key in keys):
            raise _Mistake(("devices", name), "no model is tried on it")
    for name in spec.models:
        if not any(key.model == name for key in keys):
            raise _Mistake(("models", name), "it is tried on no device")
    _look_at_rules(spec, keys)
    _look_at_deviations(spec, keys)


def _look_at_rules(spec: AcceptSpec, keys: Sequence[TrialKey]) -> None:
    aliases = spec.aliases()
    for name, task in spec.tasks.items():
        if "." in name or ":" in name:
            raise _Mistake(("tasks", name), "a task's name has no dot and no colon: rules name it as task:NAME")
        if any(f"{metric}.".startswith(f"{name}.") for metric in TABLE):
            raise _Mistake(("tasks", name), "a metric is called so: 'task:...' would be that of an output called task")
        if not any(fits(task.model, key.model) for key in keys):
            raise _Mistake(("tasks", name, "model"), f"'{task.model}' fits no model{_near(task.model, spec.models)}")
    seen: dict[str, int] = {}
    meant: list[tuple[Rule, set[TrialKey]]] = []
    for at, rule in enumerate(spec.rules):
        if rule.metric.startswith(FINDING):
            _known(("rules", at), rule.metric.removeprefix(FINDING))
            if rule.metric.removeprefix(FINDING) in _COMPARED:
                told = "is absent as well where nothing could be told: write 'latency_ms.p50 <= float'"
                raise _Mistake(("rules", at), f"'{rule.metric}' {told}")
            if rule.metric.removeprefix(FINDING) in CAUSES:
                told = "is a cause that diagnose names, of what is FAIL already: nobody looks for it in what passes"
                raise _Mistake(("rules", at), f"'{rule.metric}' {told}")
        task_name = task_of(rule.metric)
        if task_name is not None:
            if task_name not in spec.tasks:
                raise _Mistake(("rules", at), f"no task is called '{task_name}'{_near(task_name, spec.tasks)}")
            better = ">=" if spec.tasks[task_name].better == "higher" else "<="
            if rule.op != better:
                raise _Mistake(("rules", at), f"'{rule.metric}' is bounded with {better}: {rule.op} is the wrong way")
        mine = {key for key in keys if applies(rule, key, aliases, spec.tasks)}
        if not mine:
            raise _Mistake(("rules", at), f"'{rule}' fits no trial{_unmet(rule, spec, keys)}")
        if str(rule) in seen:
            raise _Mistake(("rules", at), f"'{rule}' is there already, as rules.{seen[str(rule)]}")
        seen[str(rule)] = at
        for number, (other, theirs) in enumerate(meant):
            if (
                rule.metric == other.metric
                and rule.output == other.output
                and mine & theirs
                and _contradict(rule, other)
            ):
                raise _Mistake(("rules", at), f"nothing can keep both '{rule}' and '{other}' (rules.{number})")
        if len(meant) < 1000:  # of more, those behind are not held against each other
            meant.append((rule, mine))


@cache
def _codes() -> tuple[frozenset[str], tuple[str, ...]]:
    """Every code that is written in this program, and the ends of those that are put together: one that is not is never
    found, and a rule on it always kept."""
    sources = [path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("*.py")]
    whole = {code for text in sources for code in re.findall(r'"([A-Z][A-Z0-9_]{2,99})"', text)}
    return frozenset(whole | set(CODES)), tuple({end for text in sources for end in re.findall(r'\}(_[A-Z_]+)"', text)})


def _known(place: Place, code: str) -> None:
    codes, ends = _codes()
    if code not in codes and not code.endswith(ends):
        near = difflib.get_close_matches(code, codes, n=1)
        raise _Mistake(place, f"no finding has the code {code}" + (f"; did you mean {near[0]}?" if near else ""))


def _contradict(one: Rule, other: Rule) -> bool:
    if not (one.required and other.required):
        return False
    if one.op == other.op == "==":
        return one.bound.value != other.bound.value
    ways = {one.op: one.bound.value, other.op: other.bound.value}
    low, high = ways.get(">="), ways.get("<=")
    exact = ways.get("==")
    if isinstance(exact, str):
        return (isinstance(low, str) and _version(exact) < _version(low)) or (
            isinstance(high, str) and _version(exact) > _version(high)
        )
    return isinstance(low, str) and isinstance(high, str) and _version(low) > _version(high)


def _version(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in text.split(".")]
    return (*parts, *[0] * (3 - len(parts)))


def _look_at_deviations(spec: AcceptSpec, keys: Sequence[TrialKey]) -> None:
    aliases = spec.aliases()
    rules = {rule.text for rule in spec.rules}
    for at, each in enumerate(spec.deviations):
        mine = [key for key in keys if in_scope(each.scope, key, aliases)]
        if not mine:
            raise _Mistake(("deviations", at), f"'{each}' fits no trial{_unmet(each, spec, keys)}")
        if each.finding is not None:
            _known(("deviations", at, "finding"), each.finding)
        if each.rule is None:
            continue
        if each.rule not in rules:
            raise _Mistake(("deviations", at, "rule"), f"no rule says '{each.rule}'{_near(each.rule, rules)}")
        meant = [rule for rule in spec.rules if rule.text == each.rule]
        if not any(applies(rule, key, aliases, spec.tasks) for rule in meant for key in mine):
            raise _Mistake(("deviations", at), f"'{each}' fits no trial that its rule is for")
    for (at, one), (later, other) in combinations(list(enumerate(spec.deviations))[:500], 2):
        if str(one) == str(other):
            raise _Mistake(("deviations", later), f"'{other}' is there already, as deviations.{at}")


def _unmet(each: Any, spec: AcceptSpec, keys: Sequence[TrialKey]) -> str:
    """Which part of a scope is the one that fits nothing."""
    scope = each.scope
    if scope.model is not None and not any(fits(scope.model, key.model) for key in keys):
        return f": no model is called '{scope.model}'{_near(scope.model, spec.models)}"
    if scope.variant is not None and not any(fits(scope.variant, key.variant) for key in keys):
        return f": no variant is called '{scope.variant}'{_near(scope.variant, {key.variant for key in keys})}"
    names = [name for device, others in spec.aliases().items() for name in (device, *others)]
    if scope.device is not None and not any(fits(scope.device, name) for name in names):
        return f": no device has the name, URI or tag '{scope.device}'{_near(scope.device, names)}"
    return ""


def _names(place: Place, given: Sequence[str], there: Iterable[str]) -> None:
    names = list(there)
    for at, name in enumerate(given):
        if name not in names:
            raise _Mistake((*place, at), f"no device is called '{name[:100]}'{_near(name, names)}")


def _apart(place: Place, names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise _Mistake((*place, at), f"'{name}' is there twice; give one of the two another name (name: ...)")


def _near(wanted: str | None, names: Iterable[str]) -> str:
    there = sorted(names)
    near = difflib.get_close_matches(wanted or "", there, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are {', '.join(there[:8])}" + (" and more" if len(there) > 8 else "") if there else ""
