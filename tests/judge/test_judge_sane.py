"""What counts as a model that computes something else altogether."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgequant.compare.metrics import compare
from edgequant.compare.summary import summarize
from edgequant.judge.limits import defaults_for, resolve_limits
from edgequant.judge.sane import SANE_ZERO, Sanity, sanity
from edgequant.judge.verdict import Verdict, judge_output

RAMP = np.linspace(-1, 1, 50, dtype=np.float32)
NOISE = np.random.default_rng(0).standard_normal(50).astype(np.float32)
NOISE /= np.sqrt(np.mean(NOISE**2))
"""Of rms 1; RAMP has 0.59."""
LOUDNESS = float(np.sqrt(np.mean(RAMP.astype(np.float64) ** 2)))


def cases(*pairs: tuple[object, object]) -> Sanity:
    """Look at one output, y, with a case for each (reference, output)."""
    return sanity((str(n), {"y": np.asarray(r)}, {"y": np.asarray(g)}) for n, (r, g) in enumerate(pairs))


def look(reference: np.ndarray, got: np.ndarray | None) -> tuple[bool, str]:
    found = sanity([("case", {"y": reference}, {} if got is None else {"y": got})])
    return found.ok, found.why


def noisy(decibels: float, reference: np.ndarray = RAMP) -> np.ndarray:
    """The reference with noise that leaves RAMP so many dB."""
    return (reference + NOISE * LOUDNESS / 10 ** (decibels / 20)).astype(np.float32)


def test_a_rough_model_is_sane_and_its_worst_output_is_named() -> None:
    good, rough = {"y": RAMP, "z": RAMP}, {"y": RAMP, "z": noisy(10)}
    found = sanity([("one", good, good), ("two", good, rough)])
    assert found.ok
    assert (found.output, found.case) == ("z", "two")
    assert found.sqnr_db == pytest.approx(10, abs=1e-4)
    assert "10.0 dB of output 'z' in case 'two'" in found.why


@pytest.mark.parametrize(("decibels", "ok"), [(60, True), (10, True), (3.1, True), (2.9, False), (-20, False)])
def test_half_of_the_power(decibels: float, ok: bool) -> None:
    found = cases((RAMP, noisy(decibels)))
    assert found.ok == ok
    assert found.sqnr_db == pytest.approx(decibels, abs=1e-4)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (None, "missing"),
        (RAMP[:49], "shape"),
        (RAMP[:, None], "shape"),
        (np.ones(50, np.int32), "int32"),
        (np.where(RAMP > 0.9, np.nan, RAMP), "NaN"),
        (np.where(RAMP > 0.9, np.inf, RAMP), "Inf"),
        (np.full(50, np.nan, np.float32), "NaN"),
        (np.full(50, 0.5, np.float32), "everywhere"),
        (np.zeros(50, np.float32), "everywhere"),
        (-RAMP, "nothing to do"),
        (RAMP * 3, "nearly as much error as signal"),  # a wrong scale, which a cosine does not see
        (RAMP * 10, "cosine 1.0000"),
        (RAMP * 0.1, "nearly as much error as signal"),
        (RAMP[::2].repeat(2)[::-1].copy(), "nothing to do"),
        (NOISE, "nothing to do"),
    ],
)
def test_what_is_not(got: np.ndarray | None, said: str) -> None:
    ok, why = look(RAMP, got)
    assert not ok
    assert said in why
    assert "'y'" in why


def test_one_output_of_garbage_beside_good_ones_is_named() -> None:
    reference = {"x": RAMP, "y": RAMP, "z": RAMP}
    found = sanity([("case", reference, {"x": RAMP, "y": -RAMP, "z": noisy(5)})])
    assert (found.ok, found.output) == (False, "y")


def test_exact_copies() -> None:
    whole, flags = np.arange(5), np.asarray([True, False])
    for array in (RAMP, np.zeros(5, np.float32), np.full(50, 3.0), np.float32(0.25), np.asarray([7.0]), whole, flags):
        found = cases((array, array.copy() if isinstance(array, np.ndarray) else array))
        assert found.ok, found


# ---- several cases


def test_a_case_of_next_to_nothing_says_nothing_of_the_model() -> None:
    """A speech filter's coefficients are near 0 in silence: the steps of an int8 scale are larger than they are."""
    quiet, noise = RAMP * np.float32(1e-4), NOISE * np.float32(0.002)
    speech = (RAMP, RAMP + noise)
    assert cases((quiet, quiet + noise), speech).ok
    assert cases((quiet, quiet * 0), speech).ok
    assert cases((RAMP * 0, noise), speech).ok
    assert not cases((quiet, quiet + noise)).ok
    # Silence is no licence for noise that would be too much in the loud case as well.
    found = cases((quiet, quiet + NOISE * np.float32(LOUDNESS / 2)), speech)
    assert (found.ok, found.case) == (False, "0")
    assert "quiet" in found.why


