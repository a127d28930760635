"""Targets, and the cases that keep a search honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant.errors import InputError
from edgequant.quantize.search.target import make_target, varied
from edgequant.quantize.search.trials import Signals
from edgequant.spec import Limit

# Two given cases and two varied ones, of outputs a, b and c; c cannot be judged, b not in the second case.
SIGNALS = Signals(("a", "b", "c"), np.asarray([100.0, 10.0, 0, 200.0, 0, 0, 50.0, 20.0, 0, 70.0, 30.0, 0]), 99)


def limits(*texts: str) -> list[Limit]:
    return [Limit.parse(text) for text in texts]


def test_what_is_allowed_for_given_cases_one_by_one_and_for_varied_ones_together() -> None:
    target = make_target(limits("sqnr_db>=20", "b:sqnr_db>=10"), SIGNALS, 2)
    assert target.floors == {"a": 20.0, "b": 10.0}
    assert target.places.tolist() == [0, 1, 3]
    assert target.noise == pytest.approx([1.0, 1.0, 2.0, 1.2, 5.0])
    noise = np.arange(12.0)
    assert target.constraints(noise).tolist() == [0.0, 1.0, 3.0, 6.0 + 9.0, 7.0 + 10.0]
    assert target.varied_db(target.constraints(noise)) == pytest.approx(
        {"a": 10 * np.log10(120 / 15), "b": 10 * np.log10(50 / 17)}
    )
    assert target.margins({"a": 21.0}) == {"a": 1.0, "b": -np.inf}


def test_the_harder_of_two_targets_on_one_output_stands() -> None:
    for texts in (("sqnr_db>=20", "sqnr_db>=30", "b:sqnr_db>=12", "b:sqnr_db>=10"), ("sqnr_db>=30", "sqnr_db>=20")):
        floors = make_target(limits(*texts), SIGNALS, 2).floors
        assert floors == {"a": 30.0, "b": 12.0 if len(texts) > 2 else 30.0}


def test_sqnr_of_given_cases_only_is_of_the_worst() -> None:
    noise = np.asarray([1.0, 1.0, 5.0, 20.0, 5.0, 5.0, 50.0, 0, 0, 0, 0, 0])
    assert SIGNALS.sqnr_db(noise, 2) == pytest.approx({"a": 10.0, "b": 10.0})
    assert SIGNALS.sqnr_db(noise)["a"] == pytest.approx(0.0)
    noise[0] = np.inf
    assert SIGNALS.sqnr_db(noise)["a"] == -np.inf


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ([], "TARGET_UNSUPPORTED"),
        (["max_abs<=1"], "TARGET_UNSUPPORTED"),
        (["c:sqnr_db>=1"], "TARGET_NOT_JUDGEABLE"),
        (["d:sqnr_db>=1"], "TARGET_OUTPUT_UNKNOWN"),
    ],
)
def test_refused(texts: list[str], code: str) -> None:
    with pytest.raises(InputError) as caught:
        make_target(limits(*texts), SIGNALS, 2)
    assert caught.value.code == code


@given(st.integers(0, 2**32), st.floats(0.1, 10), st.floats(-5, 5))
def test_varied_cases_are_like_the_given_one_and_not_it(seed: int, deviation: float, mean: float) -> None:
    random = np.random.default_rng(seed)
    case = {
        "x": (random.standard_normal((1, 4000)) * deviation + mean).astype(np.float32),
        "ids": random.integers(0, 4, (1, 5)),
        "scale": np.asarray(2.0, np.float32),
    }
    first, second = varied([case], 2)
    for made in (first, second):
        assert made["x"].dtype == np.float32
        assert made["x"].mean() == pytest.approx(mean, abs=0.15 * deviation)
        assert made["x"].std() == pytest.approx(deviation, rel=0.1)
        assert np.corrcoef(made["x"].ravel(), case["x"].ravel())[0, 1] == pytest.approx(0.5, abs=0.1)
        assert np.array_equal(made["ids"], case["ids"])
        assert made["scale"] == 2.0
    assert not np.array_equal(first["x"], second["x"])
    assert np.array_equal(varied([case], 2)[0]["x"], first["x"])
