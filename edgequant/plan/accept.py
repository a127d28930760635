"""From an acceptance spec to what is run: verify's requests, what bench measures, whom task metrics are asked about.

Trials of one model that share options, access and limits are one request, its variants on its devices; so each trial is
judged with the limits that are meant for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import ValidationError

from edgequant.devices.registry import make_device
from edgequant.errors import InputError
from edgequant.files import safe_name
from edgequant.lab.session import DeviceOptions
from edgequant.pack import WantedPack
from edgequant.plan.request import Request
from edgequant.problems import first_problem
from edgequant.spec import Access, Limit, RunOptions, Variant
from edgequant.spec.accept import FLOAT, AcceptSpec, TrialKey, task_of
from edgequant.spec.accept_options import options_of
from edgequant.spec.rule_metrics import metric_of

_TIMED = ("latency", "bench")
"""Sources of metrics that bench measures."""


@dataclass(frozen=True)
class VerifyPart:
    """One request, and whose each of its trials is: (URI, variant) -> trial."""

    name: str
    request: Request
    trials: Mapping[tuple[str, str], TrialKey]

    def only(self, wanted: Sequence[TrialKey]) -> list[VerifyPart]:
        """Parts of the same name that run these of its trials and no other: one, where they are some variants on some
        devices; else several."""
        held = set(wanted)
        where: dict[str, list[Variant]] = {}
        for uri in self.request.devices:
            for variant in self.request.variants:
                if self.trials[uri, str(variant)] in held:
                    where.setdefault(uri, []).append(variant)
        groups: dict[tuple[Variant, ...], list[str]] = {}
        for uri, variants in where.items():
            groups.setdefault(tuple(variants), []).append(uri)
        return [
            VerifyPart(
                self.name,
                replace(self.request, devices=tuple(uris), variants=variants),
                {(uri, str(each)): self.trials[uri, str(each)] for uri in uris for each in variants},
            )
            for variants, uris in groups.items()
        ]


@dataclass(frozen=True)
class BenchPart:
    """Files of one model that are measured beside each other on one device.

    request: of the model on that device; its variants are not looked at.  trials: whose files they are, float first
    where it is beside them."""

    name: str
    request: Request
    trials: tuple[TrialKey, ...]


@dataclass(frozen=True)
class Expanded:
    """All that a spec asks for.

    parts: of verify.  benches: what is measured behind them.  informative: trials that only others are held against.
    tasks: names of the task metrics of each trial that has some.
    """

    parts: tuple[VerifyPart, ...]
    benches: tuple[BenchPart, ...]
    informative: frozenset[TrialKey]
    tasks: Mapping[TrialKey, tuple[str, ...]] = field(default_factory=dict)

    @property
    def trials(self) -> dict[TrialKey, VerifyPart]:
        """Each with the part it is in."""
        return {key: part for part in self.parts for key in part.trials.values()}


def expand(spec: AcceptSpec) -> Expanded:
    """Raises InputError (DEVICE_URI_INVALID, ..., PACK_UNKNOWN, LIMIT_INVALID) for what cannot be meant."""
    beside = spec.float_beside()
    parts = _verify_parts(spec, beside)
    return Expanded(parts, _bench_parts(spec, beside), frozenset(beside), _tasks(spec))


def float_of(key: TrialKey, spec: AcceptSpec) -> TrialKey | None:
    """The trial of the float variant that a rule of a trial is held against; None where none is."""
    if not any(rule.bound.of == "float" for rule in spec.rules_of(key)):
        return None
    return TrialKey(key.model, FLOAT, key.device)


# ---- verify


@dataclass(frozen=True)
class _Alike:
    """What trials of one request share."""

    model: str
    options: RunOptions
    access: Access
    limits: tuple[Limit, ...]
    goals: tuple[str, ...]
    budget: Literal["size", "latency"]
    fallback: bool
    twin: int
    """Trials of one variant on one URI by two names are two requests."""


def _verify_parts(spec: AcceptSpec, beside: Sequence[TrialKey]) -> tuple[VerifyPart, ...]:
    groups: dict[_Alike, list[TrialKey]] = {}
    seen: Counter[object] = Counter()
    for key in spec.trials():
        alike = _alike(spec, key)
        cell = (alike, spec.devices[key.device].uri, spec.variant(key).variant)
        seen[cell] += 1
        groups.setdefault(replace(alike, twin=seen[cell]), []).append(key)
    for key in beside:
        # It decides nothing, so it is run with whatever limits others have that it can share a request with.
        own = _alike(spec, key)
        near = next((alike for alike, keys in groups.items() if _has_room(spec, key, keys) and _same_run(alike, own)),
                    replace(own, twin=1))  # fmt: skip
        groups.setdefault(near, []).append(key)
    parts = [part for alike, keys in groups.items() for part in _of_group(spec, alike, keys)]
    return tuple(_numbered(parts))


def _has_room(spec: AcceptSpec, key: TrialKey, keys: Sequence[TrialKey]) -> bool:
    """Whether a request runs others on the device of a trial, and not its own variant there."""
    uri = spec.devices[key.device].uri
    there = [each for each in keys if spec.devices[each.device].uri == uri]
    return any(each.device == key.device for each in there) and all(
        spec.variant(each).variant != FLOAT for each in there
    )


def _same_run(one: _Alike, other: _Alike) -> bool:
    return (one.model, one.options, one.access) == (other.model, other.options, other.access)


def _alike(spec: AcceptSpec, key: TrialKey) -> _Alike:
    variant = spec.variant(key)
    options, access = _options(spec, key)
    limits = tuple(sorted(spec.limits_of(key), key=str))
    return _Alike(key.model, options, access, limits, variant.goals, variant.budget, variant.fallback, 0)


def _options(spec: AcceptSpec, key: TrialKey) -> tuple[RunOptions, Access]:
    try:
        return options_of(spec, key)
    except ValueError as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise InputError("SPEC_INVALID", f"{key}: options and device_options that come together: {why}") from None


def _of_group(spec: AcceptSpec, alike: _Alike, keys: Sequence[TrialKey]) -> list[VerifyPart]:
    trials = {(spec.devices[key.device].uri, spec.variant(key).variant): key for key in keys}
    whole = VerifyPart(alike.model, _request(spec, alike), trials)
    uris = tuple(dict.fromkeys(uri for uri, _ in trials))
    variants = tuple(dict.fromkeys(Variant.parse(text) for _, text in trials))
    wide = replace(whole, request=replace(whole.request, devices=uris, variants=variants),
                   trials=_Filled(trials))  # fmt: skip
    return [replace(part, trials=dict(part.trials)) for part in wide.only(keys)]


class _Filled(dict[tuple[str, str], TrialKey]):
    """A trial for each variant on each device; those that nobody asks for are nobody's."""

    def __missing__(self, cell: tuple[str, str]) -> TrialKey:
        return TrialKey("", *cell)


