"""Rounding as real devices have it leaves no sign; planted faults do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.compare.residual import Pair, Sign, look, samples_of, swapped
from edgequant.judge.residual import RULES, systematic

RECORDED = np.load(Path(__file__).parents[1] / "data" / "rounding.npz")
"""An emulated Cortex-A53 against x86 with the same file, four cases each.
Keys: MODEL VARIANT OUTPUT/CASE/host|device|float."""
NAMES = sorted({key.rsplit("/", 2)[0] for key in RECORDED})
LARGE = [name for name in NAMES if "emb" in name or " m" in name]


def recorded(name: str) -> list[Pair]:
    cases = sorted({key.rsplit("/", 2)[1] for key in RECORDED if key.startswith(f"{name}/")})
    return [Pair(case, *(RECORDED[f"{name}/{case}/{side}"] for side in ("host", "device", "float"))) for case in cases]


def found(pairs: list[Pair]) -> dict[str, Sign]:
    own = [pair for pair in pairs if not pair.twin]
    elements = sum(pair.expected.size for pair in own)
    return {sign.kind: sign for sign in look(samples_of(pairs)) if systematic(sign, elements, len(own))}


Fault = Callable[[np.ndarray], np.ndarray]


def planted(name: str, fault: Fault) -> list[Pair]:
    return [Pair(p.case, p.expected, fault(p.got.copy()), p.base) for p in recorded(name)]


@pytest.mark.parametrize("name", NAMES)
def test_rounding_is_nothing(name: str) -> None:
    assert found(recorded(name)) == {}


@pytest.mark.parametrize("name", NAMES)
def test_nor_is_it_with_two_cases_or_one(name: str) -> None:
    pairs = recorded(name)
    assert [found(some) for some in (pairs[:2], pairs[1:3], pairs[2:], *([pair] for pair in pairs))] == [{}] * 7


def _one(index: tuple[Any, ...], change: Fault) -> Fault:
    def fault(got: np.ndarray) -> np.ndarray:
        got[index] = change(got[index])
        return got

    return fault


def _late(got: np.ndarray) -> np.ndarray:
    axis = 1 if got.ndim == 3 else 2
    return np.concatenate([np.zeros_like(got.take([0], axis)), got.take(range(got.shape[axis] - 1), axis)], axis)


def _six_bits(got: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(got * 31) / 31, np.float32)


def _swap(got: np.ndarray) -> np.ndarray:
    got[..., [3, 20]] = got[..., [20, 3]]
    return got


LOUD = 3
"""A channel that is not silent, in both."""
FAULTS: list[tuple[Fault, set[str]]] = [
    (lambda got: got * np.float32(1.05), {"gain"}),
    (lambda got: got * np.float32(0.97), {"gain"}),
    (lambda got: got + np.float32(0.02), {"offset"}),
    (lambda got: got - np.linspace(-0.04, 0.04, got.shape[-1], dtype=np.float32), {"pattern", "offset"}),
    (_one((..., LOUD), lambda values: values * 0), {"stuck"}),
    (_one((..., LOUD), lambda values: values * np.float32(1.1)), {"slice", "tilt"}),
    (_late, {"lag"}),
    (lambda got: np.flip(got, -1), {"permuted"}),
    (_six_bits, {"levels"}),
    (lambda got: np.minimum(got, np.float32(np.quantile(got, 0.9))), {"saturated"}),
]


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize(("fault", "kinds"), FAULTS)
def test_a_fault_that_keeps_every_limit_is_found(name: str, fault: Fault, kinds: set[str]) -> None:
    assert kinds & found(planted(name, fault)).keys()


def test_a_first_step_that_is_wrong_in_every_case() -> None:
    sign = found(planted(LARGE[0], _one((slice(None), 0), lambda values: values * np.float32(0.9))))["slice"]
    assert (sign.where["axis"], sign.where["index"]) == (1, 0)
    assert sign.size == pytest.approx(0.1, rel=0.1)


def test_a_last_step_is_found_whatever_the_length() -> None:
    sign = found(planted(LARGE[0], _one((slice(None), -1), lambda values: values * np.float32(0.9))))["slice"]
    assert (sign.where["axis"], sign.where["index"]) == (1, -1)


def noisy(shape: tuple[int, ...], cases: int = 3, db: float = 40, seed: int = 0) -> list[Pair]:
    """Standard normal numbers with white noise."""
    chance = np.random.default_rng(seed)
    pairs = []
    for case in range(cases):
        expected = chance.standard_normal(shape).astype(np.float32)
        noise = 10 ** (-db / 20) * chance.standard_normal(shape)
        pairs.append(Pair(str(case), expected, (expected + noise).astype(np.float32)))
    return pairs


def changed(pairs: list[Pair], fault: Callable[[int, np.ndarray], np.ndarray]) -> list[Pair]:
    return [Pair(p.case, p.expected, fault(i, p.got.copy()), p.base, p.twin) for i, p in enumerate(pairs)]


def test_a_gain_has_its_size_and_an_interval_around_it() -> None:
    sign = found(changed(noisy((4, 100)), lambda _, got: got * np.float32(1.05)))["gain"]
    assert sign.size == pytest.approx(0.05, abs=0.002)
    assert sign.where["low"] < 0.05 < sign.where["high"]


def test_a_layer_that_is_too_loud_in_front_of_a_sigmoid_is_a_function_of_what_is_expected() -> None:
    pairs = []
    for pair in noisy((4, 1000)):
        logits = 2 * pair.expected.astype(np.float64)
        soft, loud = ((1 / (1 + np.exp(-x))).astype(np.float32) for x in (logits, 1.3 * logits))
        pairs.append(Pair(pair.case, soft, loud))
    assert found(pairs).keys() & {"curve", "gain"}


def test_another_rounding_of_the_same_model_undoes_what_was_lost() -> None:
    chance = np.random.default_rng(1)
    pairs = [
        Pair(p.case, p.got, p.expected + 0.04 * chance.standard_normal(p.got.shape).astype(np.float32), p.expected)
        for p in noisy((4, 500))
    ]
    assert found(pairs)["undone"].strength == pytest.approx(1, abs=0.2)


def test_another_case_a_stale_one_and_another_output() -> None:
    pairs = noisy((4, 100))
    first = pairs[0].got
    assert found(changed(pairs, lambda i, got: pairs[(i + 1) % 3].got))["other case"].where["stale"] is False
    stale = found(changed(pairs, lambda i, got: first if i == 1 else got))["other case"]
    assert (stale.where["case"], stale.where["of"], stale.where["stale"]) == ("1", "0", True)
    other = noisy((4, 100), seed=1)
    exchanged = changed(pairs, lambda i, _: other[i].got)
    expected = {"a": [p.expected for p in pairs], "b": [p.expected for p in other]}
    ((name, sign),) = swapped({"a": exchanged}, expected)
    assert (name, sign.where["of"]) == ("a", "b")
    assert systematic(sign, 1200, 3)


def test_two_channels_that_changed_places() -> None:
    sign = found(changed(noisy((1, 32, 100)), lambda _, got: got[:, [1, 0, *range(2, 32)]]))["exchanged"]
    assert {sign.where["index"], sign.where["has"]} == {0, 1}


def test_an_element_that_is_off_in_every_case() -> None:
    def fault(_: int, got: np.ndarray) -> np.ndarray:
        got[2, 7] += 0.5
        return got

    assert found(changed(noisy((4, 100)), fault))["element"].where["index"] == [2, 7]


def test_a_case_that_is_off() -> None:
    chance = np.random.default_rng(1)
    pairs = changed(noisy((4, 100)), lambda i, got: got + (i == 1) * 0.5 * chance.standard_normal(got.shape))
    assert found(pairs)["case"].where["case"] == "1"


def test_one_burst_in_one_case_is_none() -> None:
    """One activation that rounded the other way moves a whole time step."""
    assert found(changed(noisy((1, 30, 64)), lambda i, got: got + (i == 1) * 0.2 * (np.arange(30) == 7)[:, None])) == {}


def test_cases_that_are_the_same_are_no_proof() -> None:
    """Rounding repeats itself where the inputs do."""
    pair = noisy((1, 30, 64), db=25)[0]
    burst = pair.got.copy()
    burst[:, 7] *= 1.3
    once = [Pair("0", pair.expected, burst)]
    assert found([*once, *(Pair(str(i), pair.expected, burst, twin=True) for i in (1, 2))]) == found(once) == {}


def test_small_channels_are_judged_apart() -> None:
    def boxes(pair: Pair) -> Pair:
        scale = np.array([640, 640, 640, 640, 1, 1], np.float32)[:, None]
        got = pair.got * scale
        got[4:] = pair.expected[4:] * 1.1
        return Pair(pair.case, pair.expected * scale, got)

    pairs = [boxes(pair) for pair in noisy((6, 200))]
    assert found(pairs)["gain"].where["channels"] == [4, 5]

    def rounded(pair: Pair) -> Pair:
        step = np.float32(5.0)
        return Pair(pair.case, pair.expected, np.round(pair.expected / step) * step)

    assert found([rounded(pair) for pair in pairs])["small"].size == pytest.approx(1, abs=0.05)


def test_what_cannot_be_compared_is_left_out() -> None:
    pair = noisy((4, 5))[0]
    broken = [
        Pair("shape", pair.expected, pair.got[:3]),
        Pair("dtype", pair.expected, pair.got.astype(np.int32)),
        Pair("empty", pair.expected[:0], pair.got[:0]),
    ]
    assert look(samples_of(broken)) == []
    assert look(samples_of([])) == []


def test_what_is_not_finite_does_not_spoil_the_rest() -> None:
    def fault(_: int, got: np.ndarray) -> np.ndarray:
        got[0, :2] = np.nan, np.inf
        return np.asarray(got * np.float32(1.05))

    assert found(changed(noisy((4, 100)), fault))["gain"].size == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 1), (1, 2), (3, 1), (1, 1, 1, 1, 2)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    assert found(noisy(shape)) == {}
    assert found(noisy(shape, cases=1)) == {}


def test_numbers_of_any_size() -> None:
    for scale in (1e-300, 1e300):
        pairs = [Pair(p.case, p.expected.astype(np.float64) * scale, p.got.astype(np.float64) * 1.05 * scale)
                 for p in noisy((4, 100))]  # fmt: skip
        assert "gain" in found(pairs)


def test_ten_million_elements_are_thinned_out() -> None:
    expected = np.random.default_rng(0).standard_normal((1, 8400, 1200)).astype(np.float32)
    pairs = [Pair("a", expected, expected * np.float32(1.05))]
    (sample,) = samples_of(pairs)
    assert sample.steps == (1, 5, 1)
    began = time.process_time()
    assert "gain" in found(pairs)
    assert time.process_time() - began < 5


def test_every_kind_has_a_rule() -> None:
    kinds = {sign.kind for name in NAMES for sign in look(samples_of(recorded(name)))}
    assert kinds <= RULES.keys()


def _cut(dropped: int) -> Fault:
    mask = np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return lambda got: (np.ascontiguousarray(got).view(np.uint32) & mask).view(np.float32)


@pytest.mark.parametrize("dropped", [13, 16])
@pytest.mark.parametrize("name", NAMES)
def test_a_shorter_float_format(name: str, dropped: int) -> None:
    """Half precision and bfloat16, cut off, however coarse the rounding around it is; rounded, in the last line."""
    sign = found(planted(name, _cut(dropped)))["format"]
    assert sign.where["bits"] <= 24 - dropped
    rounded = planted(name, lambda got: got.astype(np.float16).astype(np.float32))
    assert dropped == 16 or found(rounded)["format"].where["bits"] <= 11


def test_what_is_expected_in_a_shorter_format_may_come_in_it() -> None:
    half = [Pair(p.case, _cut(13)(p.expected), _cut(13)(p.got), p.base) for p in recorded(NAMES[0])]
    assert "format" not in found(half)
    whole = [Pair("a", np.arange(64, dtype=np.float32) + np.float32(1e-6), np.arange(64, dtype=np.float32))]
    assert "format" not in found(whole), "whole numbers, computed to the last bit"


def _one_loud(seed: int, numbers: int, gain: float, noise: float) -> list[Pair]:
    rng = np.random.default_rng(seed)
    some = []
    for case in range(4):
        y = rng.standard_normal((1, numbers)).astype(np.float32)
        got = y * (1 + gain * (case == 2)) + noise * rng.standard_normal(y.shape)
        some.append(Pair(f"c{case}", y, got.astype(np.float32), y + 0.02 * rng.standard_normal(y.shape)))
    return some


@pytest.mark.parametrize("numbers", [48, 1000])
def test_one_case_is_too_loud_as_a_whole(numbers: int) -> None:
    sign = found(_one_loud(1, numbers, 0.03, 0.002))["lone gain"]
    assert sign.where["case"] == "c2"
    assert sign.where["value"] == pytest.approx(0.03, abs=0.003)


@pytest.mark.parametrize("numbers", [16, 48, 1000])
def test_errors_without_direction_are_no_gain_of_a_case(numbers: int) -> None:
    """Of as many numbers as make a case: none in 400 cases of each."""
    assert not any("lone gain" in found(_one_loud(seed, numbers, 0.0, 0.03)) for seed in range(100))
