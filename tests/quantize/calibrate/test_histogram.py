"""The streaming histogram against NumPy over all values at once."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgequant.quantize.calibrate.histogram import BINS, Histogram, NotFiniteError, pack, unpack

Samples = list[np.ndarray]
floats = (
    st.floats(-(2.0**100), 2.0**100, width=32)
    | st.floats(-4, 4, width=32)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0])
)
sample = hnp.arrays(np.float32, st.integers(1, 40), elements=floats)


def collected(samples: Samples, decay: float = 0.9) -> Histogram:
    histogram = Histogram(decay)
    for each in samples:
        histogram.add(each)
    return histogram


@given(st.lists(sample, min_size=1, max_size=6))
@settings(deadline=None, max_examples=200)
def test_it_is_what_numpy_makes_of_all_values_at_once(samples: Samples) -> None:
    found = collected(samples)
    values = np.concatenate(samples).astype(np.float64)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.count == values.size
    assert found.samples == len(samples)
    assert found.zeros == (values == 0).sum()
    if found.exponent is None:
        assert not values.any()
        return
    limit = 2.0**found.exponent
    assert limit / 2 <= np.abs(values).max() < limit
    for number in np.flatnonzero(found.counts):
        low = (int(number) - BINS) * found.width
        inside = (values != 0) & (values >= low) & (values < low + found.width)
        assert found.counts[number] == inside.sum()
    assert found.counts.sum() + found.zeros == found.count


@given(st.lists(sample, min_size=2, max_size=6), st.randoms())
@settings(deadline=None)
def test_the_order_of_the_samples_and_how_they_are_cut_do_not_matter(samples: Samples, random: object) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other, whole = collected(samples), collected(shuffled), collected([np.concatenate(samples)])
    for found in (other, whole):
        assert found.exponent == one.exponent
        assert (found.counts == one.counts).all()
        assert (found.low, found.high, found.count, found.zeros) == (one.low, one.high, one.count, one.zeros)


@given(st.lists(sample, min_size=1, max_size=8), st.floats(0, 1))
@settings(deadline=None)
def test_moving_averages(samples: Samples, decay: float) -> None:
    found = collected(samples, decay)
    low, high = float(samples[0].min()), float(samples[0].max())
    for each in samples[1:]:
        low = decay * low + (1 - decay) * float(each.min())
        high = decay * high + (1 - decay) * float(each.max())
    largest = max(float(np.abs(each).max()) for each in samples)
    assert [found.ema_low, found.ema_high] == pytest.approx([low, high], rel=1e-9, abs=1e-12 * largest)


@pytest.mark.parametrize(("bad", "nans", "infs"), [(np.nan, 1, 0), (np.inf, 0, 1), (-np.inf, 0, 1)])
def test_what_is_not_finite_is_refused_and_nothing_of_the_sample_kept(bad: float, nans: int, infs: int) -> None:
    found = collected([np.ones(3, np.float32)])
    with pytest.raises(NotFiniteError) as caught:
        found.add(np.array([5, bad, 1e9], np.float32))
    assert (caught.value.nans, caught.value.infs) == (nans, infs)
    assert (found.count, found.samples, found.high, found.exponent) == (3, 1, 1.0, 1)


def test_an_empty_tensor_is_no_sample() -> None:
    assert collected([np.zeros((2, 0), np.float32)]).samples == 0


def test_a_tensor_longer_than_one_part_and_the_ends_of_float32() -> None:
    values = np.full(3_000_001, 0.5, np.float32)
    values[1_500_000] = np.finfo(np.float32).max
    values[-1] = np.finfo(np.float32).smallest_subnormal
    found = collected([values])
    assert found.count == found.counts.sum() == values.size
    assert found.counts[-1] == 1
    tiny = collected([values[-1:]])
    assert tiny.counts.sum() == 1
    assert tiny.counts[BINS + BINS // 2] == 1


@given(st.lists(sample, min_size=0, max_size=4))
@settings(deadline=None, max_examples=30)
def test_histograms_come_back_from_a_file(samples: Samples) -> None:
    made = [collected([each]) for each in samples]
    file = io.BytesIO()
    np.savez(file, **pack(made))
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        back = unpack(dict(arrays), len(made))
    for one, other in zip(made, back, strict=True):
        assert (one.counts == other.counts).all()
        for name in ("exponent", "count", "zeros", "samples", "low", "high", "ema_low", "ema_high", "decay"):
            assert getattr(one, name) == getattr(other, name)


def test_arrays_that_are_no_histograms_are_refused() -> None:
    good = pack([collected([np.ones(4, np.float32)])])
    for name, change in (
        ("counts", good["counts"] * -1),
        ("counts", good["counts"][:, 1:]),
        ("counts", good["counts"].astype(np.float64)),
        ("whole", good["whole"] + [0, 1, 0, 0]),
        ("real", good["real"] * np.nan),
    ):
        with pytest.raises(ValueError, match=r"arrays|itself"):
            unpack({**good, name: change}, 1)
    with pytest.raises(ValueError, match="arrays"):
        unpack(good, 2)
    with pytest.raises(ValueError, match="no array"):
        unpack({"counts": good["counts"]}, 1)
