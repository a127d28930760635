"""Every way to quantize ends in a model that works, on each real model: MNN's own tools crash on most of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.methods import write_samples
from bench.realistic import SOURCES
from edgequant.jobs.verify import verify
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.spec import RunOptions
from edgequant.zoo import fetch

METHODS = ("ema", "kl", "admm", "static:8,calib=minmax,asym", "dynamic:8")
"""Where kl falls back to scales of edgequant's own, these are of a plain static:8."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SOURCES)
def test_every_method_ends_in_a_model_that_works(name: str, tmp_path: Path) -> None:
    calibration = write_samples(tmp_path / "calibration", name, 2, seed=5)
    held_out = write_samples(tmp_path / "held-out", name, 1, seed=6)
    request = Request(
        fetch(name), variants=METHODS, inputs=held_out, calibration=str(calibration), run_dir=tmp_path / "run",
        latency=False, options=RunOptions(threads=1),
    )  # fmt: skip
    report, _ = verify(request, Progress())
    assert [run.variant for run in report.runs] == list(METHODS)
    for run in report.runs:
        what = f"{run.variant}: {run.made_as}: {run.steps}"
        assert run.error is None, what
        assert run.verdict in ("PASS", "MARGINAL", "FAIL"), what  # a FAIL is a rough model that runs, and says so
        assert all(output.sqnr_db is not None and output.sqnr_db > -30 for output in run.outputs.values()), what
        assert run.file is not None
        assert (tmp_path / "run" / "models" / run.file).is_file(), what
        if run.variant != "dynamic:8":
            assert run.steps[-1]["outcome"] == "made", what
            fell_back = any(finding.code == "QUANTIZE_FELL_BACK" for finding in run.findings)
            assert fell_back == (run.made_as != run.variant) == (len(run.steps) > 1), what
