"""What is not loaded before it is needed: several processes start at once, and wait for each other's imports."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("edgequant.reference.worker", ("pydantic", "edgequant.models", "edgequant.archive")),
        ("edgequant.jobs.explain", ("edgequant.judge.run", "edgequant.report", "edgequant.archive.layers")),
    ],
)
def test_a_module_brings_nothing_that_it_does_not_need_yet(module: str, late: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {late!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
