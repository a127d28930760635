"""Rows matched before they are compared."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.compare.rows import match_rows

RANDOM = np.random.default_rng(3)
BOXES = np.sort(RANDOM.uniform(0, 1, (20, 6)).astype(np.float32), axis=0)[::-1] * [640, 640, 640, 640, 1, 1]


def test_two_that_changed_places() -> None:
    got = BOXES.copy()
    got[[4, 5]] = got[[5, 4]]
    found = match_rows(BOXES, got + 1e-3)
    assert found is not None
    assert (found.rows, found.moved, found.share) == ((20, 20), 1, 1.0)
    assert np.allclose(found.expected, found.got, atol=2e-3)


def test_one_more_at_the_front_moves_nothing() -> None:
    found = match_rows(BOXES, np.concatenate([BOXES[:1] * 3, BOXES]))
    assert found is not None
    assert (found.rows, found.moved, len(found.expected)) == ((20, 21), 0, 20)
    assert found.share == pytest.approx(20 / 21)


def test_a_shuffled_list_is_out_of_order() -> None:
    found = match_rows(BOXES, BOXES[::-1])
    assert found is not None
    assert (found.share, found.moved) == (1.0, 19)


def test_other_rows_do_not_match() -> None:
    found = match_rows(BOXES, BOXES + np.array([0, 0, 300, 0, 0, 0]))
    assert found is not None
    assert found.share < 0.2


def test_places_of_a_set_along_whichever_axis() -> None:
    expected = np.array([[0, 1, 2, 5], [3, 3, 1, 0]])
    found = match_rows(expected, np.array([[0, 1, 2, 4, 5], [3, 3, 1, 7, 0]]), last=True)
    assert found is not None
    assert (found.rows, len(found.expected), found.moved) == ((4, 5), 4, 0)


def test_whole_numbers_match_when_they_are_equal() -> None:
    found = match_rows(np.array([5, 9, 7]), np.array([9, 6, 7]))
    assert found is not None
    assert found.expected.ravel().tolist() == [9, 7]


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (np.float32(3), np.float32(3)),
        (np.zeros((2, 3)), np.zeros((3, 4))),
        (np.zeros((2, 3)), np.zeros(6)),
        (np.zeros(3), np.zeros(3, np.int64)),
        (np.zeros((1, 1)), np.zeros((1, 1))),
        (np.zeros((1, 3)), np.zeros((2, 5))),
    ],
)
def test_what_is_no_list_of_the_same_kind(expected: np.ndarray, got: np.ndarray) -> None:
    assert match_rows(expected, got) is None


def test_nan_matches_nothing_and_an_empty_list_is_one() -> None:
    broken = BOXES.copy()
    broken[3] = np.nan
    found = match_rows(BOXES, broken)
    assert found is not None
    assert len(found.expected) == 19
    empty = match_rows(BOXES, BOXES[:0])
    assert empty is not None
    assert (empty.rows, empty.share) == ((20, 0), 0.0)
