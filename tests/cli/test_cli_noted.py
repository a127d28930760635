"""A run that has ended is noted where that is wanted; its folder says what it holds; its verdict hangs on neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.history.store import History, Wanted
from edgequant.jobs.integrity import check
from tests.beds.models import ModelByName
from tests.cli.command import edgequant

QUICK = ("--device", "local:", "--threads", "1", "--no-latency", "--variant", "float")


def test_verify(generated_model: ModelByName, tmp_path: Path) -> None:
    model, run, db = str(generated_model("conv_cnn")), tmp_path / "run", tmp_path / "h.sqlite"
    done = edgequant("verify", model, *QUICK, "--run-dir", str(run), "--history", str(db))
    assert done.code == 0, done.err
    (entry,) = History(db).find(Wanted())
    assert (entry.folder, entry.verdict, entry.trials[0].variant) == (str(run), "PASS", "float")
    found = check(run)
    assert found.holds, found
    assert found.listed
    again = edgequant("verify", "--resume", str(run), EDGEQUANT_HISTORY=str(tmp_path))
    assert again.code == 0, again.err
    assert "edgequant: the run is not in the history: HISTORY_INVALID" in again.err
    assert check(run).holds


@pytest.mark.nightly
def test_quantize_and_bench(generated_model: ModelByName, tmp_path: Path) -> None:
    model, db = str(generated_model("conv_cnn")), tmp_path / "h.sqlite"
    made = (
        "-o",
        str(tmp_path / "o.mnn"),
        "--run-dir",
        str(tmp_path / "q"),
        "--openmetrics",
        str(tmp_path / "q" / "m.txt"),
    )
    assert edgequant("quantize", model, *made, EDGEQUANT_HISTORY=str(db)).code == 0
    few = ("--blocks", "3", "--seconds", "0", "--runs", "3", "--warm-up", "0.1", "--run-dir", str(tmp_path / "b"))
    assert edgequant("bench", model, "--device", "local:", *few, "--history", str(db)).code in (0, 4)
    assert {each.kind for each in History(db).find(Wanted())} == {"quantize", "bench"}
    for name in ("q", "b"):
        assert check(tmp_path / name).differences == ()
    trend = edgequant("history", "plot", "latency_p50_ms", "--db", str(db), "--model", "conv_cnn", "--device", "local:")
    assert trend.code in (0, 2)  # 2 where nothing could be timed
