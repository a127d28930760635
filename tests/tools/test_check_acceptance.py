"""The checker of acceptances notices whatever is changed in one that a state follows from."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgequant.compare.blocks import student
from edgequant.judge.verdict import Verdict
from edgequant.report.acceptance import to_json
from tests.judge.releases import KEY, LATER, Release, facts, generated, spec_of
from tools import check_acceptance, check_held
from tools.check_acceptance import Checker

STATES = check_acceptance.ORDER
MUTATIONS = 60


@cache
def _texts() -> list[str]:
    return [to_json(generated(seed).report()) for seed in range(24)]


def documents() -> list[Any]:
    return [json.loads(text) for text in _texts()]


def problems(document: Any) -> list[str]:
    """What it says, or that it could not read on."""
    try:
        return list(Checker(document).problems())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return [repr(error)]


def changed_state(document: Any, draw: random.Random) -> None:
    """The state of something is another one."""
    trials = [each for each in document["trials"] if not each["informative"]]
    trial = draw.choice(trials)
    rule = draw.choice(trial["rules"])
    attempt = draw.choice(trial["attempts"] or [trial])
    holder = draw.choice([document, trial, rule, attempt])
    holder["state"] = draw.choice([each for each in STATES if each != holder["state"]])


def changed_attempts(document: Any, draw: random.Random) -> None:
    """What a rule came to in one attempt; an attempt is gone; a rule is gone; one that decides does not."""
    trials = [each for each in document["trials"] if not each["informative"] and each["attempts"]]
    trial = draw.choice(trials)
    rule = draw.choice(trial["rules"])
    how = draw.randrange(4)
    if how == 0:
        place = draw.randrange(len(rule["attempts"]))
        rule["attempts"][place] = draw.choice([each for each in STATES if each != rule["attempts"][place]])
    elif how == 1:
        trial["attempts"].pop()
    elif how == 2:
        trial["rules"].remove(rule)
    else:
        rule = draw.choice(trial["rules"][2:] or [rule])
        rule["required"] = not rule["required"]
        if rule["rule"] in ("verdict", "inputs"):
            rule["state"] = "FLAKY" if rule["state"] != "FLAKY" else "PASS"


def changed_value(document: Any, draw: random.Random) -> None:
    """The number behind a rule that is kept is far on the bad side: all of its attempts must show it."""
    kept = [
        (trial, attempt, place, rule)
        for trial in document["trials"]
        for attempt in trial["attempts"]
        for rule in trial["rules"]
        if rule["state"] == "PASS" and rule["of"]["of"] == "absolute" and rule["metric"] not in ("verdict", "inputs")
        for place, value in attempt["facts"].items()
        if place in (rule["metric"], f"y:{rule['metric']}") and type(value["value"]) is float and not value["excused"]
    ]
    if not kept:
        changed_state(document, draw)
        return
    _, attempt, place, rule = draw.choice(kept)
    bad = -1e6 if rule["op"] == ">=" else 1e6
    attempt["facts"][place].update(value=bad, low=None, high=None)


def changed_shown(document: Any, draw: random.Random) -> None:
    """What stands beside a rule's state is something else; or a trial does not decide any more."""
    trials = [each for each in document["trials"] if not each["informative"] and each["attempts"]]
    trial = draw.choice(trials)
    rules = [each for each in trial["rules"][2:] if type(each["value"]) is float and each["bound"] is not None]
    if not rules or draw.random() < 0.1:
        trial["informative"] = True
        return
    rule = draw.choice(rules)
    key = draw.choice(["value", "bound", "margin", "op", "metric", "value"])
    other = {"margin": 77.0, "op": "==", "metric": "rel_max", "bound": 123.456, "value": draw.choice([None, 0.123])}
    rule[key] = other[key]
    if rule["value"] is None and rule["state"] in ("ERROR", "INCONCLUSIVE"):
        rule["value"] = 0.123


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert [problems(each) for each in documents()] == [[]] * len(documents())


@pytest.mark.parametrize("how", [changed_state, changed_attempts, changed_value, changed_shown])
def test_every_mutation_is_noticed(how: Any) -> None:
    draw = random.Random(0)
    sound = documents()
    usable = [each for each in sound if any(trial["attempts"] and not trial["informative"] for trial in each["trials"])]
    for number in range(MUTATIONS):
        document = copy.deepcopy(draw.choice(usable))
        before = json.dumps(document)
        how(document, draw)
        assert json.dumps(document) != before
        assert problems(document), (number, how.__name__)


def test_an_expired_deviation_accepts_nothing() -> None:
    spec = spec_of(["sqnr_db >= 25"], [{"rule": "sqnr_db >= 25", "reason": "known", "expires": LATER}])
    attempt = facts(verdict=Verdict.FAIL, against=("limit:y:sqnr_db>=25",), facts={"y:sqnr_db": 20.0})
    document = json.loads(to_json(Release(spec, {KEY: [attempt]}).report()))
    assert (document["state"], problems(document)) == ("ACCEPTED", [])
    document["today"] = "2030-01-01"
    assert problems(document)


def test_students_t_is_the_same_in_both() -> None:
    for freedom in (1, 2, 5, 12, 40):
        assert check_held.student(0.99, freedom) == pytest.approx(student(0.99, freedom), rel=1e-6)


def test_it_shares_no_code_with_the_product() -> None:
    for module in (check_acceptance, check_held):
        text = Path(module.__file__ or "").read_text()
        assert "import edgequant" not in text
        assert "from edgequant" not in text
        assert len(text.splitlines()) <= 300


def test_as_a_command(tmp_path: Path) -> None:
    path = tmp_path / "acceptance.json"
    document = documents()[0]
    for state, code in ((document["state"], 0), ("FLAKY", 1)):
        path.write_text(json.dumps({**document, "state": state}))
        done = subprocess.run([sys.executable, check_acceptance.__file__, path], capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
