"""Causes told from tensors alone: no runtime, no MNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from edgequant.errors import RunnerError
from edgequant.jobs.conversion_causes import cause_of
from edgequant.jobs.conversion_likeness import liken
from edgequant.jobs.conversion_trial import Bench, Trial
from edgequant.models import ModelGraph, read_model
from edgequant.models.onnx_cut import Cut, Node
from tests import generated

_X = np.linspace(-100, 100, 401, dtype=np.float32).reshape(1, 401)
NO_BENCH = cast("Bench", None)
"""Parts of two nodes ask nothing of it."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return read_model(generated.small_cnn(tmp_path_factory.mktemp("model") / "cnn.onnx"))


def _node(kind: str, **attributes: Any) -> Node:
    return Node("n", kind, ("x",), ("x",), ("y",), attributes, (0, 0))


def _trial(expected: np.ndarray, got: np.ndarray | None, inputs: np.ndarray = _X, **more: Any) -> Trial:
    part = Cut((0, 1), {}, {}, {"y": ("float32", (None,))})
    found = {} if got is None else {"y": got}
    return Trial(part, Path(), Path(), {"x": inputs}, {"y": expected}, found, {"y": liken(expected, got)}, **more)


def _said(graph: ModelGraph, node: Node, trial: Trial | None, *stretch: Node) -> str | None:
    found = cause_of(graph, node, stretch, trial, NO_BENCH)
    assert found is None or (found.what and found.remedy)
    return None if found is None else found.code


def test_softplus_that_stops(graph: ModelGraph) -> None:
    expected = np.log1p(np.exp(-np.abs(_X))) + np.maximum(_X, 0)
    found = cause_of(graph, _node("Softplus"), (), _trial(expected, np.minimum(expected, 87)), NO_BENCH)
    assert found is not None
    assert found.code == "ACTIVATION_LIMIT"
    assert "above 87.5 alone" in found.what
    assert "below that" in found.remedy


def test_what_departs_on_one_side_is_no_limit_of_an_activation(graph: ModelGraph) -> None:
    expected = np.abs(_X)
    assert _said(graph, _node("Mod"), _trial(expected, np.maximum(_X, 0))) == "DEPARTS_FOR_SOME_INPUTS"
    assert _said(graph, _node("Tanh"), _trial(expected, np.maximum(_X, 0))) == "DEPARTS_FOR_SOME_INPUTS"


def test_halves(graph: ModelGraph) -> None:
    expected, up = np.round(_X), np.floor(_X + 0.5)
    assert _said(graph, _node("Round"), _trial(expected, up)) == "TIES_ROUNDED_OTHERWISE"


def test_what_is_wrong_everywhere_or_here_and_there_has_no_name(graph: ModelGraph) -> None:
    assert _said(graph, _node("Op"), _trial(_X, _X * 2)) is None
    assert _said(graph, _node("Op"), _trial(_X, np.where(np.arange(401) % 7 == 0, 0, _X).astype("f"))) is None
    assert _said(graph, _node("Op"), None) is None


def test_sizes_layout_and_what_is_not_there(graph: ModelGraph) -> None:
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert _said(graph, _node("Op"), _trial(_X, _X[:, :-1])) == "SHAPE_WRONG"
    assert _said(graph, _node("Op"), _trial(_X, None)) == "OUTPUT_DROPPED"
    assert _said(graph, _node("Op"), _trial(square, np.ascontiguousarray(square.T))) == "LAYOUT_CHANGED"
    assert _said(graph, _node("Op"), _trial(_X, np.where(_X > 99, np.nan, _X).astype("f"))) == "NOT_FINITE"


def test_what_mnn_cannot_run_is_told_in_its_words(graph: ModelGraph) -> None:
    trial = _trial(_X, None, failure=RunnerError("INFERENCE_FAILED", "MNN said: no"))
    found = cause_of(graph, _node("Op"), (), trial, NO_BENCH)
    assert found is not None
    assert (found.code, found.what, found.shown) == ("CANNOT_RUN", "MNN said: no", True)


def test_normalizations_are_told_with_their_dimensions(graph: ModelGraph) -> None:
    stretch = [_node("ReduceMean", axes=(2,)), _node("Sub"), _node("Sqrt")]
    found = cause_of(graph, _node("Div"), stretch, _trial(_X, _X * 2), NO_BENCH)
    assert found is not None
    assert found.code == "NORMALIZATION_AXES"
    assert "over 2 " in found.what
    assert _said(graph, _node("LayerNormalization", axis=1), _trial(_X, _X * 2)) == "NORMALIZATION_AXES"
    assert _said(graph, _node("Div"), _trial(_X, _X * 2), *stretch[:2]) is None


def test_what_the_file_shows_is_told_of_its_own_node(tmp_path: Path) -> None:
    reset = read_model(generated.gru_reset_first(tmp_path / "gru.onnx"))
    name = reset.reset_first[0]
    node = Node(name, "GRU", ("x",), ("x",), ("y",), {}, (0, 0))
    found = cause_of(reset, _node("Squeeze"), (node,), _trial(_X, _X * 2), NO_BENCH)
    assert found is not None
    assert (found.code, found.node, found.shown) == ("GRU_RESET_FIRST", name, False)
    assert _said(reset, _node("Squeeze"), _trial(_X, _X * 2)) is None
