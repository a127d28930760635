"""docs/accept-rules.md has every key, every metric and every state, as they are."""

from __future__ import annotations

import re
from pathlib import Path

from edgequant.judge.acceptance_types import ORDER
from edgequant.spec.accept import AcceptSpec, BenchEntry, DeviceEntry, ModelEntry, TaskEntry, VariantEntry
from edgequant.spec.rule_metrics import TABLE

DOC = (Path(__file__).parents[2] / "docs" / "accept-rules.md").read_text()


def test_every_metric_is_there_with_its_unit_and_operator() -> None:
    rows = {
        cells[0].removeprefix("[OUTPUT:]"): cells
        for line in DOC.splitlines()
        if (cells := [cell.strip().strip("`") for cell in line.strip("|").split("|")]) and len(cells) == 6
    }
    for name, metric in TABLE.items():
        assert f"`[OUTPUT:]{name}`" in DOC if metric.per_output else f"`{name}`" in DOC
        assert rows[name][2] == metric.unit
        assert metric.better is None or rows[name][3] == metric.better
        assert (rows[name][4], rows[name][5]) == (metric.source, "yes" if metric.relative else "")


def test_every_key_is_there() -> None:
    for model in (AcceptSpec, ModelEntry, VariantEntry, DeviceEntry, TaskEntry, BenchEntry):
        for key in model.model_fields:
            assert re.search(rf"`{key}`", DOC), (model.__name__, key)


def test_every_state_is_there_with_its_exit_code() -> None:
    for state in ORDER:
        assert re.search(rf"^\| {state} \|.*\| {state.exit_code} \|$", DOC, re.MULTILINE)
