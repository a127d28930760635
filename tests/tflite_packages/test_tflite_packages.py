"""Each model that a pinned package brings: the verdict is what our own comparison with LiteRT says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tflite_packages.compare import compared, models, packages

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("package", packages())
def test_verdicts_are_what_we_find_ourselves(package: str, tmp_path: Path) -> None:
    try:
        found = models(package)
    except subprocess.CalledProcessError:
        pytest.skip(f"no registry that has {package}")
    assert found
    outcomes = [compared(name, path, tmp_path / path.stem) for name, path in found.items()]
    assert [each for each in outcomes if not each.agrees] == []
