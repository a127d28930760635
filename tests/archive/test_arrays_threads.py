"""Arrays that are kept and read by several threads at once, as when a device runs while others are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.archive import arrays
from edgequant.background import Background


def test_many_threads_find_what_they_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_CACHE_BYTES", 3 * 4096)  # nearly every array drives out another
    folder = arrays.ArrayFolder(tmp_path / "arrays")

    def work(seed: int) -> None:
        for step in range(150):
            array = np.full(1024, (seed + step) % 7, np.float32)
            assert (folder.get(folder.put(array)) == array).all()

    for each in [Background(lambda seed=seed: work(seed)) for seed in range(4)]:  # type: ignore[misc]
        each.result()
