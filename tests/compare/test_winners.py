"""Which class wins, row by row."""

from __future__ import annotations

import numpy as np

from edgequant.compare.winners import of_classes, of_probabilities, of_scores

P = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.34, 0.33, 0.33], [0.1, 0.2, 0.7]], np.float32)


def test_clear_winners_are_counted_and_close_calls_are_not() -> None:
    got = P.copy()
    got[2] = [0.3, 0.4, 0.3]
    got[3] = [0.1, 0.6, 0.3]
    found = of_probabilities([(P, got)])
    assert found is not None
    assert (found.rows, found.judged, found.changed) == (4, 3, 1)
    assert found.lost(1) == [2]
    assert found.became(2) == 1
    assert found.lost(2) == []


def test_classes_add_up_over_cases_along_whichever_axis() -> None:
    found = of_probabilities([(P.T[None], P.T[None])] * 3)
    assert found is not None
    assert found.clear == {0: 3, 1: 3, 2: 3}
    assert found.right == found.clear


def test_logarithms_of_probabilities() -> None:
    found = of_probabilities([(np.log(P), np.log(P)[:, ::-1])])
    assert found is not None
    assert (found.judged, found.changed, found.lost(1)) == (3, 2, [0, 2])


def test_what_adds_up_to_something_else_is_none() -> None:
    assert of_probabilities([(P * 2, P * 2)]) is None
    assert of_probabilities([(P - 1, P - 1)]) is None
    assert of_probabilities([(np.full((2, 2), np.nan), P[:2, :2])]) is None


def test_nan_never_wins() -> None:
    got = P.copy()
    got[0, 1] = np.nan
    found = of_probabilities([(P, got)])
    assert found is not None
    assert found.changed == 0


def test_scores_decide_each_for_itself() -> None:
    expected = np.array([[0.9, 0.1, 0.55, 0.7]])
    found = of_scores([(expected, np.array([[0.4, 0.3, 0.4, 0.61]]))])
    assert found is not None
    assert (found.judged, found.changed, found.clear) == (3, 1, {0: 1, 1: 2})
    assert of_scores([(expected * 2, expected)]) is None


def test_labels() -> None:
    found = of_classes([(np.array([1, 1, 7, 7, 7]), np.array([1, 1, 4, 4, 1]))])
    assert found is not None
    assert (found.lost(3), found.became(7)) == ([7], 4)


def test_other_shapes_are_told_elsewhere() -> None:
    assert of_classes([(np.array([1, 2]), np.array([1]))]) is None
    assert of_classes([]) is None


def test_logits_win_as_their_softmax_does() -> None:
    logits = np.log(P) + np.array([[100.0], [-3.0], [0.5], [700.0]], np.float32)
    assert of_probabilities([(logits, logits)]) is None
    found = of_probabilities([(logits, logits[:, ::-1])], logits=True)
    assert found is not None
    assert (found.rows, found.judged, found.changed, found.lost(1)) == (4, 3, 2, [0, 2])
    images = logits.T[None, :, :, None]
    found = of_probabilities([(images, images)], logits=True)
    assert found is not None
    assert found.right == {0: 1, 1: 1, 2: 1}
    # What adds up to 1 is taken as it is.
    plain = of_probabilities([(P.T, P.T)], logits=True)
    assert plain is not None
    assert plain.right == {0: 1, 1: 1, 2: 1}
    assert of_probabilities([(np.float32(3), np.float32(3))], logits=True) is None


def test_logits_score_as_their_sigmoid_does() -> None:
    logits = np.array([-700.0, -1.0, -0.1, 0.1, 1.0, 700.0], np.float32)
    assert of_scores([(logits, logits)]) is None
    found = of_scores([(logits, -logits), (logits[3:5], logits[3:5])], logits=True)
    assert found is not None
    assert (found.rows, found.judged, found.changed) == (8, 5, 4)
    scores = np.array([0.1, 0.9], np.float32)
    found = of_scores([(scores, scores)], logits=True)
    assert found is not None
    assert found.right == {0: 1, 1: 1}
