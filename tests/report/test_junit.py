"""JUnit XML and Markdown say what the report says, rule by rule, and are read as nothing else."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgequant.judge.verdict import Verdict
from edgequant.report.junit import Rule, document, to_junit
from edgequant.report.model import Report
from edgequant.report.read import load
from edgequant.report.summary import to_summary
from tests.cli.command import edgequant
from tests.recorded import unpacked
from tests.report.agreeing import any_report

HOSTILE = "</testcase>\x1b[31m\u202e\ud800&<>\"'.|`[x](http://y) <script>*_# @you"


def suites(report: Report) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(to_junit(report).encode("utf-8"))
    assert root.tag == "testsuites"
    found = list(root)
    for key, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        assert int(root.get(key, "")) == sum(int(each.get(key, "")) for each in found)
        assert all(int(each.get(key, "")) == len(each.findall(tag)) for each in found)
    return found


def broken(suite: ElementTree.Element) -> bool:
    return bool(suite.findall("testcase/failure") or suite.findall("testcase/error"))


def test_no_two_tests_are_called_alike() -> None:
    """However outputs are called: by a number as another's second, or so that escapes make them alike."""
    names = ["y", "y", "y (2)", "y", "z\x1b", "z\\x1b", "z\x1b"]
    text = document([("d", [Rule(each, Verdict.PASS) for each in names]), ("d", [])], "m", datetime.now(timezone.utc))
    root = ElementTree.fromstring(text.encode())
    shown = [each.get("name") for each in root.iter("testcase")]
    assert len(set(shown)) == len(names)
    assert shown[:2] == ["y", "y (2)"]
    assert [each.get("name") for each in root] == ["d", "d (2)"]


@pytest.mark.parametrize("seed", range(0, 500, 5))
def test_it_agrees_with_the_report(seed: int) -> None:
    report = any_report(seed)
    *runs, whole = suites(report)
    assert broken(whole) is bool(report.verdict.exit_code)
    for run, suite in zip(report.runs, runs, strict=True):
        assert suite.get("name") == f"{run.variant} on {run.device.uri}"
        assert broken(suite) is bool(run.verdict.exit_code)
        names = [case.get("name") for case in suite]
        assert len(set(names)) == len(names)
        by_name = {case.get("name", ""): case for case in suite}
        for name, output in run.outputs.items():
            assert_case(by_name[f"{name}: verdict"], output.verdict)
            for limit in output.limits:
                assert_case(by_name[f"{name}: {limit.metric} {limit.op} {limit.bound:g}"], limit.verdict)
        assert_case(by_name["verdict"], run.verdict)


def assert_case(case: ElementTree.Element, verdict: Verdict) -> None:
    tags = {element.tag for element in case} - {"system-out"}
    assert tags == ({"failure"} if verdict is Verdict.FAIL else {"error"} if verdict.exit_code else set())


@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_of_a_real_run(name: str, tmp_path: Path) -> None:
    report = load(unpacked(name, tmp_path) / "report.json")
    *runs, _ = suites(report)
    assert len(runs) == len(report.runs)
    for run, suite in zip(report.runs, runs, strict=True):
        assert broken(suite) is bool(run.verdict.exit_code)
        assert len(suite) >= 2 + 2 * len(run.outputs)


def test_nothing_untrusted_gets_through() -> None:
    report = any_report(3)
    run = report.runs[0]
    output = next((each for each in run.outputs.values()), None)
    outputs = {} if output is None else {HOSTILE: output, HOSTILE + " ": output}
    device = run.device.model_copy(update={"uri": f"ssh://{HOSTILE}"})
    model = report.model.model_copy(update={"path": HOSTILE})
    hostile = report.model_copy(
        update={"model": model, "runs": [run.model_copy(update={"device": device, "outputs": outputs})]}
    )
    text = to_junit(hostile)
    assert text.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800]", text)
    assert len(suites(hostile)) == 2
    assert all("." not in case.get("classname", ".") for suite in suites(hostile) for case in suite)
    page = to_summary(hostile)
    assert page.encode("utf-8")
    assert not re.search(r"[\x1b\u202e]|<script|\]\(|@you|\*_", page)
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in table} == {9}


@pytest.mark.parametrize("seed", range(0, 100, 10))
def test_the_summary_has_every_run_worst_first(seed: int) -> None:
    report = any_report(seed)
    lines = to_summary(report).splitlines()
    assert lines[0].startswith(f"## {report.verdict}: ")
    rows = [line.split(" | ")[0][2:] for line in lines if line.startswith("| ") and not line.startswith("| verdict")]
    assert sorted(rows) == sorted(run.verdict.value for run in report.runs)
    assert rows[0] == max(report.runs, key=lambda run: list(Verdict).index(run.verdict)).verdict or len(set(rows)) > 1


def test_the_command_writes_both_and_keeps_records(tmp_path: Path) -> None:
    run_dir = unpacked("gru", tmp_path)
    xml, page = tmp_path / "r.xml", tmp_path / "r.md"
    done = edgequant("report", str(run_dir), "--junit", str(xml), "--summary", str(page), "--quiet")
    report = load(run_dir / "report.json")
    assert done.code == report.verdict.exit_code
    assert xml.read_text("utf-8") == to_junit(report)
    assert page.read_text("utf-8") == to_summary(report)
    kept = edgequant("report", str(run_dir), "--junit", str(run_dir / "report.json"))
    assert kept.code == 2
    assert "has to end in .xml" in kept.errors[0]
    twice = edgequant("report", str(run_dir), "--junit", str(xml), "--summary", str(xml))
    assert twice.code == 2
