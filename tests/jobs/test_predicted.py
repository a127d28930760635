"""What the source's own runtime tells beside its outputs: what rounding has to cost, and which way it goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgequant.archive.open import open_run
from edgequant.cases.load import save_npz
from edgequant.judge.activations import MARGIN_DB, STATIC_MARGIN_DB
from tests import generated
from tests.jobs.support import codes, do


def test_what_rounding_has_to_cost_is_near_what_it_costs(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    report = do(source, tmp_path / "run", "dynamic:8", "static:8,calib=minmax")
    assert report.verdict == "PASS"
    run = open_run(tmp_path / "run")
    predicted = {(each.by, each.memory): each.outputs["y"].sqnr_db for each in run.reference.moved}
    assert set(predicted) == {("rows", "low"), ("tensors", "normal")}
    assert {each.case for each in run.reference.moved} == run.source.held
    dynamic, static = report.runs
    found = dynamic.errors.activations["y"].sqnr_db
    assert abs(found - predicted["rows", "low"]) < MARGIN_DB
    assert abs(static.errors.quantization["y"].sqnr_db - predicted["tensors", "normal"]) < STATIC_MARGIN_DB


def test_the_ways_that_cases_take_are_kept(tmp_path: Path) -> None:
    source = generated.branches(tmp_path / "branches.onnx")
    for number, ways in enumerate(([True, False], [True, True])):
        (tmp_path / f"in{number}").mkdir()
        for case, deep in enumerate(ways):
            x = np.random.default_rng(case).standard_normal((1, 4)).astype(np.float32)
            save_npz(tmp_path / f"in{number}" / f"{case}.npz", {"x": x, "deep": np.array(deep)})
        report = do(source, tmp_path / f"run{number}", "float", inputs=tmp_path / f"in{number}")
        run = open_run(tmp_path / f"run{number}")
        kept = [bool(run.arrays.get(each.taps["deep"])) for each in run.reference.cases]
        assert kept == ways
        assert run.reference.moved == ()  # nothing is rounded in a float file
        assert ("BRANCH_NOT_TAKEN" in [each.code for each in report.findings]) == all(ways)
        assert report.verdict == ("MARGINAL" if all(ways) else "PASS")
        assert "BRANCH_NOT_TAKEN" not in codes(report.runs[0])
