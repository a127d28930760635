"""The runner's own memory figures, read from this process's /proc."""

from __future__ import annotations

import mmap

import psutil
import pytest

from edgequant.device_scripts import process


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int | None]]:
    """What each look at PSS has found."""
    found: list[dict[str, int | None]] = []
    real = process._rollup

    def look() -> dict[str, int | None]:
        found.append(real())
        return found[-1]

    monkeypatch.setattr(process, "_rollup", look)
    return found


def test_it_is_the_memory_of_this_process() -> None:
    found = process.Memory().read()
    here = psutil.Process().memory_full_info()
    assert found["rss"] is not None
    assert found["rss"] == pytest.approx(here.rss / 1024, rel=0.1)
    assert found["pss"] == pytest.approx(here.pss / 1024, rel=0.1)
    assert found["rss_peak"] is not None
    assert found["rss_peak"] >= found["rss"] * 0.9
    assert found["uss"] == pytest.approx(here.uss / 1024, rel=0.1)
    assert found["swap"] == here.swap // 1024


def test_each_stage_has_a_peak_of_its_own() -> None:
    """What a stage let go again is in its own peak and in that of all, and not in the next stage's."""
    process.reset_peak()
    memory = process.Memory()
    start = memory.read()
    held = mmap.mmap(-1, 32 << 20)
    held.write(b"\1" * len(held))
    held.close()
    loud, quiet = memory.read(), memory.read()
    assert start["rss"] is not None
    assert loud["stage_peak"] is not None
    assert quiet["stage_peak"] is not None
    assert loud["stage_peak"] - start["rss"] > 30 << 10
    assert quiet["stage_peak"] - start["rss"] < 16 << 10
    assert quiet["rss_peak"] == loud["rss_peak"] == loud["stage_peak"]


def test_pss_is_read_again_only_where_rss_has_moved(
    looks: list[dict[str, int | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([1000, 1000 + process.PSS_STEP, 1001 + process.PSS_STEP, 1001, 936])
    monkeypatch.setattr(process, "_kib", lambda text, key: next(sizes) if b"RSS" in key else 0)
    # _kib also takes PSS out of its file, so that is answered here.
    monkeypatch.setattr(process, "_rollup", lambda: looks.append({"pss": 7}) or {"pss": 7})
    memory = process.Memory()
    counts = []
    for _ in range(5):
        assert memory.read()["pss"] == 7
        counts.append(len(looks))
    # Small steps in one direction add up: what counts is the distance from where PSS was read.
    assert counts == [1, 1, 2, 2, 3]


def test_growth_shows_in_pss(looks: list[dict[str, int | None]]) -> None:
    memory = process.Memory()
    before = memory.read()["pss"]
    held = mmap.mmap(-1, 32 << 20)  # fresh pages, where an array may take those that another test has given back
    held.write(b"\1" * len(held))
    after = memory.read()["pss"]
    assert before is not None
    assert after is not None
    assert after - before > len(held) / 1024 * 0.9
    assert len(looks) == 2


def test_it_can_be_read_whatever_rss_says(looks: list[dict[str, int | None]]) -> None:
    memory = process.Memory()
    memory.read()
    memory.read(anew=True)
    assert len(looks) == 2
