"""Errors that are a share of something else, and errors in what is left over beyond whole groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.compare.residual import Pair, Sign, look, samples_of
from edgequant.judge.residual import systematic

LENGTHS = (21, 32, 9, 32, 47)
RECORDED = np.load(Path(__file__).parents[1] / "data" / "rounding.npz")


def pairs(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[Pair]:
    """x [1, 8, steps] -> y [1, 16, steps], and noise of 40 dB between two devices."""
    rng = np.random.default_rng(seed)
    found = []
    for number, steps in enumerate(lengths):
        y = rng.standard_normal((1, 16, steps)).astype(np.float32)
        x = rng.standard_normal((1, 8, steps)).astype(np.float32)
        noise = 0.01 * rng.standard_normal(y.shape).astype(np.float32)
        found.append(Pair(f"c{number}", y, y + noise, inputs={"x": x, "mask": np.ones((1, steps), np.float32)}))
    return found


def found(some: list[Pair]) -> dict[str, Sign]:
    elements = sum(pair.expected.size for pair in some)
    return {sign.kind: sign for sign in look(samples_of(some)) if systematic(sign, elements, len(some))}


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_a_share_of_nothing(seed: int) -> None:
    assert found(pairs(seed=seed)) == {}


def test_a_channel_that_hears_another() -> None:
    some = pairs()
    for pair in some:
        pair.got[:, 12] += 0.04 * pair.expected[:, 5]
    sign = found(some)["crosstalk"]
    assert (sign.where["axis"], sign.where["index"], sign.where["of"]) == (1, 12, 5)
    assert sign.where["value"] == pytest.approx(0.04, rel=0.1)
    assert sign.size == pytest.approx(0.04, rel=0.2)
    assert "crosstalk" not in found(some[:1])  # in too few parts


def test_a_channel_that_hears_an_input() -> None:
    some = pairs()
    for pair in some:
        pair.got[:, 3] += 0.05 * pair.inputs["x"][:, 7]
    sign = found(some)["input"]
    assert (sign.where["input"], sign.where["index"], sign.where["of"]) == ("x", 3, 7)
    assert sign.size == pytest.approx(0.05, rel=0.2)


def test_one_loud_step_is_heard_nowhere() -> None:
    """An error in a single place fits whatever is loud there as well."""
    some = pairs()
    for pair in some[:2]:
        pair.got[:, 12, 4] += 1.0
        pair.expected[:, 5, 4] += 5.0
    assert "crosstalk" not in found(some)


@pytest.mark.parametrize("group", [4, 8])
def test_what_is_left_over_beyond_whole_groups(group: int) -> None:
    some = pairs()
    for pair in some:
        rest = pair.expected.shape[2] % group
        pair.got[..., pair.expected.shape[2] - rest :] *= np.float32(1.2)
    sign = found(some)["tail"]
    assert (sign.where["axis"], sign.where["cases"]) == (2, 3)
    assert sign.where["group"] in (group, 2 * group, 4 * group)  # of these the rest is one or the other, too
    assert sign.size == pytest.approx(0.2, rel=0.2)


def test_an_end_that_is_always_loud_is_no_tail() -> None:
    some = pairs()
    for pair in some:
        pair.got[..., -1] *= np.float32(1.2)
    assert "tail" not in found(some)


def test_one_case_with_something_left_over_shows_less_than_three() -> None:
    some = pairs((32, 64, 21))
    some[2].got[..., -1] *= np.float32(1.12)
    assert "tail" not in found(some)
    some[2].got[..., -1] *= np.float32(1.5)
    assert "tail" in found(some)


def test_levels_of_each_case_count_for_themselves() -> None:
    """Sixty-four levels of its own range in each of five cases are more than 256 together."""
    some = pairs((64,) * 5)
    for number, pair in enumerate(some):
        pair.expected[...] *= 1 + 0.01 * number
        step = np.ptp(pair.expected) / 63
        pair.got[...] = np.round(pair.expected / step) * step
    assert found(some)["levels"].where["levels"] <= 65


def test_an_axis_of_several_lengths_in_the_input_is_not_looked_at() -> None:
    """As of a transformer's block, whose input and output are [1, steps, width]: once the judging ended there."""
    some = [Pair(p.case, p.expected, p.got, inputs={"x": p.expected + np.float32(1)}) for p in pairs()]
    assert found(some) == {}
