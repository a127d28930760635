"""Tensors reduced to numbers, against the obvious way to do it."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.device_scripts import tensor_stats


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 300_000), (4,), (1, 1)])
def test_stats_are_what_numpy_says(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_stats, "PIECE", 1000)
    array = np.random.default_rng(1).normal(2, 3, shape).astype(np.float32)
    array.reshape(-1)[0] = 0
    found, wide = tensor_stats.stats(array), array.astype(np.float64)
    assert (found["n"], found["nan"], found["inf"]) == (array.size, 0, 0)
    assert found["zeros"] == int((array == 0).sum())
    for name, want in {
        "min": wide.min(), "max": wide.max(), "mean": wide.mean(), "mean_abs": np.abs(wide).mean(),
        "rms": np.sqrt((wide**2).mean()),
    }.items():  # fmt: skip
        assert found[name] == pytest.approx(want, rel=1e-9)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    array = np.array([1, np.nan, -np.inf, 3, np.inf], np.float32)
    found = tensor_stats.stats(array)
    assert (found["nan"], found["inf"], found["min"], found["max"], found["mean"]) == (1, 2, 1.0, 3.0, 2.0)
    nothing = tensor_stats.stats(np.full(3, np.nan, np.float32))
    assert (nothing["nan"], nothing["rms"], nothing["at_max"]) == (3, None, 0.0)
    assert tensor_stats.stats(np.zeros((0, 3), np.float32))["n"] == 0


def test_shares_at_the_limits() -> None:
    found = tensor_stats.stats(np.array([-1, -1, 0, 0.5, 1, 1, 1, 0.2], np.float32))
    assert (found["at_min"], found["at_max"]) == (2 / 8, 3 / 8)


def test_how_far_two_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_stats, "PIECE", 7)
    rng = np.random.default_rng(2)
    one = rng.normal(size=(2, 6, 5)).astype(np.float32)
    two = one + 0.01 * rng.normal(size=one.shape).astype(np.float32)
    two[:, 4] += 2
    found = tensor_stats.apart(one, two)
    assert found is not None
    wide = two.astype(np.float64) - one
    assert found["error"] == pytest.approx(np.sqrt((wide**2).mean()), rel=1e-6)
    assert found["signal"] == pytest.approx(np.sqrt((one.astype(np.float64) ** 2).mean()), rel=1e-6)
    assert found["max_abs"] == pytest.approx(np.abs(wide).max(), rel=1e-6)
    index, share, length = found["axes"][1]
    assert (index, length) == (4, 6)
    assert share == pytest.approx((wide[:, 4] ** 2).sum() / (wide**2).sum(), rel=1e-4)


def test_lost_elements_are_counted_and_other_shapes_are_not_compared() -> None:
    one, two = np.ones(4, np.float32), np.array([1, np.nan, 1, np.inf], np.float32)
    found = tensor_stats.apart(one, two)
    assert found is not None
    assert (found["n"], found["lost"], found["error"]) == (2, 2, 0.0)
    assert tensor_stats.apart(one, two[:3]) is None
