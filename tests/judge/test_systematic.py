"""From which size and which strength on a sign is systematic: a verdict hangs on each of these."""

from __future__ import annotations

from typing import Any

import pytest

from edgequant.compare.residual import Sign
from edgequant.judge.residual import RULES, code_of, systematic

ENOUGH: dict[str, Any] = {
    "parts": 8, "low": 0.01, "high": 0.03, "explained": 0.5, "value": 1.0, "levels": 16, "elements": 64, "count": 8,
    "beyond": 0.95, "of": 8, "cases": 5, "axis": 1, "stale": False, "expected": 24, "bits": 11,
}  # fmt: skip
"""What is asked of a sign besides its size and strength, and is there."""


def sign(kind: str, size: float = 1.0, strength: float = 1.0, **where: Any) -> Sign:
    """size, strength: in what its rule asks for."""
    rule = RULES[kind]
    return Sign(kind, size * rule.size, strength * rule.strength, {**ENOUGH, **where})


def held(found: Sign, elements: int = 5000, cases: int = 5) -> bool:
    return systematic(found, elements, cases)


@pytest.mark.parametrize("kind", sorted(set(RULES) - {"undone"}))
def test_both_bounds_of_each_rule_have_to_be_reached(kind: str) -> None:
    assert held(sign(kind))
    assert not held(sign(kind, size=0.999))
    assert not held(sign(kind, strength=0.999))


@pytest.mark.parametrize("kind", ["stuck", "exchanged", "slice", "tilt", "element"])
def test_at_one_place_few_cases_need_more(kind: str) -> None:
    assert [held(sign(kind, strength=times), cases=1) for times in (24.9, 25.0)] == [False, True]
    assert [held(sign(kind, strength=times), cases=2) for times in (3.9, 4.0)] == [False, True]
    assert held(sign(kind), cases=3)


@pytest.mark.parametrize("kind", ["stuck", "exchanged", "slice", "tilt", "element"])
def test_so_large_an_error_at_one_place_may_be_a_decision_that_tips(kind: str) -> None:
    """From a quarter of the output's size on, twice as clear."""
    large = 0.25 / RULES[kind].size
    assert held(sign(kind, size=0.999 * large))
    assert not held(sign(kind, size=large, strength=1.99))
    assert held(sign(kind, size=large, strength=2.0))


def test_what_is_left_over_beyond_groups_needs_more_where_few_cases_have_any() -> None:
    assert [held(sign("tail", strength=times, cases=1)) for times in (3.9, 4.0)] == [False, True]
    assert [held(sign("tail", strength=times, cases=2)) for times in (1.9, 2.0)] == [False, True]
    assert held(sign("tail", cases=3))


@pytest.mark.parametrize("kind", ["gain", "offset"])
def test_a_gain_is_one_in_parts_that_agree_on_its_sign(kind: str) -> None:
    assert held(sign(kind, parts=4, explained=0.2))
    assert not held(sign(kind, parts=3))
    assert not held(sign(kind, explained=0.19))
    assert held(sign(kind, low=-0.03, high=-0.01))
    assert not held(sign(kind, low=-0.01, high=0.03))
    assert not held(sign(kind, low=0.0, high=0.03))
    assert not held(sign(kind, low=-0.03, high=0.0))


def test_a_shorter_format_is_one_that_numbers_of_full_length_came_out_in() -> None:
    assert held(sign("format", expected=20, bits=11))
    assert not held(sign("format", expected=19, bits=8))
    assert not held(sign("format", expected=24, bits=12))


def test_a_quantization_that_is_undone_is_a_whole_one_or_larger() -> None:
    def undone(size: float, strength: float, value: float = 2.0, parts: int = 8) -> bool:
        return held(Sign("undone", size, strength, {"parts": parts, "value": value}))

    assert undone(1.5, 0.7)
    assert not undone(1.5, 0.7, parts=7)
    assert not undone(1.49, 0.7)
    assert [undone(0.7, 0.9, value) for value in (0.94, 0.96, 1.04, 1.06)] == [False, True, True, False]
    assert not undone(0.7, 0.89, 1.0)


@pytest.mark.parametrize(
    ("kind", "fact", "least"),
    [("small", "elements", 16), ("saturated", "count", 8), ("pattern", "of", 8), ("crosstalk", "parts", 8),
     ("input", "parts", 8), ("other case", "elements", 16)],
)  # fmt: skip
def test_of_fewer_it_may_be_chance(kind: str, fact: str, least: int) -> None:
    assert held(sign(kind, **{fact: least}))
    assert not held(sign(kind, **{fact: least - 1}))


def test_few_elements_fit_elsewhere_by_chance_unless_they_do_so_exactly() -> None:
    for kind in ("other output", "permuted", "lag"):
        exact = 100 / RULES[kind].strength
        assert held(sign(kind), elements=16)
        assert [held(sign(kind, strength=times), elements=15) for times in (0.99 * exact, exact)] == [False, True]
    exact, plain = 100 / RULES["other case"].strength, 0.25 / RULES["other case"].size
    assert held(sign("other case", size=plain, strength=exact, elements=1))
    assert not held(sign("other case", size=0.99 * plain, strength=exact, elements=1))
    assert not held(sign("other case", size=plain, strength=0.99 * exact, elements=1))


def test_levels_of_more_than_8_bits_has_half_precision_too() -> None:
    assert held(sign("levels", levels=256))
    assert not held(sign("levels", levels=257))


def test_piles_are_saturation_where_those_expected_go_on() -> None:
    assert held(sign("saturated", beyond=0.9))
    assert not held(sign("saturated", beyond=0.89))


def test_a_curve_needs_many_elements() -> None:
    assert [held(sign("curve"), elements=elements) for elements in (999, 1000)] == [False, True]


def test_an_axis_is_one_of_channels_where_models_have_them() -> None:
    def code(axis: int, rank: int, kind: str = "slice") -> str:
        return code_of(sign(kind, axis=axis), rank)

    assert [code(axis, 4) for axis in range(4)] == [
        "RESIDUAL_STEP",
        "RESIDUAL_CHANNEL",
        "RESIDUAL_STEP",
        "RESIDUAL_STEP",
    ]
    assert [code(axis, 3) for axis in range(3)] == ["RESIDUAL_STEP", "RESIDUAL_STEP", "RESIDUAL_CHANNEL"]
    assert [code(axis, 2) for axis in range(2)] == ["RESIDUAL_STEP", "RESIDUAL_CHANNEL"]
    assert code(0, 4, "element") == "RESIDUAL_ELEMENT"
    assert code_of(sign("other case", stale=True), 2) == "OUTPUT_STALE"
    assert code_of(sign("other case", stale=False), 2) == "CASE_SWAPPED"
