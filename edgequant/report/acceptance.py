"""From a judgement to acceptance.json and back, and the facts of an earlier one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgequant.errors import InputError
from edgequant.files import read_bounded
from edgequant.judge.acceptance import judge_acceptance
from edgequant.judge.acceptance_types import (
    AcceptanceJudgement,
    Facts,
    RuleResult,
    TrialFacts,
    TrialResult,
    Value,
)
from edgequant.problems import first_problem
from edgequant.report.acceptance_model import (
    SCHEMA,
    Acceptance,
    AttemptReport,
    BaselineReport,
    BaselineTrial,
    DeviationReport,
    DeviceNames,
    FactValue,
    RuleReport,
    TrialReport,
)
from edgequant.report.facts import trial_facts
from edgequant.report.read import MAX_BYTES, load
from edgequant.spec.accept import AcceptSpec, Deviation, TaskEntry, TrialKey
from edgequant.spec.rules import Rule, WrittenRule
from edgequant.text import json_escaped, shortened

__all__ = ["Acceptance", "acceptance_report", "judge_again", "load_acceptance", "load_baseline", "to_json"]


def acceptance_report(
    spec: AcceptSpec,
    judged: AcceptanceJudgement,
    attempts: Mapping[TrialKey, Sequence[TrialFacts]],
    *,
    today: date,
    baseline: Mapping[TrialKey, TrialFacts] | None = None,
    baseline_path: str = "",
    spec_path: str = "",
    spec_sha256: str = "",
    created: datetime | None = None,
    interrupted: bool = False,
) -> Acceptance:
    """The report of a judgement, with all that it follows from."""
    places = {str(each): at for at, each in enumerate(spec.deviations)}
    used = {str(each) for each in judged.used}
    told: dict[str, Any] = {} if created is None else {"created": created}
    return Acceptance(
        state=judged.state,
        interrupted=interrupted,
        name=spec.name,
        today=today,
        spec=spec_path,
        spec_sha256=spec_sha256,
        models={name: str(each.path) for name, each in spec.models.items()},
        devices={name: DeviceNames(uri=each.uri, tags=each.tags) for name, each in spec.devices.items()},
        tasks={name: each.model for name, each in spec.tasks.items()},
        random_inputs=spec.random_inputs,
        rules=tuple(_rule(rule) for rule in spec.rules),
        trials=tuple(
            _trial(each, attempts[each.key], places, spec.variant(each.key).variant) for each in judged.trials
        ),
        deviations=tuple(
            DeviationReport(
                **each.model_dump(include={"rule", "finding", "scope", "reason", "expires", "line"}),
                expired=each.expires < today, used=str(each) in used,
            )
            for each in spec.deviations
        ),
        findings=judged.findings,
        baseline=None if baseline is None else BaselineReport(path=baseline_path, trials=_kept(baseline)),
        **told,
    )  # fmt: skip


def _rule(rule: Rule) -> WrittenRule:
    return WrittenRule(rule=rule.text, **rule.scope.model_dump(), required=rule.required, margin=rule.margin)


def _trial(each: TrialResult, attempts: Sequence[TrialFacts], places: Mapping[str, int], method: str) -> TrialReport:
    return TrialReport(
        **each.key._asdict(),
        method=method,
        state=each.state,
        informative=each.informative,
        rules=tuple(_rule_result(result, places) for result in each.rules),
        attempts=tuple(
            AttemptReport(
                state=state, verdict=facts.verdict, error=facts.error, identity=dict(facts.identity),
                against=facts.against, doubts=facts.doubts, random_inputs=facts.random_inputs, folder=facts.folder,
                facts=_facts(facts.facts),
            )
            for facts, state in zip(attempts, each.attempts, strict=True)
        ),
    )  # fmt: skip


def _rule_result(result: RuleResult, places: Mapping[str, int]) -> RuleReport:
    rule = result.rule
    return RuleReport(
        rule=rule.text, metric=rule.metric, output=rule.output, op=rule.op, of=rule.bound, scope=rule.scope,
        required=rule.required, margin=rule.margin, line=rule.line, state=result.state, value=result.value.value,
        low=result.value.low, high=result.value.high, bound=result.bound, why=shortened(result.why),
        deviation=None if result.deviation is None else places.get(str(result.deviation)), attempts=result.attempts,
    )  # fmt: skip


def _facts(facts: Facts) -> dict[str, FactValue]:
    return {name: FactValue(**vars(value)) for name, value in facts.items()}


def _kept(baseline: Mapping[TrialKey, TrialFacts]) -> tuple[BaselineTrial, ...]:
    return tuple(
        BaselineTrial(**key._asdict(), verdict=each.verdict, identity=dict(each.identity), facts=_facts(each.facts))
        for key, each in baseline.items()
    )


def judge_again(found: Acceptance) -> AcceptanceJudgement:
    """The judgement, from the report alone: it comes to the same."""
    baseline = None if found.baseline is None else {TrialKey(each.model, each.variant, each.device): _known(each)
                                                    for each in found.baseline.trials}  # fmt: skip
    lines = {(rule.rule, str(rule.scope)): rule.line for trial in found.trials for rule in trial.rules}
    rules = [Rule.model_validate(each.model_dump()) for each in found.rules]
    return judge_acceptance(
        [rule.model_copy(update={"line": lines.get((rule.text, str(rule.scope)))}) for rule in rules],
        [
            Deviation.model_validate(
                {**each.model_dump(include={"rule", "finding", "reason", "expires"}), **each.scope.model_dump()}
            ).model_copy(update={"line": each.line})
            for each in found.deviations
        ],
        {trial.key: [_attempt(trial.key, each) for each in trial.attempts] for trial in found.trials},
        baseline,
        found.today,
        aliases={name: (each.uri, *each.tags) for name, each in found.devices.items()},
        tasks={name: TaskEntry(function="a.py:f", better="lower", model=model) for name, model in found.tasks.items()},
        informative=[trial.key for trial in found.trials if trial.informative],
        random_inputs=found.random_inputs,
    )


def _values(facts: Mapping[str, FactValue]) -> dict[str, Value]:
    return {name: Value(**dict(value)) for name, value in facts.items()}


def _attempt(key: TrialKey, each: AttemptReport) -> TrialFacts:
    return TrialFacts(
        key, each.verdict, _values(each.facts), each.identity, each.error, each.against, each.doubts,
        each.random_inputs, each.folder,
    )  # fmt: skip


def _known(each: BaselineTrial) -> TrialFacts:
    key = TrialKey(each.model, each.variant, each.device)
    return TrialFacts(key, each.verdict, _values(each.facts), each.identity)


def to_json(found: Acceptance) -> str:
    """Indented JSON with a final newline."""
    plain = found.model_dump(mode="json", by_alias=True)
    # Numbers as they are: a state has to follow from them.
    return json_escaped(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def load_acceptance(path: Path) -> Acceptance:
    """Read and check an acceptance.json.  Raises InputError (REPORT_INVALID)."""
    return _document(path, read_document(path))


def read_document(path: Path) -> bytes:
    """Raises InputError (REPORT_INVALID)."""
    try:
        return read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from None


def _document(path: Path, data: bytes) -> Acceptance:
    try:
        return Acceptance.model_validate_json(data)
    except ValidationError as error:
        raise _invalid(path, first_problem(error)) from None


def _invalid(path: Path, why: str) -> InputError:
    hint = "Give the folder of `edgequant accept`, or of verify."
    return InputError("REPORT_INVALID", f"not the report of an acceptance: {why}", where=str(path), hint=hint)


def load_baseline(
    path: Path, keys: Iterable[TrialKey], devices: Mapping[str, str], variants: Mapping[str, str] | None = None
) -> dict[TrialKey, TrialFacts]:
    """The facts of an earlier release: an acceptance's, or those of a verify of one model.

    Args:
        path: acceptance.json or report.json, whatever it is called, or the folder with one of them.
        keys: the trials of now.  devices: name -> URI, as a report of verify names devices.
        variants: name -> variant, where they differ.

    Raises InputError (REPORT_INVALID, RUN_NOT_FOUND).
    """
    if path.is_dir():
        there = [name for name in ("acceptance.json", "report.json") if (path / name).is_file()]
        if not there:
            raise InputError("RUN_NOT_FOUND", f"{path}: there is no acceptance.json and no report.json in it")
        path = path / there[0]
    elif not path.exists():
        raise InputError("RUN_NOT_FOUND", f"{path}: there is no such baseline")
    data = read_document(path)
    if SCHEMA.encode() in data[:1000]:
        found = _document(path, data)
        return {trial.key: _over([_attempt(trial.key, each) for each in trial.attempts])
                for trial in found.trials if trial.attempts}  # fmt: skip
    report = load(path)
    wanted = list(keys)
    models = {key.model for key in wanted}
    if len(models) > 1:
        told = f"it is of one model, and there are {len(models)} here: give the folder of an acceptance"
        raise InputError("REPORT_INVALID", f"{path}: {told}")
    runs = {(run.variant, run.device.uri): run for run in report.runs}
    known: dict[TrialKey, TrialFacts] = {}
    for key in wanted:
        run = runs.get(((variants or {}).get(key.variant, key.variant), devices.get(key.device, key.device)))
        if run is not None:
            known[key] = trial_facts(key, report, run)
    return known


def _over(attempts: Sequence[TrialFacts]) -> TrialFacts:
    """Several attempts of an earlier release as one: the last value of each, and how far all of them spread."""
    facts: dict[str, Value] = {}
    for name in dict.fromkeys(name for each in attempts for name in each.facts):
        values = [value for each in attempts if (value := each.facts.get(name)) is not None and value.value is not None]
        if not values:
            facts[name] = next(each.facts[name] for each in reversed(attempts) if name in each.facts)
            continue
        numbers = [
            each.value for each in values if isinstance(each.value, (int, float)) and not isinstance(each.value, bool)
        ]
        last = values[-1]
        if len(numbers) > 1 and last.low is None and min(numbers) < max(numbers):
            last = replace(last, low=min(numbers), high=max(numbers))
        facts[name] = last
    return replace(attempts[-1], facts=facts)