def test_garbage_in_one_case_does_not_drown_in_good_ones() -> None:
    good = [(RAMP, RAMP)] * 20
    for garbage in (np.zeros_like(RAMP), -RAMP, NOISE * LOUDNESS, RAMP * 10):
        for loudness in (1.0, 0.6, 0.4):
            found = cases(*good, (RAMP * loudness, garbage * loudness))
            assert (found.ok, found.case) == (False, "20"), (loudness, found)
    # It is not the cases' length that counts.
    long = np.tile(RAMP, 100)
    found = cases((long, long), (RAMP, np.zeros_like(RAMP)))
    assert (found.ok, found.case) == (False, "1")


def test_noise_of_9_db_in_the_loudest_case_is_nowhere_too_much() -> None:
    quieter = [RAMP * np.float32(part) for part in (1, 0.7, 0.5, 0.3, 0.1, 0)]
    assert cases(*((each, noisy(9.1, each)) for each in quieter)).ok
    assert not cases(*((each, noisy(8.9, each)) for each in quieter)).ok


def test_a_case_that_cannot_be_run_and_nothing_to_compare() -> None:
    found = sanity([("one", {"y": RAMP}, {"y": RAMP}), ("two", {"y": RAMP}, None)])
    assert not found.ok
    assert "two" in found.why
    assert not sanity([]).ok
    assert not look(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32))[0]


# ---- references of one value


def test_a_reference_of_zeros_in_every_case() -> None:
    zeros = np.zeros(50, np.float32)
    assert cases((zeros, zeros), (zeros, zeros + np.float32(0.02))).ok
    found = cases((zeros, zeros), (zeros, zeros + np.float32(SANE_ZERO * 1.01)))
    assert (found.ok, found.case) == (False, "1")
    assert "0 in every case" in found.why


def test_one_output_of_zeros_leaves_the_others_to_be_judged() -> None:
    zeros = np.zeros(5, np.float32)
    for got, ok in ((RAMP, True), (-RAMP, False)):
        assert sanity([("case", {"y": zeros, "z": RAMP}, {"y": zeros, "z": got})]).ok == ok


def test_a_constant_around_a_large_mean_is_not_saved_by_its_cosine() -> None:
    ok, why = look(RAMP + 100, np.full(50, 100, np.float32))
    assert not ok
    assert "100 everywhere" in why
    found = cases(*((np.full(4, 100 + n), np.full(4, 102)) for n in range(5)))  # each case by itself is constant
    assert not found.ok


def test_a_constant_reference_may_be_met_by_a_constant() -> None:
    assert look(np.full(50, 3.0, np.float32), np.full(50, 3.1, np.float32))[0]
    # So may one that moves by less than the steps it is rounded to.
    assert look(100 + RAMP * np.float32(0.5), np.full(50, 100, np.float32))[0]
    # And two numbers are no evidence that an output is stuck.
    assert look(np.asarray([0.48, 0.52]), np.asarray([0.5, 0.5]))[0]


# ---- a NaN or Inf


def test_what_is_not_finite_in_the_source_itself() -> None:
    broken = np.where(RAMP > 0.9, np.nan, RAMP)
    assert cases((broken, broken)).ok
    assert cases((broken, RAMP)).ok  # the verdict is INCONCLUSIVE; of the rest of the output it is the right one
    assert not cases((broken, -RAMP)).ok
    assert not cases((broken, np.where(RAMP > 0.8, np.nan, RAMP))).ok  # one more
    infinite = np.where(RAMP > 0.9, np.inf, RAMP)
    assert cases((infinite, infinite)).ok
    assert not cases((infinite, -infinite)).ok


def test_a_source_that_is_nan_throughout_shows_nothing() -> None:
    nan = np.full(50, np.nan, np.float32)
    ok, why = look(nan, nan)
    assert not ok
    assert "nothing to compare" in why
    assert sanity([("case", {"y": nan, "z": RAMP}, {"y": nan, "z": RAMP})]).ok
    assert cases((nan, nan), (RAMP, RAMP)).ok


# ---- few numbers, whole numbers


def test_a_single_number() -> None:
    assert cases((2.0, 1.5)).ok
    assert not cases((2.0, -2.0)).ok
    assert not cases((2.0, 20.0)).ok
    assert not cases((0.01, -0.02)).ok  # nobody can know that this is next to nothing
    assert cases((0.01, -0.02), (2.0, 2.1), (-3.0, -2.9)).ok  # here it is known


