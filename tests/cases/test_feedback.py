"""Which output is fed back into which input."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.cases.rollout import check_feedback, find_feedback, parse_feedback
from edgequant.errors import InputError


def arrays(**shapes: object) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}  # type: ignore[call-overload]


S, T = (1, 1, 8), (2, 4)


@pytest.mark.parametrize(
    ("inputs", "outputs", "found"),
    [
        ("h", "hN", {"h": "hN"}),
        ("h", "hn", {"h": "hn"}),
        ("h0 c0", "hn cn", {"h0": "hn", "c0": "cn"}),
        ("h c", "cN hN", {"h": "hN", "c": "cN"}),
        ("state_in", "state_out", {"state_in": "state_out"}),
        ("state", "stateN", {"state": "stateN"}),
        ("cache_prev h", "cache_next hN", {"cache_prev": "cache_next", "h": "hN"}),
        ("cache_prev", "cache", {"cache_prev": "cache"}),
        (
            "in_state_1 in_state_2",
            "out_state_2 out_state_1",
            {"in_state_1": "out_state_1", "in_state_2": "out_state_2"},
        ),
        ("hidden", "new_hidden", {"hidden": "new_hidden"}),
        ("prev_mem", "mem", {"prev_mem": "mem"}),
        ("hidden_state", "output_7", {"hidden_state": "output_7"}),  # by shape alone, and the name says state
    ],
)
def test_names_that_match(inputs: str, outputs: str, found: dict[str, str]) -> None:
    given, got = dict.fromkeys(inputs.split(), S), dict.fromkeys(outputs.split(), S)
    assert find_feedback(arrays(x=(1, 3), **given), arrays(y=(1, 5), **got)) == found


def test_what_is_of_another_size_or_type_is_not_fed_back() -> None:
    with pytest.raises(InputError, match="no output has") as error:
        find_feedback(arrays(x=(1, 3), h=S), arrays(y=(1, 5), hN=T))
    assert error.value.code == "FEEDBACK_NOT_FOUND"
    with pytest.raises(InputError):
        find_feedback({"h": np.zeros(S, np.int32)}, arrays(hN=S))


def test_an_ambiguous_one_lists_what_it_could_be() -> None:
    with pytest.raises(InputError) as error:
        find_feedback(arrays(state=S), arrays(a=S, b=S))
    assert error.value.code == "FEEDBACK_AMBIGUOUS"
    assert "a=state" in error.value.message
    assert "b=state" in error.value.message
    assert "--feedback" in (error.value.hint or "")
    with pytest.raises(InputError, match="hN=h"):
        find_feedback(arrays(h=S, h_prev=S), arrays(hN=S))


def test_a_model_whose_input_is_like_its_output_is_not_fed_back_by_itself() -> None:
    with pytest.raises(InputError) as error:
        find_feedback(arrays(x=S), arrays(y=S))
    assert error.value.code == "FEEDBACK_NOT_FOUND"
    assert "y=x" in error.value.message


def test_what_is_given() -> None:
    assert parse_feedback(["hN=h", "cN=c"]) == {"h": "hN", "c": "cN"}
    for wrong in (["hN"], ["=h"], ["hN="], ["hN=h", "cN=h"]):
        with pytest.raises(InputError) as error:
            parse_feedback(wrong)
        assert error.value.code == "FEEDBACK_INVALID"
        assert error.value.hint, "what to do"
    with pytest.raises(InputError, match="no input 'g'"):
        check_feedback({"g": "hN"}, arrays(h=S), arrays(hN=S))
    with pytest.raises(InputError, match="no output 'n'"):
        check_feedback({"h": "n"}, arrays(h=S), arrays(hN=S))
    with pytest.raises(InputError) as error:
        check_feedback({"h": "hN"}, arrays(h=S), arrays(hN=T))
    assert error.value.code == "FEEDBACK_SHAPE"
