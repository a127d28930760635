"""Each calibrator against a slow, obvious version of itself that sees all values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgequant.quantize.calibrate.histogram import Histogram
from edgequant.quantize.calibrate.methods import (
    CALIBRATORS,
    Calib,
    Quantizer,
    asymmetric,
    best_kl,
    calibrate,
    symmetric,
)
from edgequant.quantize.calibrate.moments import Moments

seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from(["normal", "laplace", "relu", "swish", "outlier", "uniform", "shifted"])


def values_of(shape: str, seed: int, size: int = 20_000) -> np.ndarray:
    """float32 [size], as inner tensors of networks are spread."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(size) * 10 ** rng.uniform(-3, 3)
    if shape == "laplace":
        x = rng.laplace(size=size)
    elif shape == "relu":
        x = np.maximum(x, 0)
    elif shape == "swish":
        x = x / (1 + np.exp(-np.clip(x, -80, 80)))
    elif shape == "outlier":
        x[: size // 2000] *= 50
    elif shape == "uniform":
        x = rng.uniform(-1, 3, size)
    elif shape == "shifted":
        x = x + 3 * np.abs(x).mean()
    return x.astype(np.float32)


def histogram_of(*samples: np.ndarray) -> Histogram:
    histogram = Histogram()
    for each in samples:
        histogram.add(each)
    return histogram


def slow_int8(x: float, scale: float, zero: int, low: int, high: int) -> float:
    """One value through int8, by the definition."""
    q = math.floor(abs(x) / scale + 0.5) * (1 if x >= 0 else -1) + zero
    return (min(max(q, low), high) - zero) * scale


def error(values: np.ndarray, q: Quantizer) -> float:
    return float(np.mean((values.astype(np.float64) - q.restored(values)) ** 2))


@given(
    hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-100, 100)),
    st.floats(1e-3, 50),
    st.floats(-50, 0),
    st.floats(0, 50),
)
def test_int8_by_definition(values: np.ndarray, threshold: float, low: float, high: float) -> None:
    for q in (symmetric(threshold), asymmetric(low, high)):
        slow = [slow_int8(float(x), q.scale, q.zero_point, q.clamp_min, q.clamp_max) for x in values]
        assert q.restored(values).tolist() == slow
        assert q.restored(np.zeros(1)) == 0
        assert q.clamp_min <= q.zero_point <= q.clamp_max


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_value_in_the_range_is_off_by_more_than_a_step(low: float, high: float) -> None:
    q = asymmetric(-low, high)
    points = np.linspace(-low, high, 301)
    assert np.abs(q.restored(points) - points).max() <= q.scale * 1.01
    s = symmetric(max(low, high))
    assert np.abs(s.restored(points) - points).max() <= s.scale * 0.501


@given(shapes, seeds)
@settings(deadline=None, max_examples=25)
def test_minmax_keeps_everything(shape: str, seed: int) -> None:
    values = values_of(shape, seed)
    histogram = histogram_of(values[:7000], values[7000:])
    assert calibrate(histogram, "minmax") == symmetric(float(np.abs(values).max()))
    assert calibrate(histogram, "minmax", sym=False) == asymmetric(float(values.min()), float(values.max()))


