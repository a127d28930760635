"""What each line of the folding is for: where it is wrong, one of these numbers or names is another."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.compare.metrics import TensorComparison, compare
from edgequant.compare.summary import summarize

RAMP = np.linspace(-1, 1, 50, dtype=np.float32)
ZERO = np.zeros(50, np.float32)
FLAT = np.ones(50, np.float32)
EMPTY = np.zeros((0,), np.float32)
COUNT = np.arange(10)


def off(by: float) -> TensorComparison:
    return compare(RAMP, RAMP + np.float32(by))


def broken(*values: float) -> np.ndarray:
    array = RAMP.copy()
    array[: len(values)] = values
    return array


def changed(*values: int) -> TensorComparison:
    got = COUNT.copy()
    got[: len(values)] += np.array(values, got.dtype)
    return compare(COUNT, got)


def test_where_every_reference_is_broken_its_finite_part_is_measured() -> None:
    reference = broken(np.inf)
    found = summarize({"a": compare(reference, reference + np.float32(0.5)), "b": compare(EMPTY, EMPTY)})
    assert found.values["max_abs"] == pytest.approx(0.5, rel=1e-3)
    assert found.worst_cases["max_abs"] == "a"
    assert found.judgeable == 0
    assert found.empty_cases == ("b",)


def test_a_constant_case_counts_in_all_but_the_cosine() -> None:
    flat = compare(FLAT, np.where(np.arange(50) % 2, FLAT, -FLAT))
    assert (flat.cosine or 0) < 0.5 < (off(0.1).cosine or 0)
    found = summarize({"flat": flat, "ok": off(0.1)})
    assert (found.values["cosine"], found.worst_cases["cosine"]) == (off(0.1).cosine, "ok")
    assert (found.values["sqnr_db"], found.worst_cases["sqnr_db"]) == (flat.sqnr_db, "flat")
    assert (found.constant_cases, found.largest_constant) == (("flat",), 50)
    alone = summarize({"flat": flat})
    assert (alone.values["cosine"], alone.worst_cases["cosine"]) == (flat.cosine, "flat")
    assert summarize({"ok": off(0.1)}).largest_constant == 0


def test_of_equal_cases_the_first_by_name_is_named() -> None:
    found = summarize({"b": off(0.1), "a": off(0.1)})
    assert set(found.worst_cases.values()) == {"a"}
    assert found.worst_case == "a"
    assert not found.exact
    assert summarize({"a": compare(RAMP, RAMP)}).exact


def test_what_is_not_finite_is_added_up() -> None:
    nan, inf = np.nan, np.inf
    found = summarize({
        "got": compare(RAMP, broken(nan, inf, inf)),
        "reference": compare(broken(nan, nan, inf), RAMP),
        "both": compare(broken(nan), broken(nan, -inf)),
    })  # fmt: skip
    assert (found.nan, found.inf, found.ref_nan, found.ref_inf, found.swallowed) == (2, 3, 3, 1, 3)
    assert (found.judgeable, found.elements, found.reference_max_abs) == (1, 150, 1.0)


@pytest.mark.parametrize(
    ("cases", "worst"),
    [
        # The error of an all-zero reference is held against the output's size elsewhere: 1.0, in dB.
        ({"zero": compare(ZERO, ZERO + np.float32(1e-6)), "bad": off(0.1)}, "bad"),
        ({"zero": compare(ZERO, ZERO + np.float32(10 ** (-15.2 / 20))), "bad": off(0.1)}, "zero"),
        ({"zero": compare(ZERO, ZERO + np.float32(10 ** (-15.6 / 20))), "bad": off(0.1)}, "bad"),
        ({"zero": compare(ZERO, ZERO), "bad": off(0.1)}, "bad"),
        ({"small": compare(ZERO, ZERO + np.float32(1)), "large": compare(ZERO, ZERO + np.float32(2))}, "large"),
        # More of them, before larger ones; then the largest.
        ({"many": changed(1, 1, 1), "far": changed(9)}, "many"),
        ({"a": changed(9), "b": changed(1)}, "a"),
        ({"a": changed(1), "b": changed(9)}, "b"),
    ],
)  # fmt: skip
def test_the_case_to_look_at_first(cases: dict[str, TensorComparison], worst: str) -> None:
    assert off(0.1).sqnr_db == pytest.approx(15.4, abs=0.05)
    assert summarize(cases).worst_case == worst


def test_problems_in_their_order_and_in_words() -> None:
    cases = {
        "reference": (compare(broken(np.nan, np.inf), RAMP), "the reference has 1 NaN and 1 Inf among 50 elements"),
        "nonfinite": (compare(RAMP, broken(np.nan, np.nan, np.inf)), "2 NaN and 1 Inf among 50 elements"),
        "shape": (compare(RAMP, RAMP[:7]), "shape [7] instead of [50]"),
        "dtype": (compare(RAMP, RAMP.astype(np.int32)), "int32 instead of float32"),
        "missing": (compare(RAMP, None), "no such output came back"),
    }
    for number, (name, (_, text)) in enumerate(cases.items()):
        found = summarize({case: made for case, (made, _) in list(cases.items())[: number + 1]} | {"far": off(1e9)})
        assert found.worst_case == name
        assert found.details[name] == text
        assert found.details.keys() == found.problems.keys()
