"""The choice against all choices there are."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgequant.quantize.search.assign import assign


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Up to four layers of up to four forms, two constraints; smaller forms are noisier, as a rule."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers, forms = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    sizes = [np.sort(random.integers(10, 1000, forms))[::-1].astype(float) for _ in range(layers)]
    noises = [np.sort(random.exponential(1.0, (forms, 2)), axis=0) for _ in range(layers)]
    return sizes, noises, random.exponential(1.0, 2) * layers


def slow(sizes: list[np.ndarray], noises: list[np.ndarray], budget: np.ndarray) -> float | None:
    found = []
    for chosen in itertools.product(*(range(len(each)) for each in sizes)):
        if (sum(noise[form] for noise, form in zip(noises, chosen, strict=True)) <= budget).all():
            found.append(sum(size[form] for size, form in zip(sizes, chosen, strict=True)))
    return min(found, default=None)


@settings(deadline=None, max_examples=200)
@given(problems())
def test_within_the_budget_and_near_the_least(problem: tuple[list[np.ndarray], list[np.ndarray], np.ndarray]) -> None:
    sizes, noises, budget = problem
    chosen = assign(sizes, noises, budget)
    least = slow(sizes, noises, budget)
    if chosen is None:
        # The choices on the hull may all miss a budget that one beside it keeps, but the least noisy one is on it.
        quiet = sum(noise.min(axis=0) for noise in noises)
        assert not (quiet <= budget * 0.999).all()
        return
    assert least is not None
    noise = sum(each[form] for each, form in zip(noises, chosen, strict=True))
    assert (noise <= budget * (1 + 1e-9)).all()
    size = sum(each[form] for each, form in zip(sizes, chosen, strict=True))
    # What the hull misses is at most what one layer spans.
    assert size <= least + max(each.max() - each.min() for each in sizes)


def test_forms_that_cannot_be_had_are_not_chosen() -> None:
    sizes = [np.asarray([100.0, 1.0])]
    assert assign(sizes, [np.asarray([[0.1], [np.inf]])], np.asarray([1.0])) == [0]
    assert assign(sizes, [np.asarray([[np.inf], [np.inf]])], np.asarray([1.0])) is None


def test_a_used_up_budget_asks_for_less_noise() -> None:
    sizes = [np.asarray([50.0, 100.0]), np.asarray([50.0, 100.0])]
    noises = [np.asarray([[0.0], [-2.0]]), np.asarray([[0.0], [-0.5]])]
    assert assign(sizes, noises, np.asarray([-1.0])) == [1, 0]
    assert assign(sizes, noises, np.asarray([-3.0])) is None
