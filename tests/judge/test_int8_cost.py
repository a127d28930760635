"""How much error int8 makes on the device, against how much it makes on this host: a fault in the midst of a model that
leaves no trace in an output but that there is more of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import FileFacts, Moved, Strayed
from edgequant.judge.verdict import Verdict
from edgequant.spec import RunOptions
from tests.judge.archives import BOARD, Archive, codes, only

SIGNAL = {f"c{number}": np.random.default_rng(number).standard_normal(400).astype(np.float32) for number in range(3)}
Error = dict[str, dict[str, np.ndarray]]


def rounded(seed: int, db: float, names: Any = tuple(SIGNAL)) -> Error:
    """Another rounding of each case, of so many dB: most of it is what any machine makes, the rest is chance."""
    common, rng = np.random.default_rng(7), np.random.default_rng([7, seed])
    shared, own = (7e-4**0.5, (10 ** (-db / 10) - 7e-4) ** 0.5)
    every = {name: (common.standard_normal(400), rng.standard_normal(400)) for name in SIGNAL}
    return {
        name: {"y": SIGNAL[name] + (shared * every[name][0] + own * every[name][1]).astype(np.float32)}
        for name in names
    }


def moved(decibels: list[float], memory: str = "low", names: Any = tuple(SIGNAL)) -> tuple[Moved, ...]:
    """What rounding leaves in each try, and it may carry the output as far as that."""
    return tuple(
        Moved(case=name, by="noise", memory=memory, outputs={"y": Strayed(sqnr_db=27.0, rounding_db=each)})
        for name in names
        for each in decibels
    )


TRIES = [29.9, 30.0, 30.1, 30.0, 29.95, 30.05]


def run(path: Path, there: Error, tries: list[float] | None = None, *, static: bool = False, **asked: Any) -> Archive:
    """A file whose int8 costs 30 dB on this host."""
    true = {name: {"y": SIGNAL[name]} for name in there}
    variant = "static:8" if static else "dynamic:8"
    archive = Archive(path, variant, devices=(BOARD,), reference=true, **asked)
    archive.made(variant, facts=FileFacts(weights="quantized", static_tensors=int(static)))
    plain: dict[str, Any] = {"memory_mode": "normal"} if static else {"memory_mode": "low", "normal": true}
    tried = moved(TRIES if tries is None else tries, plain["memory_mode"], tuple(there))
    archive.on_host(variant, rounded(1, 30, tuple(there)), moved=tried, **plain)
    archive.on_device(BOARD, variant, there, **plain)
    return archive


@pytest.mark.parametrize("static", [False, True])
def test_a_device_that_makes_more_error_than_rounding_fails(tmp_path: Path, static: bool) -> None:
    """By 2 dB, and inside of the band of 19 dB: nothing else says a word."""
    trial = only(run(tmp_path, rounded(2, 28), static=static))
    assert (trial.verdict, codes(trial)) == (Verdict.FAIL, ["DEVICE_INT8_WORSE"])
    (finding,) = trial.findings
    assert finding.where == "y"
    cost = finding.evidence["outputs"]["y"]
    assert cost["beyond_db"] == pytest.approx(2, abs=0.4)
    assert 0.5 < cost["bound_db"] < 2
    assert "over 3 cases" in finding.message
    # Its healthy twin is as far from this host, and makes no more error.
    sound = only(run(tmp_path / "sound", rounded(2, 30), static=static))
    assert (sound.verdict, codes(sound)) == (Verdict.PASS, [])


def test_what_this_host_varies_by_is_allowed(tmp_path: Path) -> None:
    wide = [28.0, 31.0, 29.0, 31.5, 30.0, 32.0]
    assert codes(only(run(tmp_path, rounded(2, 28), wide))) == []
    # Two cases: both have to show it; one: by twice as much.
    one = rounded(2, 28) | {"c0": rounded(2, 30)["c0"]}
    assert codes(only(run(tmp_path / "two", {name: one[name] for name in ("c0", "c1")}))) == []
    assert codes(only(run(tmp_path / "one", rounded(2, 28.6, ("c1",))))) == []
    assert codes(only(run(tmp_path / "far", rounded(2, 23, ("c1",))))) == ["DEVICE_INT8_WORSE"]


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    worse = rounded(2, 27)
    assert codes(only(run(tmp_path, worse))) == ["DEVICE_INT8_WORSE"]
    assert codes(only(run(tmp_path / "older", worse, []))) == []
    low = run(tmp_path / "fp16", worse, options=RunOptions(precision="low"))
    assert "DEVICE_INT8_WORSE" not in codes(only(low))
    assert codes(only(run(tmp_path / "asked", worse, limits=("device_sqnr_db>=10",)))) == []
