"""The table of metrics says of each what the code beside it does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgequant.compare.metrics import TensorComparison, compare
from edgequant.compare.summary import summarize
from edgequant.compare.table import TABLE, Kind, Metric
from edgequant.report.model import OutputReport
from edgequant.spec import DEVICE_METRIC, METRICS

RAMP = np.arange(-20, 30)
PAIRS = {"float": (RAMP.astype(np.float32), RAMP.astype(np.float32) + np.sin(RAMP)), "int": (RAMP, RAMP + RAMP % 3)}


def test_every_metric_can_be_computed_reported_and_limited() -> None:
    assert [each.name for each in TABLE.values()] == list(TABLE)
    assert set(TABLE) <= {field.name for field in dataclasses.fields(TensorComparison)}
    assert set(TABLE) <= set(OutputReport.model_fields)
    assert set(METRICS) - {DEVICE_METRIC} == {name for name in TABLE if not name.startswith("centered_")}
    assert len({each.title for each in TABLE.values()}) == len(TABLE)


def test_what_people_see() -> None:
    """Directions are those that limits are written with; digits and titles those of the report's tables."""
    assert {each.name: (each.better, each.decimals, each.title) for each in TABLE.values()} == {
        "cosine": (">=", 5, "cosine"),
        "centered_cosine": (">=", 5, "centered cosine"),
        "sqnr_db": (">=", 1, "SQNR dB"),
        "centered_sqnr_db": (">=", 1, "centered SQNR dB"),
        "max_abs": ("<=", None, "max abs"),
        "rel_max": ("<=", None, "rel max"),
        "mean_abs": ("<=", None, "mean abs"),
        "p99_abs": ("<=", None, "p99 abs"),
        "mismatch": ("<=", None, "mismatch"),
    }
    assert all(metric.better == METRICS[name.removeprefix("centered_")] for name, metric in TABLE.items())


@pytest.mark.parametrize("kind", ["float", "int"])
def test_kinds_are_those_that_get_a_number(kind: Kind) -> None:
    found = compare(*PAIRS[kind])
    assert found.kind == kind
    assert {name for name in TABLE if getattr(found, name) is not None} == {
        name for name, metric in TABLE.items() if kind in metric.kinds
    }


@pytest.mark.parametrize("metric", TABLE.values(), ids=TABLE)
def test_a_larger_error_is_worse_and_that_case_is_told(metric: Metric) -> None:
    reference, got = PAIRS["float" if "float" in metric.kinds else "int"]
    near = compare(reference, reference + (got - reference) * (np.arange(50) > 40))
    far = compare(reference, got)
    summary = summarize({"a": near, "b": far, "c": near})
    assert summary.worst_cases[metric.name] == "b"
    assert summary.values[metric.name] == getattr(far, metric.name) != getattr(near, metric.name)


def test_of_equals_the_first_is_told() -> None:
    for metric in TABLE.values():
        assert metric.worst([(1.0, "a"), (1.0, "b")]) == (1.0, "a")
        assert metric.worst([]) is None


def test_only_a_cosine_says_nothing_of_a_constant() -> None:
    """Two positive constants point the same way, however far apart; all else is as large as the error."""
    found = compare(np.full(9, 2.0, np.float32), np.full(9, 1.0, np.float32))
    assert found.cosine == 1.0
    assert [each.name for each in TABLE.values() if not each.of_constants] == ["cosine"]
