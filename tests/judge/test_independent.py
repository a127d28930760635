"""What a PASS on so many independent cases leaves possible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.arrays import ArrayFolder
from edgequant.archive.types import CaseFacts, Source
from edgequant.cases.load import save_npz
from edgequant.compare.metrics import compare
from edgequant.judge.independent import failing_share, sketch, twins
from edgequant.judge.stages import Comparer
from tests import generated
from tests.cli.command import edgequant
from tools import check_run


@pytest.mark.parametrize(
    ("cases", "share"), [(1, 0.95), (2, 0.7764), (20, 0.1391), (59, 0.04951), (299, 0.00997), (0, None)]
)
def test_the_rule(cases: int, share: float | None) -> None:
    assert failing_share(cases) == (share if share is None else pytest.approx(share, rel=1e-3))


def test_a_sketch_is_no_further_from_another_than_the_arrays_are() -> None:
    rng = np.random.default_rng(3)
    for size in (1, 2, 63, 64, 65, 1000, 4097):
        for near in (1e-3, 0.02, 1.0):
            one = rng.standard_normal(size) * 10.0 ** float(rng.uniform(-30, 30))
            two = one + near * np.abs(one).mean() * rng.standard_normal(size)
            apart = np.linalg.norm(one / np.linalg.norm(one) - two / np.linalg.norm(two))
            assert np.linalg.norm(sketch(one) - sketch(two)) <= apart + 1e-9
    assert all(np.isnan(sketch(nothing)).all() for nothing in (np.zeros(7), np.array([np.inf, 1]), np.array([np.nan])))
    assert sketch(np.zeros((3, 0))).size == 0


def test_a_thousand_cases_are_not_compared_element_by_element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with each it took minutes, of inputs as large as pictures."""
    rng = np.random.default_rng(6)
    arrays = ArrayFolder(tmp_path)
    drawn = [rng.standard_normal(500).astype(np.float32) for _ in range(300)]
    alike = [drawn[7] * np.float32(3) + np.float32(1e-3), drawn[250]]
    cases = tuple(
        CaseFacts(name=f"c{number}", source="a", inputs={"x": arrays.put(array)})
        for number, array in enumerate([*drawn, *alike])
    )
    compared: list[object] = []
    monkeypatch.setattr("edgequant.judge.independent.compare", lambda *two: compared.append(two) or compare(*two))
    assert twins(Comparer(arrays), Source.model_construct(cases=cases)) == {"c300", "c301"}
    assert len(compared) == 1  # the other has the same hash


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
