"""What the environment says of the cache of conversions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.progress import Progress
from edgequant.quantize.cache import conversions_folder, open_cache


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("EDGEQUANT_NO_CACHE", "EDGEQUANT_CACHE_MB"):
        monkeypatch.delenv(name, raising=False)
    plain = open_cache()
    assert plain is not None
    assert (plain.folder, plain.limit) == (conversions_folder(), 2048 * 10**6)
    assert plain.folder.is_relative_to(tmp_path)
    monkeypatch.setenv("EDGEQUANT_CACHE_MB", "3")
    small = open_cache()
    assert small is not None
    assert small.limit == 3 * 10**6
    monkeypatch.setenv("EDGEQUANT_CACHE_MB", "much")
    heard = Heard()
    assert open_cache(heard) is not None
    assert "EDGEQUANT_CACHE_MB='much'" in heard.lines[0]
    monkeypatch.setenv("EDGEQUANT_CACHE_MB", "0")
    assert open_cache() is None
    monkeypatch.delenv("EDGEQUANT_CACHE_MB")
    monkeypatch.setenv("EDGEQUANT_NO_CACHE", "1")
    assert open_cache() is None
    monkeypatch.setenv("EDGEQUANT_NO_CACHE", "0")
    assert open_cache() is not None
