"""What is different between two reports: of the last release and of this one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from edgequant.compare.table import TABLE
from edgequant.judge.verdict import severity
from edgequant.plain import amount, megabytes, metric, milliseconds
from edgequant.report.model import OutputReport, Report, Run
from edgequant.report.numbers import Number, better, numbers, of_report

Says = Literal["better", "worse", "other", "not valid", "new", "gone"]
_ALIKE = 1e-9
"""Of the larger: what is closer is the same number."""
_FIRST = ("sqnr_db", "mismatch", "latency_p50_ms", "memory_model_file_mb", "memory_rss_peak_mb")
"""What is looked at first; the rest mostly follows from it."""
_ORDER = ("worse", "better", "other", "not valid", "new", "gone")


@dataclass(frozen=True)
class Change:
    """One thing that is different.

    where: variant and device, "" for the whole.  output: "" where it is the run's.  what: the metric, "verdict", or
    the code of a finding.  before, after: as they are shown; "" where it was not there.  values: of a metric, for who
    computes with them.
    """

    where: str
    output: str
    what: str
    before: str
    after: str
    says: Says
    values: tuple[float | None, float | None] = (None, None)

    @property
    def ratio(self) -> float | None:
        """After over before, of what has a ratio: times and sizes."""
        one, two = self.values
        return two / one if one and two is not None and self.what.endswith(("_ms", "_mb")) else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "where": self.where, "output": self.output, "what": self.what, "before": self.before,
            "after": self.after, "says": self.says, "values": list(self.values), "ratio": self.ratio,
        }  # fmt: skip


@dataclass(frozen=True)
class Against:
    """before: the earlier report.  changes: verdicts first, then findings, then numbers, the worse ones first.
    compared: how many numbers both have."""

    before: Report
    changes: tuple[Change, ...]
    compared: int

    @property
    def title(self) -> str:
        """What it was held against, in words."""
        was = self.before
        made = f"edgequant {was.edgequant}, {was.created:%Y-%m-%d %H:%M}"
        return f"{PurePath(was.model.path).name} ({was.model.sha256[:12]}), {made}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "created": self.before.created.isoformat(), "model_sha256": self.before.model.sha256,
            "edgequant": self.before.edgequant, "compared": self.compared,
            "changes": [each.as_dict() for each in self.changes],
        }  # fmt: skip


def compare_reports(before: Report, after: Report) -> Against:
    """Run by run: the same variant on the same device."""
    old, new = of_report(before), of_report(after)
    told = _circumstances("", _of_report(before), _of_report(after))
    verdicts = [*_verdict("", "", before.verdict, after.verdict), *told]
    other_cases = any(each.what in ("cases", "reference") for each in told)
    found = _findings("", before.findings, after.findings)
    changed: list[Change] = []
    compared = 0
    for key in dict.fromkeys([*new, *old]):
        where, one, two = " on ".join(key), old.get(key), new.get(key)
        if one is None or two is None:
            there = two or one
            assert there is not None
            verdicts.append(_come_or_gone(where, "verdict", there.verdict.value, gone=two is None))
            continue
        verdicts += _verdict(where, "", one.verdict, two.verdict)
        verdicts += (apart := _circumstances(where, _of_run(one), _of_run(two)))
        for name in dict.fromkeys([*two.outputs, *one.outputs]):
            if name in one.outputs and name in two.outputs:
                verdicts += _verdict(where, name, one.outputs[name].verdict, two.outputs[name].verdict)
                verdicts += _limits(where, name, one.outputs[name], two.outputs[name])
            else:
                verdicts.append(_come_or_gone(where, "output", "", gone=name in one.outputs, output=name))
        found += _findings(where, one.findings, two.findings)
        numbers_of_both = between(
            where, list(numbers(one)), list(numbers(two)), accuracy=not other_cases, times=not (apart or other_cases)
        )
        compared += numbers_of_both[1]
        changed += numbers_of_both[0]
        changed += _size(where, one, two)
    changed.sort(key=rank)
    return Against(before, (*verdicts, *found, *changed), compared)


def rank(change: Change) -> tuple[bool, int, int]:
    """Its place among others: verdicts, then what is worse, then what says most."""
    place = _FIRST.index(change.what) if change.what in _FIRST else len(_FIRST)
    return change.what != "verdict", _ORDER.index(change.says), place


def between(
    where: str, before: Sequence[Number], after: Sequence[Number], *, accuracy: bool = True, times: bool = True
) -> tuple[list[Change], int]:
    """Numbers of one run that do not look like those of another, as they are shown, and how many both have.

    accuracy, times: whether those of outputs, and all others, are of the same cases and settings; else nothing is
    called better or worse.
    """
    old = {(each.output, each.metric): each for each in before}
    changes, compared = [], 0
    for number in after:
        was = old.get((number.output, number.metric))
        if was is None:
            continue
        compared += 1
        if abs(number.value - was.value) <= _ALIKE * max(abs(number.value), abs(was.value)):
            continue
        comparable = accuracy if number.output else times or number.metric == "memory_model_file_mb"
        says: Says = _direction(number.metric, was.value, number.value) if comparable else "other"
        if not (was.valid and number.valid):
            says = "not valid"
        name = number.metric
        shown = shown_value(name, was.value), shown_value(name, number.value)
        if shown[0] == shown[1]:
            continue
        changes.append(Change(where, number.output, name, *shown, says, (was.value, number.value)))
    return changes, compared


def shown_value(name: str, value: float) -> str:
    """A number as it is shown elsewhere, with its unit."""
    if name in TABLE:
        return metric(name, value)
    if name.endswith("_db"):
        return f"{metric('sqnr_db', value)}"
    if name.endswith("_ms"):
        return f"{milliseconds(value)} ms"
    if name.endswith("_mb"):
        return megabytes(value) if value >= 10 else f"{amount(value)} MB"
    return amount(value)


def _direction(name: str, before: float, after: float) -> Says:
    good = better(name)
    if not good:
        return "other"
    return "better" if (after > before) == (good == ">=") else "worse"


def _of_report(report: Report) -> dict[str, str]:
    """What numbers are of, by name."""
    # The same files may lie elsewhere; random ones are what their seed makes them.
    drawn = {each.name: each.source for each in report.cases if (each.source or "").startswith("random")}
    cases = sorted({(e.name, drawn.get(e.name, ""), e.steps, str(sorted(e.shapes.items()))) for e in report.cases})
    first = f"{len(cases)}: {', '.join(each[0] for each in cases[:3])}" if cases else "none"
    digest = hashlib.sha256(repr(cases).encode("utf-8", "backslashreplace")).hexdigest()[:6]
    return {
        "model": PurePath(report.model.path).name,
        "cases": f"{first}{', ...' if len(cases) > 3 else ''} ({digest})",
        "reference": report.reference.kind if report.reference is not None else "none",
    }


def _of_run(run: Run) -> dict[str, str]:
    told = {name: str(run.options.get(name)) for name in ("threads", "memory", "precision", "cores")}
    return {**told, "CPU": run.device.cpu or "not known", "MNN": run.device.mnn or "not known"}


def _circumstances(where: str, before: dict[str, str], after: dict[str, str]) -> list[Change]:
    return [Change(where, "", key, before[key], said, "other") for key, said in after.items() if before[key] != said]


def _verdict(where: str, output: str, before: Any, after: Any) -> Iterable[Change]:
    if before is not after:
        says: Says = "worse" if severity(after) > severity(before) else "better"
        yield Change(where, output, "verdict", before.value, after.value, says)


def _limits(where: str, name: str, before: OutputReport, after: OutputReport) -> Iterable[Change]:
    """A verdict may be another because of what it was held against."""
    old = {each.metric: f"{each.op} {each.bound:g}" for each in before.limits}
    new = {each.metric: f"{each.op} {each.bound:g}" for each in after.limits}
    for metric_ in dict.fromkeys([*new, *old]):
        was, is_ = old.get(metric_, ""), new.get(metric_, "")
        if was != is_:
            says: Says = "other" if was and is_ else "new" if is_ else "gone"
            yield Change(where, name, f"limit on {metric_}", was, is_, says)


def _come_or_gone(where: str, what: str, value: str, *, gone: bool, output: str = "") -> Change:
    return Change(where, output, what, value if gone else "", "" if gone else value, "gone" if gone else "new")


def _findings(where: str, before: Iterable[Any], after: Iterable[Any]) -> list[Change]:
    """By code and place: their words may have numbers in them."""
    old = {(each.code, each.where or ""): each for each in before}
    new = {(each.code, each.where or ""): each for each in after}
    come = [Change(where, place, code, "", new[code, place].severity, "new") for code, place in new.keys() - old.keys()]
    gone = [
        Change(where, place, code, old[code, place].severity, "", "gone") for code, place in old.keys() - new.keys()
    ]
    return sorted(come, key=_order) + sorted(gone, key=_order)


def _order(change: Change) -> tuple[int, str, str]:
    level = change.after or change.before
    return ("error", "fail", "warn", "info").index(level), change.what, change.output


def _size(where: str, before: Run, after: Run) -> Iterable[Change]:
    """That it is another file at all, though all numbers may be the same."""
    if before.sha256 and after.sha256 and before.sha256 != after.sha256:
        yield Change(where, "", "file", before.sha256[:12], after.sha256[:12], "other")
