"""The choice of a form for each layer: least bytes within a noise budget.

Noise powers of layers quantized one by one add up when their errors are small and unrelated, which is the model behind
bit allocation (Y. Shoham and A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans.
ASSP 36(9), 1988).  Least bytes + multiplier * noise, layer by layer, is then optimal for the noise it comes to; here
there is a budget for each case and output, so the multiplier is a vector, found by multiplicative weights (S. Arora,
E. Hazan and S. Kale, 2012), and what is left of the budget is filled greedily.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDS = 16
_HALVINGS = 44
_STEP = 2.0


def assign(sizes: Sequence[np.ndarray], noises: Sequence[np.ndarray], budget: np.ndarray) -> list[int] | None:
    """Choose one form per layer.

    Args:
        sizes: per layer, bytes of each of its forms [forms].
        noises: per layer, noise power of each of its forms for each constraint [forms, constraints]; inf where it
            cannot be had.  May be negative: a change that lessens the noise of where one stands.
        budget: noise allowed in all for each constraint [constraints].

    Returns:
        the chosen form's place in each layer; None where no choice that was found keeps the budget.
    """
    width = max(len(each) for each in sizes)
    size = np.full((len(sizes), width), np.inf)
    noise = np.full((len(sizes), width, len(budget)), np.inf)
    for place, (one, many) in enumerate(zip(sizes, noises, strict=True)):
        size[place, : len(one)] = one
        noise[place, : len(one)] = many
    # In units of what is allowed.  A budget that is used up already (below 0) asks for changes that lessen the noise.
    scale = np.maximum(np.abs(budget), 1e-300)
    share = np.where(np.isfinite(noise), np.clip(noise / scale, -1e30, 1e30), np.inf)
    bad = ~np.isfinite(share).all(axis=2)
    size[bad] = np.inf
    share[bad] = 0.0
    allowed = np.sign(budget)
    if not np.isfinite(size).any(axis=1).all():
        return None
    weights = np.full(len(budget), 1.0 / len(budget))
    best: np.ndarray | None = None
    for _ in range(_ROUNDS):
        found, used = _cheapest(size, share, weights, allowed)
        if found is not None:
            filled = _fill(size, share, found, allowed)
            if best is None or _total(size, filled) < _total(size, best):
                best = filled
        weights = weights * np.exp(_STEP * np.clip(used - used.max(), -8, 0))
        weights = np.maximum(weights / weights.sum(), 1e-6)
    return None if best is None else [int(place) for place in best]


def _total(size: np.ndarray, chosen: np.ndarray) -> float:
    return float(size[np.arange(len(size)), chosen].sum())


def _used(share: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.asarray(share[np.arange(len(share)), chosen].sum(axis=0))


def _cheapest(
    size: np.ndarray, share: np.ndarray, weights: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """(the smallest choice on the hull that keeps the budget, what it uses of each); (None, ...) where none does."""
    cost = np.where(np.isfinite(size), share @ weights, np.inf)
    low, high = -40.0, 200.0  # exponents of 2 of the multiplier
    found: np.ndarray | None = None
    used = np.zeros(len(weights))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(invalid="ignore"):
            chosen = np.argmin(size + 2.0**middle * cost, axis=1)
        now = _used(share, chosen)
        if (now <= allowed).all():
            found, used, high = chosen, now, middle
        else:
            low = middle
            if found is None:
                used = now
    return found, used


def _fill(size: np.ndarray, share: np.ndarray, chosen: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Take smaller forms, the one that saves most first, as long as the budget is kept."""
    chosen = chosen.copy()
    rows = np.arange(len(size))
    used = _used(share, chosen)
    size = np.where(np.isfinite(size), size, 1e300)
    while True:
        saved = size[rows, chosen][:, None] - size
        after = used + share - share[rows, chosen][:, None, :]
        saved[~(after <= allowed).all(axis=2)] = -np.inf
        layer, form = np.unravel_index(np.argmax(saved), saved.shape)
        if not saved[layer, form] > 0:
            return chosen
        used = after[layer, form]
        chosen[layer] = form
