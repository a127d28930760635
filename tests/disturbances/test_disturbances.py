"""Every planted disturbance gets its name, and no quiet machine is accused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.judge.disturbed import CAUSES, SESSION, SIGNS
from tests.disturbances.corpus import outcome, quiet_outcome
from tests.disturbances.plants import planted, quiet

KINDS = sorted({each.kind for each in planted()})


@pytest.mark.parametrize("kind", KINDS)
def test_it_gets_its_name(kind: str, tmp_path: Path) -> None:
    found = [outcome(each, tmp_path / str(number)) for number, each in enumerate(planted()) if each.kind == kind]
    assert [each for each in found if not each.right] == []


@pytest.mark.parametrize("turn", range(4))
def test_a_quiet_machine_is_not_accused(turn: int, tmp_path: Path) -> None:
    every = quiet()
    twins = every[turn * len(every) // 4 : (turn + 1) * len(every) // 4]
    found = [quiet_outcome(name, plant, tmp_path / str(number)) for number, (name, plant) in enumerate(twins)]
    assert [each for each in found if each.said] == []


def test_there_are_a_hundred_of_both_and_of_every_name() -> None:
    assert len(planted()) >= 100
    assert len(quiet()) >= 100
    assert {each.code for each in planted()} == {*CAUSES, *SIGNS} - {SESSION}  # that is no block's
