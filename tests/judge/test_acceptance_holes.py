"""Ways in which a release might be said to be better, or worse, than it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgequant.archive.acceptance import task_name
from edgequant.judge.acceptance import State
from edgequant.judge.verdict import Verdict
from edgequant.report.acceptance import to_json
from tests.judge.releases import GONE, KEY, LATER, Release, blocks, facts, spec_of
from tools import check_acceptance


def rule_of(release: Release, folder: Path, number: int = -1) -> Any:
    """One of the rules of the only trial; the independent checker agrees on all of them."""
    (folder / "acceptance.json").write_text(to_json(release.report()))
    assert check_acceptance.check(folder / "acceptance.json") == []
    return release.judge().trials[0].rules[number]


def test_two_runs_are_two_sessions_whatever_their_parts_are_called(tmp_path: Path) -> None:
    """Rounds that rise and fall together, by chance, would make a short interval of what is not known."""
    rising = [(number, 10 * 1.02**number) for number in range(7)]
    p50 = replace(blocks(10.6, session="bench/m-board/attempt-1"), blocks=tuple(rising))
    release = Release(
        spec_of(["latency_ms.p50 <= baseline + 2 %"]), {KEY: [facts(facts={"latency_ms.p50": p50})]},
        {KEY: facts(facts={"latency_ms.p50": p50})},
    )  # fmt: skip
    assert rule_of(release, tmp_path).state is State.INCONCLUSIVE


def test_a_deviation_accepts_nothing_where_its_rule_is_for_others(tmp_path: Path) -> None:
    """The limit that the trial breaks is its own default, which only reads like the rule of another model."""
    spec = spec_of(
        [{"rule": "sqnr_db >= 20", "model": "other"}], [{"rule": "sqnr_db >= 20", "reason": "known", "expires": LATER}],
        models={"m": "m.onnx", "other": "o.onnx"},
    )  # fmt: skip
    other = KEY._replace(model="other")
    broken = facts(verdict=Verdict.FAIL, facts={"y:sqnr_db": 10.0}, against=("limit:y:sqnr_db>=20",))
    release = Release(spec, {KEY: [broken], other: [facts(other, facts={"y:sqnr_db": 30.0})]})
    assert rule_of(release, tmp_path, 0).state is State.FAIL


@pytest.mark.parametrize(
    ("rule", "value", "wanted"),
    [
        ("task:likelihood >= baseline - 5 %", -10.0, State.PASS),
        ("task:likelihood >= baseline - 5 %", -10.4, State.PASS),
        ("task:likelihood >= baseline - 5 %", -10.6, State.FAIL),
        ("task:likelihood >= baseline + 5 %", -10.0, State.FAIL),
        ("task:likelihood >= baseline + 5 %", -9.4, State.PASS),
        ("task:likelihood >= 0.5 * baseline", -5.1, State.FAIL),
    ],
)
def test_a_percentage_is_of_the_size_of_what_it_is_of(rule: str, value: float, wanted: State, tmp_path: Path) -> None:
    spec = spec_of([rule], tasks={"likelihood": {"function": "a.py:f", "better": "higher"}})
    release = Release(
        spec, {KEY: [facts(facts={"task:likelihood": value})]}, {KEY: facts(facts={"task:likelihood": -10.0})}
    )
    assert rule_of(release, tmp_path).state is wanted


def test_what_tasks_came_to_is_kept_apart() -> None:
    """Names hold dashes."""
    trials = [("a-b", "c", "d"), ("a", "b-c", "d"), ("a", "b", "c-d"), ("a-b-c", "d", "e")]
    names = {task_name(task, trial, 1) for task in ("t", "t-a") for trial in trials}
    assert len(names) == 2 * len(trials)


def test_what_another_deviation_accepts_is_accepted_although_one_has_expired(tmp_path: Path) -> None:
    """The one that has expired is in nobody's way, and is to be taken out."""
    rule = "y:sqnr_db >= 30"
    spec = spec_of(
        [rule],
        [
            {"rule": rule, "reason": "old", "expires": GONE},
            {"rule": rule, "device": "arm", "reason": "new", "expires": LATER},
        ],
    )
    release = Release(spec, {KEY: [facts(facts={"y:sqnr_db": 25.0})]})
    assert rule_of(release, tmp_path).state is State.ACCEPTED
    assert [(each.code, each.severity) for each in release.judge().findings] == [("DEVIATION_UNUSED", "warn")]
