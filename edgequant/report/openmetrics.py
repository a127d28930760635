"""A report as OpenMetrics text, for GitLab's metrics report and for Prometheus.

GitLab takes each line apart as a shell would, after it has cut it at the first #: so no label has one.  Numbers that
are not valid are not there; edgequant_invalid_numbers says how many are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath

from edgequant.judge.verdict import severity
from edgequant.plain import name as plain_name
from edgequant.report.bench import BenchReport
from edgequant.report.model import Report, Run
from edgequant.report.numbers import BETTER, bench_numbers, numbers

Labels = tuple[tuple[str, str], ...]
_LIMIT_OPS = {">=": "at_least", "<=": "at_most"}


class Family:
    """One metric: its lines, no two with the same labels."""

    def __init__(self, name: str, kind: str, about: str) -> None:
        self.name = f"edgequant_{name}"
        self._kind = kind
        self._about = about
        self._lines: dict[Labels, str] = {}

    def add(self, labels: Iterable[tuple[str, str]], value: float, suffix: str = "") -> None:
        whole = tuple(labels)
        told = ",".join(f'{key}="{_escaped(said)}"' for key, said in whole)
        shown = f"{{{told}}}" if told else ""
        self._lines.setdefault(whole, f"{self.name}{suffix}{shown} {value:.12g}")

    def states(self, labels: Labels, state: Enum) -> None:
        """Every state there is, 1 for the one it has."""
        for each in type(state):
            self.add((*labels, (self.name, each.value)), each is state)

    def text(self) -> list[str]:
        if not self._lines:
            return []
        return [f"# TYPE {self.name} {self._kind}", f"# HELP {self.name} {self._about}", *self._lines.values()]


def text(families: Iterable[Family]) -> str:
    """All of it, with a line for the end."""
    return "\n".join([*(line for family in families for line in family.text()), "# EOF"]) + "\n"


def to_openmetrics(report: Report) -> str:
    """The whole, with a line for the end."""
    model = Family("model", "info", "What was verified.")
    model.add(
        (
            ("model", PurePath(report.model.path).name), ("sha256", report.model.sha256),
            ("edgequant", report.edgequant), ("mnn", report.mnn or ""),
        ),
        1, "_info",
    )  # fmt: skip
    verdict = Family("verdict", "stateset", "Of the whole report.")
    verdict.states((), report.verdict)
    grade = Family("verdict_severity", "gauge", "0 PASS, 1 MARGINAL, 2 INCONCLUSIVE, 3 ERROR, 4 FAIL.")
    grade.add((), severity(report.verdict))
    found = Family("findings", "gauge", "How often a code was found.")
    _findings(found, (), Counter((each.code, str(each.severity)) for each in report.findings))
    families = [model, verdict, grade, *_of_runs(_named(report), found), found]
    return text(families)


def bench_openmetrics(report: BenchReport) -> str:
    """The same of a bench: of each setting its times, where they are valid, and its memory."""
    model = Family("model", "info", "What was measured.")
    told = {"model": PurePath(report.model).name, "sha256": report.model_sha256, "mnn": report.mnn}
    model.add(((key, value or "") for key, value in {**told, "edgequant": report.edgequant}.items()), 1, "_info")
    verdict = Family("verdict", "stateset", "Of the whole bench.")
    verdict.states((), report.verdict)
    state = Family("run_verdict", "stateset", "Of a setting on a device.")
    values = {metric: Family(metric, "gauge", _about(metric)) for metric in BETTER}
    invalid = Family("invalid_numbers", "gauge", "Numbers that are not here, as they are not valid.")
    ratio = Family("bench_ratio", "gauge", "How many times as long a setting takes as its base.")
    found = Family("findings", "gauge", "How often a code was found.")
    for device in report.devices:
        of: Labels = (("device", device.uri),)
        for setting in device.settings:
            labels = (("variant", setting.name), *of)
            state.states(labels, setting.verdict)
            every = list(bench_numbers(setting))
            for each in every:
                if each.valid:
                    values[each.metric].add(labels, each.value)
            invalid.add(labels, sum(not each.valid for each in every))
        titles = {each.id or each.name: each.name for each in device.settings if each.valid}
        for compared in device.compared:
            if compared.name in titles and compared.base in titles:
                whose = (("variant", titles[compared.name]), ("base", titles[compared.base]), *of)
                ratio.add(whose, compared.ratio)
        _findings(found, of, Counter((each.code, str(each.severity)) for each in device.findings))
    families = [model, verdict, state, *values.values(), invalid, ratio, found]
    return text(families)


def _named(report: Report) -> list[tuple[Labels, Run]]:
    """With the labels of each run; of two that would look alike the second is numbered."""
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    for run in report.runs:
        key = (run.variant, run.device.uri)
        seen[key] += 1
        again = () if seen[key] == 1 else (("again", str(seen[key])),)
        result.append(((("variant", run.variant), ("device", run.device.uri), *again), run))
    return result


def _of_runs(named: list[tuple[Labels, Run]], found: Family) -> list[Family]:
    state = Family("run_verdict", "stateset", "Of a variant on a device.")
    grade = Family("run_verdict_severity", "gauge", "The same as a number.")
    output_state = Family("output_verdict", "stateset", "Of an output.")
    bound = Family("output_limit", "gauge", "What an output was held against.")
    values = {metric: Family(metric, "gauge", _about(metric)) for metric in BETTER}
    invalid = Family("invalid_numbers", "gauge", "Numbers that are not here, as they are not valid.")
    for labels, run in named:
        state.states(labels, run.verdict)
        grade.add(labels, severity(run.verdict))
        for name, output in run.outputs.items():
            output_state.states((*labels, ("output", name)), output.verdict)
            for limit in output.limits:
                whose = (*labels, ("output", name), ("metric", limit.metric), ("op", _LIMIT_OPS[limit.op]))
                bound.add(whose, limit.bound)
        left_out = 0
        for each in numbers(run):
            if each.valid:
                values[each.metric].add((*labels, *([("output", each.output)] if each.output else [])), each.value)
            else:
                left_out += 1
        invalid.add(labels, left_out)
        _findings(found, labels, Counter((each.code, str(each.severity)) for each in run.findings))
    return [state, grade, output_state, bound, *values.values(), invalid]


def _findings(family: Family, labels: Labels, counted: Mapping[tuple[str, str], int]) -> None:
    for (code, level), count in counted.items():
        family.add((*labels, ("severity", level), ("code", code)), count)


def _about(metric: str) -> str:
    direction = {">=": "More is better.", "<=": "Less is better."}.get(BETTER[metric], "")
    unit = {"_db": "Decibels.", "_ms": "Milliseconds.", "_mb": "Megabytes, 10^6 bytes."}.get(metric[-3:], "")
    return " ".join(part for part in (unit, direction) if part)


def _escaped(text: str) -> str:
    """As a label's value: one line, in which two names never look the same."""
    shown = plain_name(text).replace("#", "\\x23")
    return shown.replace("\\", "\\\\").replace('"', '\\"')
