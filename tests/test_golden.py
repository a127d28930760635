"""What holds all that the judge says against what is kept: that it notices, and what it lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import golden

KEPT = {"code": "LOUD", "text": "3.02 times as loud in 'y'", "evidence": {"gain": 3.0217, "cases": ["a", "b"]}}


@pytest.mark.parametrize(
    "now",
    [
        {**KEPT, "code": "QUIET"},
        {**KEPT, "text": "3.02 times as loud in 'x'"},
        {**KEPT, "text": "3.07 times as loud in 'y'"},
        {**KEPT, "evidence": {"gain": 3.03, "cases": ["a", "b"]}},
        {**KEPT, "evidence": {"gain": 3.0217, "cases": ["b", "a"]}},
        {**KEPT, "evidence": {"gain": 3.0217, "cases": ["a"]}},
        {**KEPT, "evidence": {"gain": 3, "cases": ["a", "b"]}},
        {"code": "LOUD"},
        [KEPT],
    ],
)
def test_what_is_not_the_same_is_told(now: Any) -> None:
    assert list(golden.differences(KEPT, now))


def test_the_last_bits_may_differ() -> None:
    now = {**KEPT, "text": "3.03 times as loud in 'y'", "evidence": {"gain": 3.02171, "cases": ["a", "b"]}}
    assert not list(golden.differences(KEPT, now))


def test_what_differs_each_time_is_not_held_and_all_else_is() -> None:
    other = {**KEPT, "evidence": {"gain": 17.0, "cases": ["a", "b"]}}
    kept = golden.agreeing(KEPT, other)
    assert kept["evidence"]["gain"] == golden.ANYTHING
    assert not list(golden.differences(kept, KEPT))
    assert not list(golden.differences(kept, other))
    assert list(golden.differences(kept, {**other, "code": "QUIET"}))


def test_what_the_instructions_of_this_cpu_change_is_asked_again_without_them(tmp_path: Path) -> None:
    (tmp_path / "test_sum.py").write_text(
        "import os\ndef test_plain(): assert 'X86_V3' in os.environ['NPY_DISABLE_CPU_FEATURES']\n"
        "def test_wrong(): assert False\n"
    )
    assert golden.same_without_this_cpu("test_sum.py::test_plain", tmp_path)
    assert not golden.same_without_this_cpu("test_sum.py::test_wrong", tmp_path)
