"""Likeness of tensors, and whom it makes suspect: no runtime, no MNN."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.jobs.conversion_likeness import Likeness, liken, same, suspects
from edgequant.jobs.conversion_survey import Survey, wrong_outputs
from edgequant.models.onnx_cut import Node
from edgequant.tensors import TensorSpec

_RNG = np.random.default_rng(0)
_X = _RNG.standard_normal((1, 4, 6, 5)).astype(np.float32)
SAME, OFF, MISSING = Likeness("same"), Likeness("departs", sqnr_db=5.0), Likeness("missing")


@pytest.mark.parametrize(
    ("got", "kind"),
    [
        (_X, "same"),
        (_X + 1e-5, "same"),
        (_X * 1.02, "departs"),
        (np.where(_X.max() == _X, 0, _X), "departs"),
        (_X.reshape(4, 30), "arranged"),
        (np.ascontiguousarray(_X.transpose(0, 2, 3, 1)), "arranged"),
        (np.ascontiguousarray(_X.transpose(0, 1, 3, 2)), "arranged"),
        (_X[:, :, :5], "departs"),
        (np.where(_X > 2, np.nan, _X).astype(np.float32), "departs"),
        (None, "missing"),
    ],
    ids=["itself", "rounding", "2 %", "one element", "sizes", "NHWC", "swapped", "shorter", "NaN", "none"],
)
def test_likeness(got: np.ndarray | None, kind: str) -> None:
    found = liken(_X, None if got is None else got.astype(np.float32))
    assert found.kind == kind
    assert found.departs == (kind in ("departs", "missing"))
    assert same(_X, None if got is None else got.astype(np.float32)) == (kind == "same")


def test_the_permutation_is_named() -> None:
    found = liken(_X, np.ascontiguousarray(_X.transpose(0, 2, 3, 1)))
    assert found.what == "the same numbers, with the dimensions in the order 0,2,3,1"


def test_nan_that_is_swallowed_departs() -> None:
    expected = np.array([np.nan, 1.0, -2.0], np.float32)
    assert liken(expected, np.array([1.0, 1.0, -2.0], np.float32)).departs
    assert not liken(np.array([-np.inf, 1.0]), np.array([-np.inf, 1.0])).departs


def test_zeros_and_integers() -> None:
    assert liken(np.zeros(4), np.full(4, 1e-9)).kind == "same"
    assert liken(np.zeros(4), np.full(4, 1e-2)).departs
    assert liken(np.array([1, 2, 3]), np.array([1, 2, 4], np.int32)).departs
    assert liken(np.array([True, False]), np.array([1, 0], np.int32)).kind == "same"
    assert liken(np.zeros((0, 3)), np.zeros((0, 3))).kind == "same"


def _chain(*names: str) -> list[Node]:
    """Nodes that each read what the one before makes; named as their outputs."""
    return [
        Node(name, "Op", (before,), (before,), (name,), {}, (0, 0))
        for before, name in zip(("x", *names), names, strict=False)
    ]


def test_the_first_on_the_way_to_a_wrong_output() -> None:
    found = suspects(_chain("a", "b", "c", "y"), {"a": SAME, "b": OFF, "c": OFF, "y": OFF}, {"y"})
    assert [(each.place, each.stretch, each.outputs) for each in found] == [(1, (1,), ("b",))]


def test_what_was_fused_away_is_a_stretch() -> None:
    found = suspects(_chain("a", "b", "c", "y"), {"a": SAME, "y": OFF}, {"y"})
    assert [(each.place, each.stretch) for each in found] == [(3, (1, 2, 3))]
    assert set(found[0].unseen) == {"b", "c"}


def test_nobody_is_blamed_for_another_name() -> None:
    """MNN may give a name to something else: what is right again behind it was never wrong."""
    assert suspects(_chain("a", "b", "c", "y"), {"a": SAME, "b": OFF, "c": SAME, "y": SAME}, set()) == []
    found = suspects(_chain("a", "b", "c", "y"), {"a": OFF, "b": SAME, "c": OFF, "y": OFF}, {"y"})
    assert [each.place for each in found] == [2]


def test_layout_is_no_departure() -> None:
    seen = {"a": Likeness("arranged"), "b": SAME, "y": OFF}
    assert [each.place for each in suspects(_chain("a", "b", "y"), seen, {"y"})] == [2]


def test_two_faults_are_two_suspects() -> None:
    nodes = [
        Node("a", "Op", ("x",), ("x",), ("a",), {}, (0, 0)),
        Node("b", "Op", ("x",), ("x",), ("b",), {}, (0, 0)),
        Node("y", "Op", ("a", "b"), ("a", "b"), ("y",), {}, (0, 0)),
    ]
    found = suspects(nodes, {"a": OFF, "b": MISSING, "y": OFF}, {"y"})
    assert [each.place for each in found] == [0, 1]


def test_only_what_leads_to_the_output() -> None:
    nodes = [
        Node("a", "Op", ("x",), ("x",), ("a",), {}, (0, 0)),
        Node("b", "Op", ("x",), ("x",), ("b",), {}, (0, 0)),
    ]
    assert [each.place for each in suspects(nodes, {"a": OFF, "b": OFF}, {"b"})] == [1]


def test_outputs_are_held_against_the_limits_of_a_float_model() -> None:
    """Sizes and order count there; an output that is nowhere is wrong."""
    sizes = {"shape": (2,), "got": (2,)}
    seen = {
        "right": Likeness("same", sqnr_db=120.0),
        "fair": Likeness("departs", sqnr_db=45.0, rel_max=0.015, **sizes),  # type: ignore[arg-type]
        "poor": Likeness("departs", sqnr_db=39.0, rel_max=0.015, **sizes),  # type: ignore[arg-type]
        "single": Likeness("departs", sqnr_db=60.0, rel_max=0.03, **sizes),  # type: ignore[arg-type]
        "swapped": Likeness("arranged", sqnr_db=120.0),
        "dropped": MISSING,
        "swallowed": Likeness("departs", sqnr_db=140.0, rel_max=0.0, what="0 NaN", **sizes),  # type: ignore[arg-type]
    }
    outputs = [TensorSpec(name, "float32", (2,)) for name in (*seen, "unseen")]
    found = wrong_outputs(Survey(seen, {}), outputs)
    assert found == {"poor", "single", "swapped", "dropped", "swallowed"}
