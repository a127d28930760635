"""Console, JSON, JUnit, Markdown and HTML of an acceptance say the same, rule by rule, and are read as nothing else."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError
from rich.console import Console

from edgequant.errors import InputError
from edgequant.judge.acceptance import State, Value
from edgequant.judge.verdict import Verdict
from edgequant.report import acceptance_words as words
from edgequant.report.acceptance import (
    Acceptance,
    judge_again,
    load_acceptance,
    load_baseline,
    to_json,
)
from edgequant.report.acceptance_console import render
from edgequant.report.acceptance_junit import to_junit
from edgequant.report.acceptance_openmetrics import to_openmetrics
from edgequant.report.acceptance_summary import to_summary
from edgequant.report.html.acceptance import to_html
from edgequant.report.read import load
from edgequant.spec.accept import TrialKey
from tests.judge.releases import FLOAT, KEY, RULES, Release, blocks, facts, generated, spec_of
from tests.nightly import all_but
from tests.recorded import unpacked
from tests.report.pages import EVIL, Reader
from tests.report.test_openmetrics import by_gitlab, labels, named, parsed
from tools.check_acceptance import Checker, check

BROKEN: dict[str, Any] = {
    "y:sqnr_db": 10.0, "y:cosine": 0.5, "latency_ms.p50": blocks(30, 0.001, seed=1), "size_mb": 20.0,
    "latency_ms.load": Value(9.0, low=8.5, high=9.5), "low_memory_engaged": False, "mnn": "3.0.0",
    "finding:OUTPUT_STUCK": True, "task:cer": 0.4, "memory_mb.rss_peak": 400.0, "y:drift.breaks_at": 7,
    "y:conversion.sqnr_db": 20.0, "independent_cases": 1,
}  # fmt: skip
SOUND: dict[str, Any] = {
    "y:sqnr_db": 40.0, "y:cosine": 0.9999, "latency_ms.p50": blocks(10, 0.001, seed=2), "size_mb": 3.0,
    "latency_ms.load": Value(5.0, low=4.9, high=5.1),
}  # fmt: skip


def printed(found: Acceptance, width: int = 80, **how: Any) -> list[str]:
    out = io.StringIO()
    render(
        found,
        Console(file=out, width=width, color_system=None, force_terminal=True),
        path=Path("runs/x/acceptance.json"),
        **how,
    )
    return out.getvalue().splitlines()


def agree(found: Acceptance) -> None:
    """All forms, rule by rule; and what does not share a line of code with them."""
    text = to_json(found)
    assert Acceptance.model_validate_json(text) == found
    again = judge_again(Acceptance.model_validate_json(text))
    assert again.state is found.state
    assert [[rule.state for rule in trial.rules] for trial in again.trials] == [
        [rule.state for rule in trial.rules] for trial in found.trials
    ]
    assert list(Checker(json.loads(text)).problems()) == []
    _junit(found)
    _metrics(found)
    page = Reader(to_html(found))
    cells = {(row["model"], row["variant"]): row for row in page.rows("matrix")}
    lines = printed(found, 2000, verbose=True)
    assert lines[0].split()[0] == found.state.value
    summary = to_summary(found)
    assert summary.startswith(f"## {found.state}: ")
    rows = [line for line in summary.splitlines() if line.startswith("| ") and not line.startswith("| state")]
    ordered = words.worst_first(found.trials)
    assert [row.split(" | ")[0] for row in rows] == [f"| {trial.state}" for trial in ordered]
    for place, trial in enumerate(ordered):
        assert cells[trial.model, trial.variant][trial.device].startswith(trial.state.value)
        told = page.rows(f"rules-{place}") if trial.rules else []
        there = {(row["state"], row["rule"].removesuffix("informative")) for row in told}
        assert there == {(rule.state.value, words.rule_name(rule)) for rule in trial.rules}
        at = next(
            n for n, line in enumerate(lines) if line.startswith(f"{trial.state.value:<12}  {words.title(trial)}")
        )
        for rule, line in zip(trial.rules, lines[at + 1 :], strict=False):
            assert line.split()[0] == rule.state.value
            assert words.rule_name(rule) in line


def _metrics(found: Acceptance) -> None:
    text = to_openmetrics(found)
    samples = parsed(text)
    assert len(by_gitlab(text)) == sum(map(len, samples.values()))
    assert found.state is named(samples, State, "acceptance_state")
    for trial in found.trials:
        of = {"model": trial.model, "variant": trial.variant, "device": trial.device}
        told = str(trial.informative).lower()
        assert named(samples, State, "trial_state", **of, informative=told) is trial.state
        for rule in trial.rules:
            whose = {**of, "rule": words.rule_name(rule), "required": str(rule.required).lower()}
            assert named(samples, State, "rule_state", **whose) is rule.state
            value = samples.get("edgequant_rule_value", {}).get(labels(**whose))
            if rule.state in (State.INCONCLUSIVE, State.ERROR) or isinstance(rule.value, (str, type(None))):
                assert value is None
            else:
                assert value == pytest.approx(float(rule.value), rel=1e-9)


def _junit(found: Acceptance) -> None:
    root = ElementTree.fromstring(to_junit(found).encode())
    *suites, whole = list(root)
    assert len(suites) == len(found.trials)
    for trial, suite in zip(found.trials, suites, strict=True):
        names = [case.get("name") for case in suite]
        assert len(set(names)) == len(names)
        by_name = {case.get("name", ""): case for case in suite}
        for rule in trial.rules:
            case = by_name[words.rule_name(rule) + ("" if rule.required else " [informative]")]
            tags = {element.tag for element in case} - {"system-out"}
            bad = rule.required and rule.state.exit_code
            assert tags == ({"failure"} if bad == 1 else {"error"} if bad else set())
            assert any((element.text or "").startswith(rule.state.value) for element in case)
        broken = bool(suite.findall("testcase/failure") or suite.findall("testcase/error"))
        assert broken is (bool(trial.state.exit_code) and not trial.informative)
    last = list(whole)[-1]
    assert last.get("name") == "verdict"
    assert {each.tag for each in last} - {"system-out"} == (
        {"failure"} if found.state.exit_code == 1 else {"error"} if found.state.exit_code else set()
    )


def test_a_spec_with_one_broken_rule_of_each_kind() -> None:
    """Each on a trial that is good apart from it: exit code, JSON, JUnit, HTML, Markdown and console agree."""
    for text in RULES:
        rules = [text] if ":" not in text.partition(" ")[0] else [text, "size_mb <= 1000"]
        spec = spec_of(rules, tasks={"cer": {"function": "a.py:f", "better": "lower"}})
        attempts = {KEY: [facts(facts=BROKEN)], **{key: [facts(key, facts=SOUND)] for key in spec.float_beside()}}
        found = Release(spec, attempts, {KEY: facts(facts=SOUND)}).report()
        assert (found.state, found.state.exit_code) == (State.FAIL, 1), text
        assert [rule.rule for rule in words.broken(found.trials[0])] == [spec.rules[0].text]
        agree(found)


@pytest.mark.parametrize("seed", all_but(*range(12), of=range(500)))
def test_generated_acceptances_agree(seed: int) -> None:
    agree(generated(seed).report())


def test_generated_acceptances_are_of_every_state() -> None:
    states = {trial.state for seed in range(60) for trial in generated(seed).report().trials}
    assert states == set(State)


def test_it_fits_a_screen() -> None:
    keys = {f"model-with-a-long-name-{n}": "m.onnx" for n in range(15)}
    spec = spec_of(RULES[:6], models=keys, variants=["dynamic:8", "fp16"])
    attempts = {
        key: [facts(key, Verdict.FAIL, facts=BROKEN, against=("finding:A",), folder="t/1")] for key in spec.trials()
    }
    found = Release(spec, attempts).report()
    lines = printed(found)
    assert len(lines) <= 35
    assert all(len(line) <= 80 for line in lines if "->" not in line)
    assert lines[0].startswith("FAIL")
    assert any("-> edgequant diagnose runs/x/t/1 --variant dynamic:8" in line for line in lines)
    small = Release(spec_of(RULES[:1]), {KEY: [facts(facts=SOUND)]}).report()
    assert len(printed(small)) <= 24


def test_what_a_trial_that_was_not_run_leads_to() -> None:
    found = Release(spec_of(RULES[:5]), {KEY: [], FLOAT: []}).report()
    assert (found.state, found.state.exit_code) == (State.ERROR, 3)
    lines = printed(found)
    assert sum("-> edgequant accept --resume runs/x" in line for line in lines) == 1
    agree(found)


@pytest.mark.parametrize("evil", [each for each in EVIL if len(each) < 1000], ids=range(len(EVIL) - 1))
def test_nothing_untrusted_gets_through(evil: str) -> None:
    attempt = facts(verdict=Verdict.ERROR, error=evil, facts={f"{evil}:sqnr_db": Value(None, evil)}, folder=evil)
    found = Release(spec_of(["sqnr_db >= 25"]), {KEY: [attempt]}).report()
    found = found.model_copy(update={"name": evil})
    page = to_html(found)
    tags = {tag for tag, _ in Reader(page).tags}
    assert not tags & {"script", "img", "svg"}
    assert not any(value and "javascript:" in value for _, given in Reader(page).tags for value in given.values())
    ElementTree.fromstring(to_junit(found).encode())
    shown = "\n".join(printed(found, verbose=True)) + to_summary(found)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown + page.replace("\t", " "))
    assert "<script" not in to_summary(found)


def test_a_report_is_not_better_than_its_parts() -> None:
    found = Release(spec_of(["sqnr_db >= 25"]), {KEY: [facts(facts=BROKEN)]}).report()
    for place in ((), ("trials", 0)):
        changed = json.loads(to_json(found))
        target = changed
        for part in place:
            target = target[part]
        target["state"] = "PASS"
        with pytest.raises(ValidationError, match="better than its"):
            Acceptance.model_validate(changed)
    with pytest.raises(ValidationError, match="better than its trials' ERROR"):
        Acceptance.model_validate({**json.loads(to_json(found)), "state": "PASS", "trials": []})


def test_it_is_read_back_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "acceptance.json"
    found = generated(3).report()
    path.write_text(to_json(found))
    assert load_acceptance(path) == found
    assert check(path) == []
    for text in ("", "{}", "[" * 100_000, to_json(found).replace('"edgequant.acceptance/1"', '"other/1"'),
                 to_json(found).replace('"value": 3.25', '"value": NaN')):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InputError) as refused:
            load_acceptance(path)
        assert refused.value.code == "REPORT_INVALID"


# ---- an earlier release


def test_an_earlier_acceptance_is_a_baseline(tmp_path: Path) -> None:
    release = Release(spec_of(["sqnr_db >= 5"]), {KEY: [facts(facts=SOUND), facts(facts={**SOUND, "y:sqnr_db": 38.0})]})
    (tmp_path / "acceptance.json").write_text(to_json(release.report()))
    for path in (tmp_path, tmp_path / "acceptance.json"):
        known = load_baseline(path, [KEY], {"board": "ssh://b"})
        value = known[KEY].facts["y:sqnr_db"]
        assert (value.value, value.low, value.high) == (38.0, 38.0, 40.0)
        assert known[KEY].facts["latency_ms.p50"].blocks == SOUND["latency_ms.p50"].blocks
        assert known[KEY].identity["cpu"] == "x"


def test_an_earlier_verify_is_a_baseline_of_one_model(tmp_path: Path) -> None:
    folder = unpacked("cnn", tmp_path)
    report = load(folder / "report.json")
    uri = report.runs[0].device.uri
    key = TrialKey("net", "dyn", "here")
    known = load_baseline(folder, [key, TrialKey("net", "kl", "here")], {"here": uri}, {"dyn": report.runs[0].variant})
    assert list(known) == [key]
    assert known[key].facts["y:sqnr_db"].value == report.runs[0].outputs["y"].sqnr_db
    assert known[key].random_inputs
    with pytest.raises(InputError, match="it is of one model"):
        load_baseline(folder, [key, key._replace(model="b")], {})
    with pytest.raises(InputError) as refused:
        load_baseline(tmp_path, [key], {})
    assert refused.value.code == "RUN_NOT_FOUND"
