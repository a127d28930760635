"""A report as JUnit XML: a suite per run, a test case per rule, so that a CI shows which rule broke and where.

Read alike by GitLab, Jenkins and actions of GitHub: names are unique within a suite, `failure` is the model's, `error`
is what could not be judged, nothing is `skipped`, and a suite has one of the two exactly where its run is no PASS or
MARGINAL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree

from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.plain import against, printable
from edgequant.report.model import OutputReport, Report, Run

_MOST = 4000


@dataclass(frozen=True)
class Rule:
    """One rule: its name, what became of it, and why."""

    name: str
    verdict: Verdict
    why: str = ""
    kind: str = ""


def to_junit(report: Report) -> str:
    """The XML document, with a declaration.  Characters that XML cannot hold are escaped as on the console."""
    suites = [(f"{run.variant} on {run.device.uri}", list(_of_run(run))) for run in report.runs]
    suites.append(("the whole", list(_of_whole(report))))
    return document(suites, report.model.path, report.created)


def document(suites: Sequence[tuple[str, Sequence[Rule]]], model: str, created: datetime) -> str:
    """Suites by title, each with its rules."""
    root = ElementTree.Element("testsuites", {"name": "edgequant"})
    totals = {"tests": 0, "failures": 0, "errors": 0}
    titles: set[str] = set()
    for title, cases in suites:
        title = _unlike(titles, title)
        suite = ElementTree.SubElement(root, "testsuite", {"name": title})
        counts = {"tests": 0, "failures": 0, "errors": 0}
        seen: set[str] = set()
        for case in cases:
            _write(suite, f"{model} {title}", _unlike(seen, case.name), case, counts)
        for key, count in counts.items():
            suite.set(key, str(count))
            totals[key] += count
        suite.set("skipped", "0")
        suite.set("timestamp", created.strftime("%Y-%m-%dT%H:%M:%S"))
    for key, count in totals.items():
        root.set(key, str(count))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _unlike(seen: set[str], name: str) -> str:
    """As it is written, with a number where something that is written so is there already."""
    shown, number = _text(name), 1
    while shown in seen:
        number += 1
        shown = f"{_text(name)} ({number})"
    seen.add(shown)
    return shown


def _write(suite: ElementTree.Element, group: str, name: str, case: Rule, counts: dict[str, int]) -> None:
    counts["tests"] += 1
    # GitLab and Jenkins split class names at dots.
    attributes = {"classname": _text(group).replace(".", "_"), "name": name, "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.verdict.exit_code == 0:
        if case.why:
            ElementTree.SubElement(element, "system-out").text = _text(case.why)
        return
    tag = "failure" if case.verdict is Verdict.FAIL else "error"
    counts[f"{tag}s"] += 1
    told = _text(case.why or str(case.verdict))
    said = ElementTree.SubElement(element, tag, {"message": told.splitlines()[0][:500], "type": case.kind or "limit"})
    said.text = told


def _of_run(run: Run) -> Iterator[Rule]:
    if run.error is not None:
        hint = f"\n-> {run.error.hint}" if run.error.hint else ""
        # Whose fault it is, is in the verdict.
        verdict = run.verdict if run.verdict.exit_code else Verdict.ERROR
        yield Rule("it runs", verdict, f"{run.error.code}: {run.error.message}{hint}", run.error.code)
    else:
        yield Rule("it runs", Verdict.PASS)
    for name, output in run.outputs.items():
        yield from _of_output(name, output)
    yield from _of_findings(run.findings)
    yield Rule("verdict", run.verdict, f"{run.verdict}", "verdict")


def _of_output(name: str, output: OutputReport) -> Iterator[Rule]:
    for limit in output.limits:
        value, bound = ("nothing", f"{limit.bound:g}") if limit.value is None else against(
            limit.metric, limit.value, limit.bound
        )  # fmt: skip
        where = f" in case {limit.case}" if limit.case else ""
        said = f"{limit.verdict}: {name}: {limit.metric} is {value}{where}, the limit is {limit.op} {bound}"
        yield Rule(f"{name}: {limit.metric} {limit.op} {limit.bound:g}", limit.verdict, said, limit.metric)
    yield Rule(f"{name}: verdict", output.verdict, "\n".join(output.reasons) or f"{output.verdict}", "verdict")


def _of_findings(findings: list[Finding]) -> Iterator[Rule]:
    for finding in findings:
        if finding.severity in ("fail", "error"):
            verdict = Verdict.FAIL if finding.severity == "fail" else Verdict.INCONCLUSIVE
            where = f"{finding.where}: " if finding.where else ""
            remedy = f"\n-> {finding.remedy}" if finding.remedy else ""
            yield Rule(finding.code, verdict, f"{where}{finding.message}{remedy}", finding.code)


def _of_whole(report: Report) -> Iterator[Rule]:
    yield from _of_findings(report.findings)
    yield Rule("verdict", report.verdict, f"{report.verdict}", "verdict")


def _text(text: str) -> str:
    """What XML 1.0 can hold: control characters and lone surrogates as on the console; lines stay lines."""
    return "\n".join(printable(line) for line in text.split("\n"))[:_MOST]
