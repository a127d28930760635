"""How far this host strays from itself when inputs move by next to nothing: with the real runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.cases.case import Case
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.probes.rounding import NOISE, RoundingProbe, moved
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import ModelFile, take
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName

PICTURE = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    options = DeviceOptions(work_dir=str(tmp_path / "work"))
    with open_session("local:", options, RunOptions(threads=1), log=tmp_path / "runner.log") as found:
        yield found


def test_noise_moves_each_number_a_little_and_a_step_one_number_by_one_step() -> None:
    case = Case("a", {"x": PICTURE, "n": np.arange(4), "zeros": np.zeros((2, 2), np.float32)}, "made here")
    found = list(moved(case, 2, 1))
    assert [by for by, _ in found] == ["noise", "noise", "step"]
    noise, again, step = (each.inputs for _, each in found)
    assert all(each.inputs["n"] is case.inputs["n"] and each.inputs["x"].dtype == np.float32 for _, each in found)
    scale = np.maximum(np.abs(PICTURE), np.sqrt(np.mean(PICTURE**2)))
    assert 0.9 * NOISE < np.max(np.abs(noise["x"] - PICTURE) / scale) <= 1.01 * NOISE
    assert np.count_nonzero(noise["x"] != PICTURE) > 0.9 * PICTURE.size
    assert not np.array_equal(noise["x"], again["x"])
    assert 0 < np.abs(noise["zeros"]).max() <= NOISE
    changed = np.flatnonzero(step["x"] != PICTURE)
    assert len(changed) == 1
    assert abs(step["x"] - PICTURE).max() == pytest.approx(np.ptp(PICTURE) / 255, rel=1e-3)
    assert np.abs(step["zeros"]).max() == pytest.approx(1 / 255)
    repeated = [each.inputs["x"] for _, each in moved(case, 2, 1)]
    assert all(map(np.array_equal, repeated, (noise["x"], again["x"], step["x"]))), "the same for the same case"
    assert list(moved(Case("a", {"n": np.arange(4)}, "made here"), 2, 1)) == []


def test_each_case_is_tried_as_it_is_run_and_with_memory_normal(
    session: Session, generated_model: ModelByName, as_mnn: Callable[..., Path]
) -> None:
    model = ModelFile(as_mnn(generated_model("conv_cnn")), "low")
    cases = [Case("a", {"x": PICTURE}, "made here"), Case("refused", {"x": np.ones((1, 5, 32, 32), np.float32)}, "")]
    probes = [NormalProbe(), RoundingProbe(int8=True)]
    found = take(session, model, cases, probes, MemoryArrays(), trial="t", role="variant-host")
    assert found.failure is None
    told = [(each.case, each.by, each.memory) for each in found.moved]
    assert told == [("a", "noise", "low")] * 3 + [("a", "step", "low")] * 3 + [("a", "noise", "normal")] * 2
    levels = {by: [each.outputs["y"].sqnr_db for each in found.moved if each.by == by] for by in ("noise", "step")}
    # The file is float: noise of 2^-16 leaves about 100 dB, one step in 3072 numbers about 70.
    assert all(85 < (level or 0) < 125 for level in levels["noise"])
    assert all(45 < (level or 0) < 100 for level in levels["step"])
    plain = take(session, ModelFile(model.path, "normal"), cases[:1], [RoundingProbe(int8=False)], MemoryArrays(),
                 trial="t", role="variant-host")  # fmt: skip
    assert [(each.by, each.memory) for each in plain.moved] == [("noise", "normal")] * 3