def _request(spec: AcceptSpec, alike: _Alike) -> Request:
    model = spec.models[alike.model]
    return Request(
        model=model.path,
        inputs=model.inputs,
        shapes=dict(model.shapes),
        limits=alike.limits,
        decides=dict(model.decides),
        reference=model.reference,
        options=alike.options,
        access=_device_options(alike.access),
        latency=spec.latency,
        diagnose=spec.diagnose,
        calibration=model.calibration,
        fallback=alike.fallback,
        goals=tuple(Limit.parse(goal) for goal in alike.goals),
        budget=alike.budget,
        images=model.images,
        rollout=model.rollout,
        feedback=model.feedback,
    )


def _device_options(access: Access) -> DeviceOptions:
    fields = access.model_dump()
    wanted = WantedPack(fields.pop("mnn"), fields.pop("pack"))
    return DeviceOptions(**fields, wanted=wanted)


def _numbered(parts: Sequence[VerifyPart]) -> list[VerifyPart]:
    """With names of folders: the model's, and a number where it has several."""
    count = Counter(part.name for part in parts)
    number: Counter[str] = Counter()
    found = []
    for part in parts:
        number[part.name] += 1
        name = safe_name(part.name, 40) + (f"-{number[part.name]}" if count[part.name] > 1 else "")
        found.append(replace(part, name=name))
    names: list[str] = []
    for part in found:
        names.append(_free(part.name, names))
    return [replace(part, name=name) for part, name in zip(found, names, strict=True)]


def _free(name: str, taken: Collection[str]) -> str:
    """A name of a folder, with a number behind it where there is one of that name."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found


# ---- bench and tasks


def _bench_parts(spec: AcceptSpec, beside: Sequence[TrialKey]) -> tuple[BenchPart, ...]:
    """Of each model on each device that has rules on latency: what shares options is measured beside each other."""
    groups: dict[tuple[str, str, RunOptions, Access], list[TrialKey]] = {}
    for key in spec.trials():
        if not _timed(spec, key):
            continue
        options, access = _options(spec, key)
        keys = groups.setdefault((key.model, key.device, options, access), [])
        base = float_of(key, spec)
        keys += [each for each in (base, key) if each is not None and each not in keys]
    parts: list[BenchPart] = []
    for (model, device, options, access), keys in groups.items():
        alike = _Alike(model, options, access, (), (), "size", True, 0)
        request = replace(_request(spec, alike), devices=(spec.devices[device].uri,))
        name = safe_name(f"{model}-{device}", 60)
        ordered = sorted(keys, key=lambda key: (key not in beside, key.variant != "float"))
        parts.append(BenchPart(_free(name, [part.name for part in parts]), request, tuple(ordered)))
    return tuple(parts)


def _timed(spec: AcceptSpec, key: TrialKey) -> bool:
    """Whether rules need it to be measured; what an emulated device takes says nothing."""
    emulated = make_device(spec.devices[key.device].uri).emulated is not None
    return not emulated and any(metric_of(rule.metric).source in _TIMED for rule in spec.rules_of(key))


def _tasks(spec: AcceptSpec) -> dict[TrialKey, tuple[str, ...]]:
    found: dict[TrialKey, list[str]] = {}
    for key in spec.trials():
        for rule in spec.rules_of(key):
            name = task_of(rule.metric)
            if name is None:
                continue
            bases = [float_of(key, spec)] if rule.bound.of == "float" else []
            for each in (key, *bases):
                if each is not None and name not in found.setdefault(each, []):
                    found[each].append(name)
    return {key: tuple(names) for key, names in found.items()}
