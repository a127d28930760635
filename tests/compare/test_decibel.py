"""Powers as decibels: the plain formula, and every edge where it has no value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant.compare.decibel import SQNR_CAP_DB, amplitude_db, capped_db, power_db

POWERS = st.floats(1e-100, 1e100)


@given(POWERS, POWERS)
def test_is_the_formula(signal: float, noise: float) -> None:
    assert power_db(signal, noise) == pytest.approx(10 * math.log10(signal / noise), rel=1e-9, abs=1e-9)
    assert amplitude_db(signal, noise) == pytest.approx(power_db(signal**2, noise**2), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [
        (1.0, 0.0, math.inf),
        (0.0, 0.0, math.inf),
        (0.0, 1.0, -math.inf),
        (-1e-30, 1.0, -math.inf),  # a variance, as rounding leaves it
        (1.0, math.inf, -math.inf),
        (1.0, math.nan, -math.inf),
        (math.nan, 1.0, -math.inf),
        (1e300, 1e-300, 6000.0),
        (5e-324, 1e300, -6233.06),
    ],
)
def test_where_there_is_no_quotient(signal: float, noise: float, expected: float) -> None:
    assert power_db(signal, noise) == pytest.approx(expected, abs=0.01)


def test_files_get_numbers() -> None:
    given = [math.inf, -math.inf, math.nan, 300.0, -300.0, 12.5, SQNR_CAP_DB]
    assert [capped_db(value) for value in given] == [200.0, -200.0, -200.0, 200.0, -200.0, 12.5, 200.0]
