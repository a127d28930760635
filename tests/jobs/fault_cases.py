"""Cases for jobs in whose middle something fails, and what has to hold after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgequant.files import sha256_of
from edgequant.report.model import Run
from tests.jobs.support import capture

MANY = 12
"""Cases: enough to be in the middle of them."""


def save_cases(folder: Path, count: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        np.savez(folder / f"case{number:03}.npz", x=random.standard_normal((1, 3, 32, 32)).astype(np.float32))
    return folder


def check_partial(run_dir: Path, run: Run, cases: int) -> None:
    """So many cases came back: on disk, and compared in the report."""
    assert len(capture(run_dir, run)) == cases < MANY
    assert {output.cases for output in run.outputs.values()} == {cases}
    assert all(output.sqnr_db is not None for output in run.outputs.values())


def check_store(work: Path) -> None:
    """Every object is whole."""
    for file in (work / "objects").iterdir():
        assert sha256_of(file) == file.name