@given(st.lists(st.tuples(shapes, seeds), min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_ema_averages_the_ranges_of_the_samples(drawn: list[tuple[str, int]]) -> None:
    samples = [values_of(shape, seed, 500) for shape, seed in drawn]
    low, high = float(samples[0].min()), float(samples[0].max())
    for each in samples[1:]:
        low, high = 0.9 * low + 0.1 * float(each.min()), 0.9 * high + 0.1 * float(each.max())
    found = calibrate(histogram_of(*samples), "ema")
    assert found.scale == pytest.approx(max(-low, high) / 127, rel=1e-6)
    found = calibrate(histogram_of(*samples), "ema", sym=False)
    assert found.scale == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-6)


@given(shapes, seeds, st.sampled_from([90.0, 99.0, 99.9, 99.99, 100.0]))
@settings(deadline=None, max_examples=50)
def test_percentile_keeps_that_share(shape: str, seed: int, percent: float) -> None:
    values = values_of(shape, seed).astype(np.float64)
    histogram = histogram_of(values.astype(np.float32))
    threshold = calibrate(histogram, "percentile", percent=percent).scale * 127
    # By its definition: sort them all, and count.  One bin and one value of slack.
    order = np.sort(np.abs(values))
    rank = math.ceil(percent / 100 * len(order))
    assert order[max(rank - 2, 0)] - histogram.width <= threshold <= order[min(rank, len(order) - 1)] + histogram.width
    q = calibrate(histogram, "percentile", percent=percent, sym=False)
    tail = (1 - percent / 100) / 2
    (low_out, low_in), (high_in, high_out) = (
        [float(np.quantile(values, share, method=way)) for way in ("lower", "higher")] for share in (tail, 1 - tail)
    )
    slack = 2 * histogram.width + 1e-6 * q.scale
    assert max(high_in, 0) - min(low_in, 0) - slack <= q.scale * 255 <= max(high_out, 0) - min(low_out, 0) + slack


def slow_best_kl(counts: list[float]) -> int:
    """Migacz 2017, line by line."""
    size = len(counts)
    if size <= 128:
        return size
    best, least = size, math.inf
    for kept in range(128, size + 1):
        p = list(counts[:kept])
        p[-1] += sum(counts[kept:])
        mass, used = [0.0] * 128, [0] * 128
        for j in range(kept):
            level = j * 128 // kept
            mass[level] += counts[j]
            used[level] += counts[j] > 0
        q = [mass[j * 128 // kept] / used[j * 128 // kept] if counts[j] > 0 else 0.0 for j in range(kept)]
        if p[-1] > 0 and q[-1] == 0:
            q[-1] = 1e-4
        total_p, total_q = sum(p), sum(q)
        divergence = 0.0
        for a, b in zip(p, q, strict=True):
            if a > 0:
                divergence += a / total_p * math.log(a / total_p / (b / total_q))
        if divergence < least - 1e-12:
            best, least = kept, divergence
    return best


@given(
    hnp.arrays(np.float64, st.integers(1, 260), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 7.0, 500.0])),
    st.floats(0, 0.1),
)
@settings(deadline=None, max_examples=40)
def test_kl_finds_the_same_bin_as_the_slow_version(counts: np.ndarray, decay: float) -> None:
    counts = np.ceil(counts * np.exp(-decay * np.arange(len(counts))))
    counts[-1] = 1.0
    assert divergence_of(counts, best_kl(counts)) == pytest.approx(
        divergence_of(counts, slow_best_kl(counts.tolist())), abs=1e-9
    )


def divergence_of(counts: np.ndarray, kept: int) -> float:
    """KL of one candidate, so that a tie between two does not fail a test."""
    if len(counts) <= 128:
        return 0.0
    level = np.arange(kept) * 128 // kept
    inside = counts[:kept]
    p = inside.copy()
    p[-1] += counts[kept:].sum()
    q = np.zeros(kept)
    for number in range(128):
        here = (level == number) & (inside > 0)
        if here.any():
            q[here] = inside[here].sum() / here.sum()
    if p[-1] > 0 and q[-1] == 0:
        q[-1] = 1e-4
    used = p > 0
    p, q = p[used] / p.sum(), q[used] / q.sum()
    return float(np.sum(p * np.log(p / q)))


def test_kl_clips_outliers_and_keeps_what_is_spread_evenly() -> None:
    rng = np.random.default_rng(1)
    heavy = np.concatenate([rng.standard_normal(200_000), [300.0]]).astype(np.float32)
    assert calibrate(histogram_of(heavy), "kl").scale * 127 < 40
    even = rng.uniform(-2, 2, 200_000).astype(np.float32)
    assert calibrate(histogram_of(even), "kl").scale * 127 > 1.9
    few = np.append(rng.standard_normal(500), 300.0).astype(np.float32)
    assert calibrate(histogram_of(few), "kl") == calibrate(histogram_of(few), "minmax")


@given(shapes, seeds, st.booleans())
@settings(deadline=None, max_examples=15)
def test_mse_is_as_good_as_trying_every_range_on_all_values(shape: str, seed: int, sym: bool) -> None:
    values = values_of(shape, seed, 4000)
    found = calibrate(histogram_of(values), "mse", sym=sym)
    low, high = float(values.min()), float(values.max())
    if sym:
        tried = [symmetric(max(-low, high) * i / 200) for i in range(1, 201)]
    else:
        steps = [i / 24 for i in range(1, 25)]
        tried = [asymmetric(min(low, 0) * a, max(high, 0) * b) for a in steps for b in steps]
    assert error(values, found) <= min(error(values, each) for each in tried) * 1.05


@given(shapes, seeds, st.floats(-1, 0), st.floats(0.01, 1))
@settings(deadline=None, max_examples=50)
def test_moments_give_the_error_of_all_values(shape: str, seed: int, low: float, high: float) -> None:
    values = values_of(shape, seed)
    histogram = histogram_of(values)
    for q in (symmetric(histogram.high * high), asymmetric(histogram.low * -low, histogram.high * high)):
        levels = Moments(histogram).levels(*q)
        assert levels.mass.sum() == pytest.approx(len(values))
        assert levels.moment.sum() == pytest.approx(values.sum(dtype=np.float64), abs=len(values) * histogram.width)
        found = Moments(histogram).error(*q) / len(values)
        assert found == pytest.approx(error(values, q), rel=0.05, abs=histogram.width**2)


def slow_admm(values: np.ndarray) -> float:
    """MNN's TensorStatistic::computeScaleADMM, value by value."""
    scale = float(np.abs(values).max()) / (127 * 2.5)
    for _ in range(300):
        q = np.clip(np.copysign(np.floor(np.abs(values / scale) + 0.5), values), -127, 127)
        scale = float(np.sum(q * values) / np.sum(q * q))
    return scale


@given(shapes, seeds)
@settings(deadline=None, max_examples=25)
def test_admm_ends_where_mnns_own_ends(shape: str, seed: int) -> None:
    values = values_of(shape, seed, 4000).astype(np.float64)
    histogram = histogram_of(values.astype(np.float32))
    found, slow = calibrate(histogram, "admm"), Quantizer(slow_admm(values), 0, -127, 127)
    # Both creep towards a local optimum, in steps that depend on the last value that moves: compare what they reach.
    assert error(values, found) <= error(values, slow) * 1.1


@given(shapes, seeds)
@settings(deadline=None, max_examples=25)
def test_asymmetric_admm_is_no_worse_than_where_it_starts(shape: str, seed: int) -> None:
    values = values_of(shape, seed, 4000)
    histogram = histogram_of(values)
    found = calibrate(histogram, "admm", sym=False)
    start = asymmetric(histogram.low / 1.25, histogram.high / 1.25)
    assert error(values, found) <= error(values, start) * 1.02


@pytest.mark.parametrize("method", CALIBRATORS)
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize(
    "values",
    [[0.0], [0.0, 0.0], [3.0], [-3.0], [1e-38], [3e38, -3e38], [1e-45, 1.0], [5.0] * 5000, [-1.0, 1e20]],
    ids=str,
)
def test_every_method_makes_something_usable_of_odd_tensors(method: Calib, sym: bool, values: list[float]) -> None:
    q = calibrate(histogram_of(np.array(values, np.float32)), method, sym=sym)
    assert 0 < q.scale < math.inf
    assert np.float32(q.scale) == q.scale
    assert q.clamp_min <= q.zero_point <= q.clamp_max
    assert (q.clamp_min, q.clamp_max) in ((-127, 127), (-128, 127))
    assert np.isfinite(q.restored(np.array(values))).all()


def test_asymmetric_is_better_for_what_lies_on_one_side() -> None:
    values = values_of("relu", 0)
    histogram = histogram_of(values)
    for method in CALIBRATORS:
        name: Calib = method  # type: ignore[assignment]
        assert error(values, calibrate(histogram, name, sym=False)) < error(values, calibrate(histogram, name))
