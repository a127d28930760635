"""What is said of a release leads on: commands that can be typed, reasons first, nothing cut that decides."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgequant.judge.acceptance import State, Value
from edgequant.judge.verdict import Verdict
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance import Acceptance
from edgequant.report.acceptance_console import render
from edgequant.report.acceptance_junit import to_junit
from edgequant.report.acceptance_model import RuleReport, TrialReport
from edgequant.report.acceptance_summary import to_summary
from edgequant.report.facts import facts_of
from edgequant.report.html.acceptance import to_html
from tests.judge.releases import FLOAT, KEY, LATER, Release, facts, spec_of
from tests.report.test_report_facts import Setting, run_of

FOLDER = "trials/m/attempt-1"
LONG = "a reason that is as long as reasons are where several people had to agree about it, fp16 is only the fallback"


def printed(found: Acceptance, *, terminal: bool = False, **how: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=None, force_terminal=terminal)
    render(found, console, folder=Path("runs/a b"), **how)
    return out.getvalue()


def one(rule: Any, told: Any, attempts: int = 1, deviations: Any = (), **more: Any) -> Acceptance:
    """A release with one rule on one trial."""
    spec = spec_of([rule], deviations, tasks={"cer": {"function": "a.py:f", "better": "lower"}})
    return Release(spec, {KEY: [facts(facts=told, **{"folder": FOLDER, **more})] * attempts}).report()


def last(found: Acceptance) -> tuple[Acceptance, TrialReport, RuleReport]:
    return found, found.trials[0], found.trials[0].rules[-1]


def then(found: Acceptance) -> str:
    return words.next_command(*last(found), "runs/x")


def test_a_broken_accuracy_is_looked_into_where_it_was_measured() -> None:
    found = one("sqnr_db >= 25", {"y:sqnr_db": 10.0})
    assert then(found) == f"edgequant diagnose runs/x/{FOLDER}"
    spec = spec_of(["sqnr_db >= 25"], variants=["dynamic:8", "fp16"], devices={"b": "ssh://b", "c": "ssh://c"})
    attempts = {key: [facts(key, facts={"y:sqnr_db": 10.0}, folder=FOLDER)] for key in spec.trials()}
    assert then(Release(spec, attempts).report()) == (
        f"edgequant diagnose runs/x/{FOLDER} --device ssh://b --variant dynamic:8"
    )


def test_a_model_that_could_not_be_run_has_nothing_to_diagnose() -> None:
    found = one(
        "size_mb <= 9", {}, verdict=Verdict.FAIL, error="OP_UNSUPPORTED: x", against=("finding:OP_UNSUPPORTED",)
    )
    told = words.next_command(found, found.trials[0], found.trials[0].rules[0], "runs/x")
    assert told == f"edgequant report runs/x/{FOLDER}"


def test_a_latency_leads_to_the_bench_that_was_run() -> None:
    session = "bench/m/attempt-1"
    for value in (Value(30.0, session=session), Value(None, "not valid: LOAD: busy", session=session)):
        assert then(one("latency_ms.p50 <= 12", {"latency_ms.p50": value})) == f"edgequant report runs/x/{session}"
    unbelieved = facts_of(run_of(), Setting(valid=False), session=session)
    assert unbelieved["latency_ms.p50"].session == session


@pytest.mark.parametrize(
    ("rule", "told", "command"),
    [
        (
            "size_mb <= 9",
            {"size_mb": 10.0},
            "take fewer bits, or larger blocks; what is in it: edgequant inspect m.onnx",
        ),
        ("task:cer <= 0.1", {"task:cer": 0.5}, "runs/x/tasks/"),
        ("task:cer <= 0.1", {"task:cer": Value(None, "TASK_FAILED: boom")}, "runs/x/logs/"),
    ],
)
def test_a_next_step_leads_somewhere(rule: str, told: Any, command: str) -> None:
    assert command in then(one(rule, told))


def test_what_an_interruption_left_out_is_gone_on_with_and_every_form_says_so() -> None:
    found = one("task:cer <= 0.1", {}).model_copy(update={"interrupted": True})
    resume = "edgequant accept --resume runs/x"
    assert then(found) == resume
    assert resume in to_summary(found, "runs/x")
    assert resume in to_html(found, "runs/x")
    assert f"interrupted; the rest: {resume}" in to_junit(found, "runs/x")
    assert "interrupted; the rest: edgequant accept --resume 'runs/a b'\n" in printed(found)
    assert "interrupted" not in printed(one("task:cer <= 0.1", {}))


def test_only_several_attempts_are_looked_at_each() -> None:
    spec = spec_of(["sqnr_db >= 25"])
    tries = [facts(facts={"y:sqnr_db": each}, folder=FOLDER) for each in (10.0, 30.0)]
    found = Release(spec, {KEY: tries}).report()
    assert last(found)[2].state is State.FLAKY
    assert then(found) == "look at each attempt: runs/x/trials/m"
    assert "each attempt" not in then(one("task:cer <= 0.1", {"task:cer": 0.5}))


def test_the_folder_is_told_where_it_is_known() -> None:
    found = one("sqnr_db >= 25", {"y:sqnr_db": 10.0})
    assert f"-> edgequant diagnose 'runs/a b/{FOLDER}'" in printed(found)
    assert "RUN_DIR" not in printed(found) + to_summary(found, "runs/x")


def test_in_a_pipe_nothing_is_cut_and_in_a_terminal_nothing_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    bearing = [{"rule": "size_mb <= 9", "reason": LONG, "expires": LATER}]
    found = one("size_mb <= 9", {"size_mb": 10.0}, deviations=bearing)
    told = f"  10 MB, <= 9 MB is asked; accepted until {LATER}: {LONG}\n"
    assert told in printed(found)
    shown = printed(found, terminal=True)
    assert told not in shown
    assert f"  10 MB, <= 9 MB is asked; accepted until {LATER}: a reason" in shown
    assert "abababababab" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    monkeypatch.setenv("COLUMNS", "80")
    assert told not in printed(found)


def test_a_command_is_one_line_however_narrow_the_terminal() -> None:
    found = one("sqnr_db >= 25", {"y:sqnr_db": 10.0}, folder="trials/" + "x" * 100)
    assert f"-> edgequant diagnose 'runs/a b/trials/{'x' * 100}'\n" in printed(found, terminal=True)


def test_no_signs_are_left_of_what_is_not_there() -> None:
    bearing = [{"rule": "size_mb <= 9", "reason": "known", "expires": LATER}]
    found = one("size_mb <= 9", {"size_mb": 10.0}, deviations=bearing)
    twice = one("size_mb <= 9", {"size_mb": 3.0}, attempts=2)
    for each in (found, twice):
        for text in (to_junit(each), to_summary(each), printed(each, verbose=True), to_html(each)):
            assert not any(
                sign in text for sign in (": ;", ">; accepted", "PASS; <", "PASS: PASS", "== real", "not simply")
            )
    assert "inputs are real" in printed(found, verbose=True)
    assert "verdict PASS" in to_junit(found)


def test_the_reason_comes_first_where_there_is_no_bound() -> None:
    told = words.said(last(one("sqnr_db >= baseline - 2", {"y:sqnr_db": 24.3046}))[2])
    assert told.startswith("there is no baseline")
    assert told.endswith("; here it is 24.3046 dB")


def test_a_verdict_does_not_repeat_the_rules_beside_it() -> None:
    limits = tuple(f"limit:y{number}:sqnr_db>=25" for number in range(22))
    broken = {f"y{number}:sqnr_db": 10.0 for number in range(22)}
    for rule, said in (
        ("sqnr_db >= 25", "it breaks 22 limits, all those of broken rules beside it"),
        ("size_mb <= 9", "it breaks 22 limits: y0:sqnr_db>=25, y1:sqnr_db>=25, y2:sqnr_db>=25 and 19 more"),
    ):
        found = one(rule, {**broken, "size_mb": 3.0}, verdict=Verdict.FAIL, against=limits)
        assert words.said(found.trials[0].rules[0], found.trials[0]) == said
        assert said in to_junit(found).replace("&gt;", ">")


def test_float_beside_it_is_told_apart_in_its_folder() -> None:
    spec = spec_of(["sqnr_db >= float - 20"])
    told = {key: [facts(key, facts={"y:sqnr_db": n}, folder=FOLDER)] for key, n in ((KEY, 10.0), (FLOAT, 90.0))}
    assert then(Release(spec, told).report()).endswith(f"{FOLDER} --variant dynamic:8")
