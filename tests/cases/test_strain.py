"""Cases beside the usual ones: other sizes, other values, and inputs whose name says what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.cases.case import Case, usual
from edgequant.cases.generate import generate, more_sizes, redrawn
from edgequant.cases.strain import strained
from edgequant.tensors import TensorSpec

ENC = (
    TensorSpec("feat_erb", "float32", (1, 1, None, 32), (None, None, "S", None)),
    TensorSpec("feat_spec", "float32", (1, 2, None, 96), (None, None, "S", None)),
)


def by_name(cases: list[Case]) -> dict[str, Case]:
    return {case.name: case for case in cases}


def test_other_sizes_are_odd_and_ten_times_as_long() -> None:
    found = by_name(more_sizes(ENC, 0))
    assert {name: case.kind for name, case in found.items()} == {"odd": "size", "longer": "strain"}
    assert found["odd"].shapes == {"feat_erb": (1, 1, 37, 32), "feat_spec": (1, 2, 37, 96)}
    assert found["longer"].shapes["feat_erb"][2] == 203


def test_batches_where_a_batch_is_open() -> None:
    both = by_name(more_sizes([TensorSpec("x", "float32", (None, None, 8))], 0))
    assert both["batch"].shapes["x"] == (3, 22, 8)
    assert both["odd"].shapes["x"] == (1, 37, 8)
    alone = by_name(more_sizes([TensorSpec("x", "float32", (None, 8))], 0))
    assert (alone["odd"].shapes["x"], alone["batch"].shapes["x"]) == ((3, 8), (5, 8))
    state = TensorSpec("h", "float32", (2, None, 16), (None, "batch", None))
    together = by_name(more_sizes([TensorSpec("x", "float32", (None, None, 8), ("batch", "T", None)), state], 0))
    assert together["batch"].shapes == {"x": (3, 22, 8), "h": (2, 3, 16)}


def test_fixed_shapes_have_no_other_sizes() -> None:
    assert more_sizes([TensorSpec("x", "float32", (1, 8))], 0) == []


def test_strained_values() -> None:
    case = generate(ENC, 0)[0]
    found = by_name(strained(case, ENC, {}))
    x = case.inputs["feat_erb"]
    assert list(found) == ["silence", "loud-3", "loud-10", "negative", "whole"]
    assert all(each.kind == "strain" and each.shapes == case.shapes and each.generated for each in found.values())
    got = {name: each.inputs["feat_erb"] for name, each in found.items()}
    assert not got["silence"].any()
    assert np.array_equal(got["loud-10"], x * np.float32(10))
    assert np.array_equal(got["negative"], -np.abs(x))
    assert np.array_equal(got["whole"], np.rint(2 * x))
    assert len(np.unique(got["whole"])) < x.size / 4
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}


def test_ends_of_bytes_and_nothing_of_wider_integers() -> None:
    inputs = [TensorSpec("picture", "uint8", (1, 3, 8, 8)), TensorSpec("ids", "int64", (1, 8))]
    case = generate(inputs, 0)[0]
    found = by_name(strained(case, inputs, {}))
    assert list(found) == ["lowest", "highest"]
    assert set(found["highest"].inputs["picture"].flat) == {255}
    assert all(np.array_equal(each.inputs["ids"], case.inputs["ids"]) for each in found.values())


def test_both_ends_of_a_table() -> None:
    inputs = [TensorSpec("x", "float32", (1, 8)), TensorSpec("ids", "int64", (1, 8))]
    found = by_name(strained(generate(inputs, 0)[0], inputs, {"ids": 1000}))
    assert [set(found[name].inputs["ids"].flat) for name in ("lowest", "highest")] == [{0}, {999}]
    assert np.array_equal(found["highest"].inputs["x"], generate(inputs, 0)[0].inputs["x"])


def test_usual_cases_are_all_where_there_are_no_others() -> None:
    first, *others = generate(ENC, 0)
    silent = strained(first, ENC, {})[0]
    assert usual([first, silent, *others]) == [first, *others]
    assert usual([silent]) == [silent]


def test_drawn_again_has_other_numbers_of_the_same_sizes() -> None:
    case = generate(ENC, 0)[1]
    again, twice = redrawn(case, ENC, 0, 1), redrawn(case, ENC, 0, 2)
    assert (again.name, again.kind, again.shapes) == (case.name, case.kind, case.shapes)
    values = {each.inputs["feat_erb"].tobytes() for each in (case, again, twice)}
    assert len(values) == 3
    assert "again" in again.source


@pytest.mark.parametrize(
    ("name", "shape", "values"),
    [
        ("lengths", (None,), [20]),
        ("x_len", (1,), [20]),
        ("audio_length", (), 20),
        ("sr", (), 16000),
        ("sample_rate", (1,), [16000]),
        ("attention_mask", (1, None), [[1] * 20]),
        ("position_ids", (1, None), [list(range(20))]),
        ("token_type_ids", (1, None), [[0] * 20]),
    ],
)
def test_what_an_input_is_for(name: str, shape: tuple[int | None, ...], values: object) -> None:
    dims = {0: (), 1: (None,), 2: (None, "T")}[len(shape)]
    inputs = [TensorSpec("x", "float32", (1, None, 80), (None, "T", None)), TensorSpec(name, "int64", shape, dims)]
    middle = generate(inputs, 0)[1]
    if shape == (None,):
        assert set(middle.inputs[name]) == {20}
    else:
        assert middle.inputs[name].tolist() == values
    assert middle.inputs[name].dtype == np.int64


@pytest.mark.parametrize("name", ["relent", "mode", "srs_of", "ids", "maskx"])
def test_other_names_say_nothing(name: str) -> None:
    drawn = [case.inputs[name] for case in generate([TensorSpec(name, "int64", (64,))], 0)]
    assert all(set(values) == {0, 1, 2, 3} for values in drawn)