def test_a_classifier_that_flips_once_in_a_while() -> None:
    """Two probabilities for a case: where the decision tips, all of the case is wrong; the file may still be good."""
    sure, flipped = [0.98, 0.02], [0.03, 0.97]
    assert cases(*[(sure, sure)] * 7, (sure, flipped)).ok
    found = cases(*[(sure, sure)] * 3, *[(sure, flipped)] * 3)
    assert (found.ok, found.case) == (False, None)
    assert "of output 'y', its cases together: nearly as much error" in found.why
    assert not cases((sure, flipped)).ok
    # One number that is off by a factor of ten in one case of four is so far off that it is seen.
    assert not cases(*[(2.0, 2.1)] * 3, (2.0, 20.0)).ok
    # Small cases beside large ones are measured by these.
    assert cases((RAMP, RAMP), (1e-3, -1e-3), (2e-3, 1e-3)).ok
    found = cases((RAMP, RAMP), (0.5, -0.5), (0.5, -0.5))
    assert not found.ok
    assert "of output 'y', its small cases together: nearly as much error" in found.why


def test_whole_numbers() -> None:
    whole = np.arange(10)
    assert look(whole, np.where(whole < 4, 0, whole).astype(np.int32))[0]
    ok, why = look(whole, np.zeros(10, np.int32))
    assert not ok
    assert "90%" in why


def test_labels_are_counted_over_all_cases() -> None:
    """An argmax puts out one number for a case: where it flips once in a while, all of that case differs."""
    flips = [(np.asarray([n]), np.asarray([n + (n == 3)])) for n in range(10)]
    assert cases(*flips).ok
    assert not cases(*((np.asarray([n]), np.asarray([7])) for n in range(10))).ok
    # Of a single one nobody can tell, so it speaks neither for the model nor against it.
    assert not cases((np.asarray([1]), np.asarray([2]))).ok
    label, other = np.asarray([1]), np.asarray([2])
    assert sanity([("case", {"y": RAMP, "label": label}, {"y": RAMP, "label": other})]).ok
    assert not sanity([("case", {"y": -RAMP, "label": label}, {"y": RAMP, "label": label})]).ok


def test_a_label_map_of_garbage_does_not_drown() -> None:
    labels = np.arange(100) % 7
    found = cases(*([(labels, labels)] * 20), (labels, (labels + 1) % 7))
    assert (found.ok, found.case) == (False, "20")


def test_flags() -> None:
    flags = RAMP > 0
    assert look(flags, flags.astype(np.int32))[0]  # as MNN returns them
    assert look(flags, RAMP > 0.4)[0]
    ok, why = look(flags, ~flags)
    assert not ok
    assert "100%" in why
    assert not look(flags, flags.astype(np.float32))[0]


def test_huge_and_tiny_numbers_neither_overflow_nor_vanish() -> None:
    for scale in (1e-300, 1e300):
        wide = RAMP.astype(np.float64) * scale
        assert cases((wide, wide * 1.1)).ok
        assert not cases((wide, -wide)).ok


@pytest.mark.parametrize("variant", ["float", "fp16", "dynamic"])
def test_what_only_just_keeps_the_default_limits_is_sane(variant: str) -> None:
    """Or a file that passes would not be written."""
    random = np.random.default_rng(3)
    limits = resolve_limits({"y": "float"}, defaults_for(variant), [])["y"]
    kept = 0
    for _ in range(300):
        pairs, loudness = {}, 10 ** random.uniform(-3, 1, 3)
        noise = 10 ** random.uniform(-3, 0)
        for n, loud in enumerate(loudness):
            reference = random.standard_normal(40) * loud
            pairs[str(n)] = (reference, reference + random.standard_normal(40) * loud * noise)
        summary = summarize({case: compare(*pair) for case, pair in pairs.items()})
        if judge_output(summary, limits).verdict in (Verdict.PASS, Verdict.MARGINAL):
            kept += 1
            found = cases(*pairs.values())
            assert found.ok
            assert found.sqnr_db is not None
            assert not math.isnan(found.sqnr_db)
    assert kept > 20


def test_each_case_may_be_rough_but_not_all_of_them() -> None:
    """2 dB is next to nothing, and still something; together there have to be 3."""
    loud, rough = (RAMP, noisy(20, RAMP)), (RAMP, noisy(2, RAMP))
    assert cases(loud, loud, rough).ok
    found = cases(rough, rough, rough)
    assert (found.ok, found.case) == (False, None)
    assert "all cases together" in found.why
    assert not cases(loud, loud, (RAMP, noisy(0.5, RAMP))).ok
