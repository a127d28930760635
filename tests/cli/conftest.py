"""Inputs for commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "case.npz"
    np.savez(path, x=np.random.default_rng(7).standard_normal((1, 3, 32, 32)).astype(np.float32))
    return path
