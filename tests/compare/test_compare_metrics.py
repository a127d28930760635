"""The metrics against a slow and obvious implementation, and where they must refuse to say anything."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgequant.compare import pieces
from edgequant.compare.decibel import SQNR_CAP_DB
from edgequant.compare.metrics import SMALLEST, compare, strayed

quick = settings(deadline=None, max_examples=60)
moderate = st.floats(-1e6, 1e6, width=32)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(shapes)
    return tuple(draw(hnp.arrays(np.float32, shape, elements=moderate)) for _ in range(2))


def same(one: float | None, other: float | None) -> bool:
    return one is other or (None not in (one, other) and one == pytest.approx(other, rel=1e-8, abs=1e-11))


def slow(reference: np.ndarray, got: np.ndarray) -> dict[str, float | None]:
    """Exact rational sums over Python numbers, one element after the other."""
    r = [Fraction(float(x)) for x in reference.ravel()]
    g = [Fraction(float(x)) for x in got.ravel()]
    errors = sorted(abs(a - b) for a, b in zip(r, g, strict=True))
    rr, gg, ee = sum(a * a for a in r), sum(b * b for b in g), sum(e * e for e in errors)
    place = (len(errors) - 1) * 0.99
    low, high = errors[math.floor(place)], errors[min(math.floor(place) + 1, len(errors) - 1)]
    cosine = sqnr = rel = None
    if rr:
        dot = sum(a * b for a, b in zip(r, g, strict=True))
        cosine = float(dot) / math.sqrt(rr) / math.sqrt(gg) if gg else 0.0
        ratio = rr / ee if ee else None
        sqnr = 10 * (math.log10(ratio.numerator) - math.log10(ratio.denominator)) if ratio else 200.0
        sqnr = max(-200.0, min(200.0, sqnr))
        rel = float(errors[-1] / max(*(abs(a) for a in r), Fraction(SMALLEST)))
    return {
        "cosine": cosine,
        "sqnr_db": sqnr,
        "max_abs": float(errors[-1]),
        "mean_abs": float(sum(errors) / len(errors)),
        "rel_max": rel,
        "p99_abs": float(low) + float(high - low) * (place - math.floor(place)),
    }


@quick
@given(pairs())
def test_agrees_with_the_obvious_implementation(pair):
    found, expected = compare(*pair), slow(*pair)
    for metric, value in expected.items():
        got = getattr(found, metric)
        if value is None:
            assert got is None, metric
        else:
            assert got == pytest.approx(value, rel=1e-5, abs=1e-6 if metric in ("cosine", "sqnr_db") else 1e-300), (
                metric
            )


@quick
@given(pairs(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_elements_does_not_matter(pair, seed):
    reference, got = (array.ravel() for array in pair)
    order = np.random.default_rng(seed).permutation(reference.size)
    one, other = compare(reference, got), compare(reference[order], got[order])
    for metric in ("cosine", "sqnr_db", "max_abs", "mean_abs", "rel_max", "p99_abs"):
        assert same(getattr(one, metric), getattr(other, metric)), metric
    assert one.reference_kind == other.reference_kind


@quick
@given(pairs(), st.integers(-800, 800))
def test_cosine_and_sqnr_do_not_depend_on_the_scale(pair, exponent):
    reference, got = (array.astype(np.float64) for array in pair)
    # Values that scaling would push into the subnormals lose bits before they are compared.
    reference[np.abs(reference) < 1e-20] = 0
    got[np.abs(got) < 1e-20] = 0
    one, other = compare(reference, got), compare(np.ldexp(reference, exponent), np.ldexp(got, exponent))
    for metric in ("cosine", "centered_cosine", "sqnr_db"):
        assert same(getattr(one, metric), getattr(other, metric)), metric
    if other.reference_max_abs is None or other.reference_max_abs >= SMALLEST:
        assert same(one.rel_max, other.rel_max)


@pytest.mark.parametrize(
    ("size", "error", "rel_max"),
    [(1e-310, 1e-310, 0.0), (2.0**-127, 2.0**-127, 0.5), (2.0**-126, 2.0**-126, 1.0), (1e-310, 2.0**-125, 2.0),
     (1e-30, 1e-30, 1.0)],
)  # fmt: skip
def test_what_is_nothing_in_float32_is_no_yardstick(size: float, error: float, rel_max: float) -> None:
    """A reference of 1e-310 that comes out as 0, as it does in float32, was 100 % off."""
    reference = np.array([0.0, size, -size])
    found = compare(reference, reference + np.array([0.0, error, error]))
    assert found.rel_max == pytest.approx(rel_max, abs=1e-200)


@quick
@given(pairs())
def test_swapping_keeps_what_is_symmetric(pair):
    one, other = compare(*pair), compare(*reversed(pair))
    assert (one.max_abs, one.p99_abs) == (other.max_abs, other.p99_abs)
    if one.cosine is not None and other.cosine is not None:
        assert one.cosine == pytest.approx(other.cosine)


@quick
@given(hnp.arrays(np.float32, shapes, elements=moderate))
def test_an_array_equals_itself(array):
    found = compare(array, array.copy())
    assert found.exact
    assert (found.max_abs, found.mean_abs, found.p99_abs) == (0, 0, 0)
    assert found.cosine in (None, 1.0)
    assert found.sqnr_db in (None, SQNR_CAP_DB)


@quick
@given(pairs(), st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_a_nonfinite_element_is_never_equal_and_never_a_number(pair, bad, data):
    reference, got = pair
    got = got.copy()
    got.flat[data.draw(st.integers(0, got.size - 1))] = bad
    found = compare(reference, got)
    assert found.problem == "nonfinite"
    assert not found.exact
    assert (found.nan, found.inf) == ((1, 0) if math.isnan(bad) else (0, 1))
    finite = np.isfinite(got)
    rest = compare(reference[finite], got[finite]) if finite.any() else None
    assert found.max_abs == (rest.max_abs if rest else None)
    numbers = [getattr(found, m) for m in ("cosine", "sqnr_db", "max_abs", "rel_max", "mean_abs", "p99_abs")]
    assert all(number is None or math.isfinite(number) for number in numbers)


@pytest.mark.parametrize(
    ("reference", "got", "problem", "swallowed"),
    [
        ([np.nan, 1], [np.nan, 1], "reference_nonfinite", 0),
        ([np.inf, 1], [np.inf, 1], "reference_nonfinite", 0),
        ([np.inf, 1], [-np.inf, 1], "nonfinite", 0),
        ([np.nan, 1], [np.inf, 1], "nonfinite", 0),
        ([np.inf, 1], [np.nan, 1], "nonfinite", 0),
        ([np.nan, 1], [1, np.nan], "nonfinite", 1),
        ([np.nan, 1], [0, 1], "reference_nonfinite", 1),
    ],
)
def test_nonfinite_at_the_same_place_only(reference, got, problem, swallowed):
    found = compare(np.float32(reference), np.float32(got))
    assert (found.problem, found.swallowed, found.reference_kind) == (problem, swallowed, "nonfinite")
    assert not found.exact


def test_nothing_finite_gives_no_numbers():
    found = compare(np.ones(3, np.float32), np.full(3, np.nan, np.float32))
    assert (found.nan, found.problem, found.cosine, found.max_abs) == (3, "nonfinite", None, None)


def test_an_all_zero_reference_has_absolute_metrics_only():
    found = compare(np.zeros(4, np.float32), np.float32([0, 0, 0, 0.5]))
    assert found.reference_kind == "zero"
    assert (found.cosine, found.centered_cosine, found.sqnr_db, found.rel_max) == (None, None, None, None)
    assert (found.max_abs, found.mean_abs) == (0.5, 0.125)


def test_a_constant_reference_is_flagged_and_its_sqnr_still_counts():
    found = compare(np.full(100, 5, np.float32), np.full(100, 6, np.float32))
    assert found.reference_kind == "constant"
    assert found.cosine == pytest.approx(1)  # which says nothing
    assert found.centered_cosine is None
    assert found.sqnr_db == pytest.approx(20 * math.log10(5))


def test_a_single_element_is_constant():
    assert compare(np.float32(3), np.float32(3)).reference_kind == "constant"


def test_an_all_zero_output_has_cosine_zero():
    found = compare(np.float32([1, 2]), np.zeros(2, np.float32))
    assert (found.cosine, found.sqnr_db) == (0.0, 0.0)


def test_cosine_passes_a_lost_signal_on_a_large_mean_but_the_others_do_not():
    signal = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    found = compare(100 + signal, np.full(1000, 100, np.float32) + signal[::-1])
    assert found.cosine > 0.999
    assert abs(found.centered_cosine) < 0.2


@pytest.mark.parametrize("size", [1e300, 1e-300, 1.7e308, 5e-324])
def test_huge_and_tiny_values_neither_overflow_nor_vanish(size):
    with np.errstate(all="raise", under="ignore"):
        found = compare(np.array([size, -size, size]), np.array([size, size, size]))
    assert found.cosine == pytest.approx(1 / 3)
    assert math.isfinite(found.sqnr_db)
    assert found.max_abs > 0
    assert not found.exact


def test_a_tiny_reference_under_a_huge_output_stays_finite():
    found = compare(np.array([5e-324, 0]), np.array([1e308, 0]))
    assert found.sqnr_db == -SQNR_CAP_DB
    assert math.isfinite(found.rel_max)


@pytest.mark.parametrize(
    ("reference", "got"),
    [((), (1,)), ((1,), ()), ((2, 3), (3, 2)), ((6,), (2, 3)), ((1, 3), (3,)), ((0,), (1,))],
)
def test_shapes_must_be_the_same(reference, got):
    found = compare(np.ones(reference, np.float32), np.ones(got, np.float32))
    assert (found.problem, found.max_abs) == ("shape", None)


@pytest.mark.parametrize(
    ("reference", "got", "problem"),
    [
        ("int64", "int32", None), ("bool", "int32", None), ("uint8", "int64", None), ("float64", "float32", None),
        ("float16", "float32", None), ("int64", "float32", "dtype"), ("float32", "int32", "dtype"),
        ("bool", "float32", "dtype"), ("float32", "complex64", "dtype"), ("float32", "U1", "dtype"),
    ],
)  # fmt: skip
def test_kinds_of_dtype(reference, got, problem):
    found = compare(np.ones(3, reference), np.ones(3).astype(got))
    assert (found.problem, found.exact) == (problem, problem is None)


def test_a_missing_output_says_so_and_still_describes_the_reference():
    found = compare(np.float32([1, np.nan]), None)
    assert (found.problem, found.got_shape, found.ref_nan, found.exact) == ("missing", None, 1, False)


def test_wrong_shape_still_counts_nan():
    assert compare(np.ones(2, np.float32), np.float32([np.nan])).nan == 1


def test_empty_arrays():
    found = compare(np.ones((0, 3), np.float32), np.ones((0, 3), np.float32))
    assert (found.reference_kind, found.problem, found.cosine, found.max_abs) == ("empty", None, None, None)


@quick
@given(
    st.sampled_from(["int8", "int32", "int64", "uint8", "uint64", "bool"]),
    st.sampled_from(["int32", "int64", "uint64"]),
    st.data(),
)
def test_integers_are_compared_exactly(first, second, data):
    size = data.draw(st.integers(1, 8))
    near = st.sampled_from([0, 1, 2, 127, 2**31 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63)])

    def draw(dtype: str) -> np.ndarray:
        info = np.iinfo("uint8") if dtype == "bool" else np.iinfo(dtype)
        fits = near.filter(lambda v: info.min <= v <= info.max)
        return np.array(data.draw(st.lists(fits, min_size=size, max_size=size)), dtype=dtype)

    reference, got = draw(first), draw(second)
    found = compare(reference, got)
    differences = [abs(int(a) - int(b)) for a, b in zip(reference, got, strict=True)]
    assert found.mismatch == sum(d > 0 for d in differences) / size
    assert found.max_abs == float(max(differences))
    assert found.exact == (found.mismatch == 0)
    assert (found.cosine, found.sqnr_db, found.rel_max) == (None, None, None)


def test_neighbours_beyond_2_to_the_53_differ():
    assert compare(np.int64([2**53]), np.int64([2**53 + 1])).mismatch == 1.0


@quick
@given(st.integers(1, 400), st.integers(1, 7), st.integers(0, 99))
def test_chunks_do_not_show(size, chunk, seed):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(size).astype(np.float32)
    got = reference + rng.standard_normal(size).astype(np.float32)
    whole = compare(reference, got)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_CHUNK", chunk)
        parts = compare(reference, got)
    for metric in ("cosine", "centered_cosine", "sqnr_db", "max_abs", "mean_abs", "p99_abs"):
        assert same(getattr(parts, metric), getattr(whole, metric)), metric
    error = np.abs(reference.astype(np.float64) - got)
    assert parts.p99_abs == pytest.approx(np.percentile(error, 99))


def test_memory_layout_does_not_show():
    rng = np.random.default_rng(0)
    reference, got = rng.standard_normal((2, 30, 40, 5)).astype(np.float32)
    plain = compare(reference.transpose(2, 0, 1).copy(), got.transpose(2, 0, 1).copy())
    assert compare(reference.transpose(2, 0, 1), np.asfortranarray(got.transpose(2, 0, 1))) == plain


def test_big_arrays_need_little_memory():
    reference = np.zeros(8_000_000, np.float32)
    reference[::3] = 1
    got = reference + np.float32(0.001)
    tracemalloc.start()
    compare(reference, got)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < reference.nbytes


def test_masked_logits_are_counted_in_all_of_a_long_output() -> None:
    ref = np.ones(200_000, np.float32)
    ref[[5, 70_000, 199_999]] = -np.inf
    found = compare(ref, np.where(np.isfinite(ref), ref + np.float32(0.25), ref))
    assert (found.problem, found.max_abs, found.exact) == (None, 0.25, False)
    assert compare(ref, ref).exact


def test_masked_logits_are_equal_where_both_are() -> None:
    """-Inf in the same places is a mask; in other places, NaN or +Inf it is none."""
    ref, inf = np.array([1, -np.inf, 3, -np.inf], np.float32), np.float32(np.inf)
    same = compare(ref, ref.copy())
    assert (same.problem, same.exact, same.reference_kind, same.sqnr_db) == (None, True, "normal", 200.0)
    off = compare(ref, np.array([1, -inf, 3.3, -inf], np.float32))
    assert (off.problem, off.exact) == (None, False)
    assert off.sqnr_db == pytest.approx(10 * np.log10(10 / 0.09), abs=1e-3)
    assert compare(ref, np.array([1, -9, 3, -inf], np.float32)).problem == "reference_nonfinite"
    assert compare(ref, np.array([-inf, -inf, 3, -inf], np.float32)).problem == "nonfinite"
    for other in (np.nan, np.inf):
        ref[0] = other
        assert compare(ref, ref.copy()).problem == "reference_nonfinite"
    masked = np.full(3, -np.inf)
    assert compare(masked, masked).problem == "reference_nonfinite", "nothing else is there to compare"


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8, 1e-25, 1e35])
@pytest.mark.parametrize("size", [1, 7, 30_000])
def test_the_fast_way_says_the_same(size: int, scale: float) -> None:
    rng = np.random.default_rng(size)
    reference = (rng.standard_normal(size) * scale).astype(np.float32)
    near = (reference * (1 + 1e-3 * rng.standard_normal(size))).astype(np.float32)
    others = (near, reference.copy(), -reference, np.zeros_like(reference), np.full_like(reference, np.nan), near[:-1])
    for got in (*others, near.astype(np.float64), near.astype(np.int32) if scale == 1 else near):
        for one, other in ((reference, got), (got, reference)):
            found = compare(one, other)
            for fast, slow in zip(strayed(one, other), (found.sqnr_db, found.max_abs, found.mismatch), strict=True):
                assert fast == slow or fast == pytest.approx(slow, rel=1e-9, abs=0)


@pytest.mark.parametrize("size", [1, 8191, 8193, 40_000, 70_001])
def test_every_bit_is_the_same_however_many_chunks_are_looked_at_in_one_go(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    rng = np.random.default_rng(size)
    ref = (rng.standard_normal(size) * 100 + 3).astype(np.float32)
    got = (ref + rng.standard_normal(size) * 0.1).astype(np.float32)
    found = compare(ref, got)
    monkeypatch.setattr(pieces, "_ROWS", 1)
    assert compare(ref, got) == found


def test_what_is_not_finite_is_counted_in_arrays_that_do_not_lie_in_one_piece() -> None:
    ref = np.ones((70, 300), np.float32).T
    got = ref.copy(order="K")
    got[5, 7], got[6, 8] = np.nan, np.inf
    found = compare(ref, got)
    assert (found.nan, found.inf, found.problem) == (1, 1, "nonfinite")
