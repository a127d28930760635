"""What is said to be different between two reports is different, and nothing else is."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from edgequant.jobs.html import page_of
from edgequant.jobs.rejudge import judge
from edgequant.judge.verdict import Verdict
from edgequant.report.against import between, compare_reports, shown_value
from edgequant.report.difference import render_against
from edgequant.report.numbers import BETTER, Number, numbers
from edgequant.report.read import load
from edgequant.report.write import write
from tests.cli.command import edgequant
from tests.recorded import unpacked
from tests.report.agreeing import any_report
from tests.report.pages import EVIL, Reader


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_a_report_against_itself(seed: int) -> None:
    report = any_report(seed)
    found = compare_reports(report, report)
    assert found.changes == ()
    assert found.compared == len(
        {(r.variant, r.device.uri, n.output, n.metric) for r in report.runs for n in numbers(r)}
    )


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_each_way_is_the_other_way_round(seed: int) -> None:
    one, two = any_report(seed), any_report(seed + 1)
    there, back = compare_reports(one, two), compare_reports(two, one)
    turned = {"better": "worse", "worse": "better", "new": "gone", "gone": "new", "other": "other"}
    turned["not valid"] = "not valid"
    assert sorted((c.where, c.output, c.what, c.before, c.after, c.says) for c in there.changes) == sorted(
        (c.where, c.output, c.what, c.after, c.before, turned[c.says]) for c in back.changes
    )


@pytest.mark.parametrize("metric", sorted(BETTER))
def test_every_metric_has_a_direction(metric: str) -> None:
    (change,), _ = between("w", [Number("y", metric, 10.0)], [Number("y", metric, 20.0)])
    assert change.says == ("better" if BETTER[metric] == ">=" else "worse")
    (change,), _ = between("w", [Number("y", metric, 20.0)], [Number("y", metric, 10.0)])
    assert change.says == ("worse" if BETTER[metric] == ">=" else "better")
    assert shown_value(metric, 20.0).startswith("20")


def test_what_is_not_valid_is_neither_better_nor_worse() -> None:
    (change,), _ = between("w", [Number("", "latency_p50_ms", 1.0)], [Number("", "latency_p50_ms", 9.0, "load 7")])
    assert change.says == "not valid"
    assert change.ratio == 9.0


def test_on_other_cases_or_with_other_settings_nothing_is_better_or_worse(tmp_path: Path) -> None:
    report = load(unpacked("cnn", tmp_path) / "report.json")
    run = report.runs[0]
    name, output = next(iter(run.outputs.items()))
    better = run.model_copy(update={"outputs": {**run.outputs, name: output.model_copy(update={"sqnr_db": 99.0})}})
    cases = [each.model_copy(update={"name": f"other-{each.name}"}) for each in report.cases]
    same = compare_reports(report, report.model_copy(update={"runs": [better, *report.runs[1:]]}))
    assert {each.what: each.says for each in same.changes} == {"sqnr_db": "better"}
    other = compare_reports(report, report.model_copy(update={"runs": [better, *report.runs[1:]], "cases": cases}))
    assert [(each.what, each.says) for each in other.changes] == [("cases", "other"), ("sqnr_db", "other")]
    elsewhere = [each.model_copy(update={"source": f"/elsewhere/{each.name}.npz"}) for each in report.cases]
    there = [each.model_copy(update={"source": f"/here/{each.name}.npz"}) for each in report.cases]
    moved = [report.model_copy(update={"cases": each}) for each in (elsewhere, there)]
    assert compare_reports(*moved).changes == ()
    numbers_ = Number("", "latency_p50_ms", 1.0), Number("", "memory_model_file_mb", 3.0)
    faster = Number("", "latency_p50_ms", 0.5), Number("", "memory_model_file_mb", 2.0)
    assert [each.says for each in between("w", numbers_, faster, times=False)[0]] == ["other", "better"]


def test_of_a_run_judged_by_other_limits(tmp_path: Path) -> None:
    folder = unpacked("cnn", tmp_path)
    before = load(folder / "report.json")
    after = judge(folder, ["sqnr_db>=150"]).report
    found = compare_reports(before, after)
    assert before.verdict is Verdict.PASS
    assert (found.changes[0].what, found.changes[0].before, found.changes[0].says) == ("verdict", "PASS", "worse")
    limit = next(each for each in found.changes if each.what == "limit on sqnr_db")
    assert (limit.after, limit.says) == (">= 150", "other")
    assert {each.what for each in found.changes} <= {"verdict", "LIMIT_EXCEEDED", "limit on sqnr_db", *BETTER} | {
        each.code for run in after.runs for each in run.findings
    }
    assert any(each.what == "LIMIT_EXCEEDED" and each.says == "new" for each in found.changes)


def test_the_page_and_the_console_say_the_same(tmp_path: Path) -> None:
    folder = unpacked("cnn", tmp_path)
    before = load(folder / "report.json")
    held = compare_reports(before, judge(folder, ["sqnr_db>=150"]).report)
    found = Reader(page_of(before, folder, against=held))
    rows = found.rows("against-table")
    assert [(row["what"], row["says"]) for row in rows] == [(each.what, each.says) for each in held.changes]
    stream = io.StringIO()
    render_against(held, Console(file=stream, width=200), verbose=True)
    text = stream.getvalue()
    assert all(each.what in text and each.says in text for each in held.changes)
    short = io.StringIO()
    render_against(held, Console(file=short, width=200))
    assert len(short.getvalue().splitlines()) <= 20


def test_nothing_untrusted_gets_onto_page_or_console() -> None:
    report = any_report(3)
    run = next(run for run in report.runs if run.outputs)
    output = next(iter(run.outputs.values()))
    names = dict.fromkeys(EVIL, output)
    evil = report.model_copy(update={"runs": [run.model_copy(update={"outputs": names})]})
    other = report.model_copy(update={"runs": [run.model_copy(update={"outputs": {}, "verdict": Verdict.FAIL})]})
    held = compare_reports(evil, other)
    page = page_of(other, Path("/nowhere/report.json"), against=held)
    assert "<script" not in page
    assert "<img" not in page
    stream = io.StringIO()
    render_against(held, Console(file=stream, width=100), verbose=True)
    assert "\x1b" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


def test_the_command(tmp_path: Path) -> None:
    folder = unpacked("cnn", tmp_path)
    later = tmp_path / "later"
    shutil.copytree(folder, later)
    write(judge(folder, ["sqnr_db>=150"]).report, later / "report.json")
    done = edgequant("report", str(later), "--against", str(folder), "--json", "--html", str(tmp_path / "p.html"))
    assert done.code == 1
    document = done.json
    assert document["against"]["changes"][0]["before"] == "PASS"
    assert {key: value for key, value in document.items() if key != "against"} == json.loads(
        (later / "report.json").read_text()
    )
    assert "Difference to the last release" in (tmp_path / "p.html").read_text()
    assert "verdict PASS -> FAIL" in done.err
    assert edgequant("report", str(later), "--against", str(tmp_path)).code == 2
