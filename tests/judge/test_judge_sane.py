"""What counts as a model that computes something else altogether."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.judge.sane import sanity

RAMP = np.linspace(-1, 1, 50, dtype=np.float32)


def look(reference: np.ndarray, got: np.ndarray | None) -> tuple[bool, str]:
    found = sanity([("case", {"y": reference}, {} if got is None else {"y": got})])
    return found.ok, found.why


def test_a_rough_model_is_sane_and_its_worst_output_is_named() -> None:
    noise = np.random.default_rng(0).standard_normal(50).astype(np.float32) * 0.3
    good, rough = {"y": RAMP, "z": RAMP}, {"y": RAMP, "z": RAMP + noise}
    found = sanity([("one", good, good), ("two", good, rough)])
    assert found.ok
    assert (found.output, found.case) == ("z", None)  # of all cases together
    assert found.cosine is not None
    assert 0.8 < found.cosine < 0.99


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (None, "missing"),
        (RAMP[:49], "shape"),
        (np.ones(50, np.int32), "int32"),
        (np.where(RAMP > 0.9, np.nan, RAMP), "NaN"),
        (np.where(RAMP > 0.9, np.inf, RAMP), "Inf"),
        (np.full(50, 0.5, np.float32), "everywhere"),
        (np.zeros(50, np.float32), "everywhere"),
        (-RAMP, "nothing to do"),
        (RAMP * 3, "nearly as much error as signal"),  # a wrong scale, which a cosine does not see
        (RAMP[::2].repeat(2)[::-1].copy(), "nothing to do"),
    ],
)
def test_what_is_not(got: np.ndarray | None, said: str) -> None:
    ok, why = look(RAMP, got)
    assert not ok
    assert said in why
    assert "'y'" in why


def test_a_constant_around_a_large_mean_is_not_saved_by_its_cosine() -> None:
    ok, why = look(RAMP + 100, np.full(50, 100, np.float32))
    assert not ok
    assert "100 everywhere" in why


def test_a_case_of_next_to_nothing_says_nothing_of_the_model() -> None:
    """A speech filter's coefficients are near 0 in silence: the steps of an int8 scale are larger than they are."""
    noise = np.random.default_rng(0).standard_normal(50).astype(np.float32) * 0.002
    quiet, loud = {"y": RAMP * np.float32(1e-4)}, {"y": RAMP}
    rough = [("silence", quiet, {"y": quiet["y"] + noise}), ("speech", loud, {"y": RAMP + noise})]
    assert sanity(rough).ok
    assert sanity([("silence", quiet, {"y": quiet["y"] * 0}), rough[1]]).ok
    assert not sanity(rough[:1]).ok


def test_it_says_how_the_cases_are_pooled() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(RAMP.size).astype(np.float32) * RAMP.std()
    # 20 dB and 0 dB: neither their mean nor the worst of them, but the sums of both.
    found = sanity(
        [("a", {"y": RAMP}, {"y": RAMP + noise / 10}), ("b", {"y": RAMP / 100}, {"y": RAMP / 100 + noise / 100})]
    )
    assert found.why.endswith("of output 'y', all checked cases together")
    signal = 1.0001 * float((RAMP.astype(float) ** 2).sum())
    left = 0.0101 * float((noise.astype(float) ** 2).sum())
    assert f"SQNR {10 * np.log10(signal / left):.1f} dB" in found.why


def test_a_constant_reference_may_be_met_by_a_constant() -> None:
    assert look(np.full(5, 3.0, np.float32), np.full(5, 3.1, np.float32))[0]


def test_whole_numbers() -> None:
    whole = np.arange(10)
    assert look(whole, np.where(whole < 4, 0, whole).astype(np.int32))[0]
    ok, why = look(whole, np.zeros(10, np.int32))
    assert not ok
    assert "90%" in why


def test_a_case_that_cannot_be_run_and_nothing_to_compare() -> None:
    found = sanity([("one", {"y": RAMP}, {"y": RAMP}), ("two", {"y": RAMP}, None)])
    assert not found.ok
    assert "two" in found.why
    assert not sanity([]).ok
    assert not look(np.zeros(5, np.float32), np.zeros(5, np.float32))[0]  # it proves nothing
