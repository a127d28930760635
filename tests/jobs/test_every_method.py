"""Every way to quantize ends in a model that works: MNN's own tools crash on most models, the generated GRU among them.

The gate has that GRU here, and a plain CNN in test_made.py; the real models are the nightly's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.methods import write_samples
from bench.realistic import SOURCES
from edgequant.jobs.verify import verify
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.report.model import Report
from edgequant.spec import RunOptions
from edgequant.zoo import fetch
from tests.beds.models import ModelByName

METHODS = ("ema", "kl", "admm", "static:8,calib=minmax,asym", "dynamic:8")
"""Where kl falls back to scales of edgequant's own, these are of a plain static:8."""


def by_every_method(model: Path, calibration: Path, held_out: Path, run_dir: Path) -> Report:
    """A FAIL is a rough model that runs, and says so."""
    request = Request(
        model, variants=METHODS, inputs=held_out, calibration=str(calibration), run_dir=run_dir, latency=False,
        options=RunOptions(threads=1),
    )  # fmt: skip
    report, _ = verify(request, Progress())
    assert [run.variant for run in report.runs] == list(METHODS)
    for run in report.runs:
        what = f"{run.variant}: {run.made_as}: {run.steps}"
        assert run.error is None, what
        assert run.verdict in ("PASS", "MARGINAL", "FAIL"), what
        assert all(output.sqnr_db is not None and output.sqnr_db > -30 for output in run.outputs.values()), what
        assert run.file is not None
        assert (run_dir / "models" / run.file).is_file(), what
        if run.variant != "dynamic:8":
            assert run.steps[-1]["outcome"] == "made", what
            fell_back = any(finding.code == "QUANTIZE_FELL_BACK" for finding in run.findings)
            assert fell_back == (run.made_as != run.variant) == (len(run.steps) > 1), what
    return report


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SOURCES)
def test_every_method_ends_in_a_model_that_works(name: str, tmp_path: Path) -> None:
    calibration = write_samples(tmp_path / "calibration", name, 2, seed=5)
    held_out = write_samples(tmp_path / "held-out", name, 1, seed=6)
    by_every_method(fetch(name), calibration, held_out, tmp_path / "run")


@pytest.mark.slow
def test_every_method_on_a_generated_gru(generated_model: ModelByName, tmp_path: Path) -> None:
    """Most of them crash on it, and one of MNN's flags or a step down the ladder is the way out."""
    random = np.random.default_rng(0)
    for folder in ("calibration", "held-out"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            x, state = random.standard_normal((1, 5, 32)), random.standard_normal((1, 1, 64))
            np.savez(tmp_path / folder / f"{number}.npz", x=np.float32(x), state=np.float32(state))
    report = by_every_method(generated_model("gru"), tmp_path / "calibration", tmp_path / "held-out", tmp_path / "run")
    assert sum(len(run.steps) > 1 for run in report.runs) >= 2
