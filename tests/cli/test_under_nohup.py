"""The tests themselves where signals are ignored and there is no stdin, as under `nohup make test &` and in CI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHERE = f"{Path(__file__).with_name('test_interrupts.py').relative_to(ROOT)}::test_"


@pytest.mark.parametrize("closed", ["", "0<&-"])
def test_what_they_start_can_be_interrupted(closed: str) -> None:
    words = f'trap "" HUP INT QUIT TERM; exec "$@" {closed}'
    tests = [f"{WHERE}a_cancelled_job_ends_in_the_same_way", f"{WHERE}ctrl_c[while it works]"]
    done = subprocess.run(
        ["sh", "-c", words, "sh", sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
