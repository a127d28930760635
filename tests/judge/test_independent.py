"""What a PASS on so many independent cases leaves possible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.judge.independent import failing_share
from tests import generated
from tests.cli.command import edgequant
from tools import check_run


@pytest.mark.parametrize(
    ("cases", "share"), [(1, 0.95), (2, 0.7764), (20, 0.1391), (59, 0.04951), (299, 0.00997), (0, None)]
)
def test_the_rule(cases: int, share: float | None) -> None:
    assert failing_share(cases) == (share if share is None else pytest.approx(share, rel=1e-3))


def test_cases_that_are_alike_count_once(tmp_path: Path) -> None:
    model = generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx")
    rng = np.random.default_rng(5)
    shape = (1, 3, 32, 32)
    (tmp_path / "cases").mkdir()
    drawn = [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]
    alike = drawn[0] + 1e-3 * rng.standard_normal(shape).astype(np.float32)
    for number, array in enumerate([*drawn, drawn[1], alike]):
        save_npz(tmp_path / "cases" / f"c{number}.npz", {"x": array})
    options = ("--device", "local:", "--inputs", str(tmp_path / "cases"), "--run-dir", str(tmp_path / "run"))
    done = edgequant("verify", str(model), *options, "--no-latency", "--json")
    (run,) = json.loads((tmp_path / "run" / "report.json").read_text())["runs"]
    assert run["verdict"] in ("PASS", "MARGINAL")
    assert run["independent_cases"] == 3
    assert run["failing_share_95"] == pytest.approx(1 - 0.05 ** (1 / 3))
    assert "3 independent cases, none failed: up to 63 % of inputs may (95 %)" in done.err
    assert check_run.main(tmp_path / "run") == 0
    # Of limits that are broken nothing is promised.
    failed = edgequant("judge", str(tmp_path / "run"), "--limit", "sqnr_db>=150", "--json")
    assert failed.json["runs"][0]["failing_share_95"] is None
    assert "none failed" not in failed.err
