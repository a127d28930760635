"""How far this host strays from itself when inputs move by next to nothing: with the real runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import CaseCapture
from edgequant.cases.case import Case
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.probes.rounding import FLOAT_NOISE, INT8_NOISE, NOISES, STEPPED, TRIES, RoundingProbe, flags, moved
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import ModelFile, take
from edgequant.models.mnn.nudge import nudged, to_nudge
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.defects import tagger

PICTURE = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    options = DeviceOptions(work_dir=str(tmp_path / "work"))
    with open_session("local:", options, RunOptions(threads=1), log=tmp_path / "runner.log") as found:
        yield found


def test_noise_moves_each_number_a_little_and_a_step_one_number_by_one_step() -> None:
    case = Case("a", {"x": PICTURE, "n": np.arange(4), "zeros": np.zeros((2, 2), np.float32)}, "made here")
    found = list(moved(case, int8=True))
    assert [by for by, _ in found] == ["noise"] * NOISES + ["step"] * STEPPED
    assert [by for by, _ in moved(case, int8=False)] == ["noise"] * NOISES
    noise, again, step = found[0][1].inputs, found[1][1].inputs, found[-1][1].inputs
    assert all(each.inputs["n"] is case.inputs["n"] and each.inputs["x"].dtype == np.float32 for _, each in found)
    scale = np.maximum(np.abs(PICTURE), np.sqrt(np.mean(PICTURE**2)))
    floats = next(each.inputs for _, each in moved(case, int8=False))
    for size, inputs in ((INT8_NOISE, noise), (FLOAT_NOISE, floats)):
        assert 0.9 * size < np.max(np.abs(inputs["x"] - PICTURE) / scale) <= 1.01 * size
        assert 0 < np.abs(inputs["zeros"]).max() <= size
    assert np.count_nonzero(noise["x"] != PICTURE) > 0.9 * PICTURE.size
    assert not np.array_equal(noise["x"], again["x"])
    changed = np.flatnonzero(step["x"] != PICTURE)
    assert len(changed) == 1
    assert abs(step["x"] - PICTURE).max() == pytest.approx(np.ptp(PICTURE) / 255, rel=1e-3)
    assert np.abs(step["zeros"]).max() == pytest.approx(1 / 255)
    assert [by for by, _ in moved(case, int8=True, half=True)] == ["noise"] * (NOISES // 2) + ["step"] * (STEPPED // 2)
    repeated = [each.inputs["x"] for _, each in moved(case, int8=True)]
    first = [each.inputs["x"] for _, each in found]
    assert all(map(np.array_equal, repeated, first)), "the same for the same case"
    assert list(moved(Case("a", {"n": np.arange(4)}, "made here"), int8=True)) == []


def test_each_case_is_tried_as_it_is_run_and_with_memory_normal(
    session: Session, generated_model: ModelByName, as_mnn: Callable[..., Path]
) -> None:
    model = ModelFile(as_mnn(generated_model("conv_cnn")), "low")
    cases = [Case("a", {"x": PICTURE}, "made here"), Case("refused", {"x": np.ones((1, 5, 32, 32), np.float32)}, "")]
    probes = [NormalProbe(), RoundingProbe(int8=True)]
    found = take(session, model, cases, probes, MemoryArrays(), trial="t", role="variant-host")
    assert found.failure is None
    told = [(each.case, each.by, each.memory) for each in found.moved]
    low = [("a", "noise", "low")] * NOISES + [("a", "step", "low")] * STEPPED
    assert told == [*low, *[("a", "noise", "normal")] * (NOISES // 2)]
    # Of a float file memory low computes what memory normal does, so that both distances are one.
    for each in found.moved:
        output = each.outputs["y"]
        assert output.rounding_db == (output.sqnr_db if each.memory == "low" else None)
    levels = {
        (by, memory): [each.outputs["y"].sqnr_db or 0 for each in found.moved if (each.by, each.memory) == (by, memory)]
        for by, memory in {(each.by, each.memory) for each in found.moved}
    }
    # The file is float: noise that is 24 dB less leaves so much more, and one number in 3072 is moved by little.
    gained = np.mean(levels["noise", "normal"]) - np.mean(levels["noise", "low"])
    assert 18 < gained < 30
    assert all(30 < level < 110 for level in levels["step", "low"])
    plain = take(session, ModelFile(model.path, "normal"), cases[:1], [RoundingProbe(int8=False)], MemoryArrays(),
                 trial="t", role="variant-host")  # fmt: skip
    assert [(each.by, each.memory) for each in plain.moved] == [("noise", "normal")] * NOISES
    assert all(each.outputs["y"].rounding_db is None for each in plain.moved)
    # Where memory normal is int8 as well, it is held against float MNN.
    arrays = MemoryArrays()
    floats = [CaseCapture(case="a", outputs={"y": arrays.put(np.full((1, 10), 100, np.float32))})]
    probe = RoundingProbe(int8=True, floats=floats)
    static = take(session, ModelFile(model.path, "normal"), cases[:1], [probe], arrays, trial="t", role="variant-host")
    assert all(each.outputs["y"].rounding_db == pytest.approx(0, abs=1) for each in static.moved)


def test_masks_and_flags_stay_as_they_are() -> None:
    ones, half, additive = np.ones((2, 4), np.float32), np.array([1, 0, 1, 0], np.float32), np.zeros(4, np.float32)
    additive[2:] = -10000
    infinite = np.where(additive < 0, -np.inf, 0).astype(np.float32)
    still = {"mask": ones, "infinite": infinite, "state": 0 * half}
    cases = [
        {"x": PICTURE, "added": additive, "three": 2 * half + ones[0], **still},
        {"x": 0 * PICTURE, "added": 0 * additive, "three": half + half[::-1] * np.float32(0.5), **still},
    ]
    found = flags(cases)
    assert found == {"mask", "added", "infinite"}, "silence is moved, and so are states"
    for arrays in cases:
        for _, near in moved(Case("a", arrays, "made here"), int8=True, exact=found):
            same = {name for name, array in arrays.items() if np.array_equal(near.inputs[name], array)}
            assert found <= same
            assert "x" not in same
    assert list(moved(Case("a", {"mask": ones}, "made here"), int8=True, exact={"mask"})) == []


def test_where_ids_are_looked_up_the_table_is_moved(
    session: Session, as_mnn: Callable[..., Path], tmp_path: Path
) -> None:
    source = tagger.make(tmp_path / "tagger.onnx", masked=True)
    model = ModelFile(as_mnn(source, "--weightQuantBits", "8"), "low")
    before = model.path.read_bytes()
    cases = [Case(name, arrays, "made here") for name, arrays in tagger.cases(masked=True).items()][:2]
    found = take(session, model, cases, [NormalProbe(), RoundingProbe(int8=True)], MemoryArrays(), trial="t",
                 role="variant-host")  # fmt: skip
    assert found.failure is None
    told = Counter((each.case, each.by, each.memory) for each in found.moved)
    assert told == {(name, "noise", memory): tries for name in ("c0", "c1") for memory, tries in
                    (("low", TRIES), ("normal", NOISES // 2))}  # fmt: skip
    for each in found.moved:
        level = each.outputs["tags"].sqnr_db or 0.0
        assert (25 < level < 60) if each.memory == "low" else (70 < level < 110), "a mask that is moved leaves less"
    assert model.path.read_bytes() == before


def test_only_tables_that_are_looked_up_and_biases_are_moved(as_mnn: Callable[..., Path], tmp_path: Path) -> None:
    path = as_mnn(tagger.make(tmp_path / "tagger.onnx", masked=True), "--weightQuantBits", "8")
    data, places = path.read_bytes(), to_nudge(path)
    assert places[0][1] == tagger.ROWS * tagger.SIZE
    other = nudged(data, places, INT8_NOISE, np.random.default_rng(0))
    assert len(other) == len(data)
    inside = np.zeros(len(data), bool)
    for start, count in places:
        inside[start : start + 4 * count] = True
        one, two = (np.frombuffer(each, "<f4", count, start) for each in (data, other))
        scale = np.maximum(np.abs(one), np.sqrt(np.mean(np.square(one))))
        assert np.all(np.abs(two - one) <= 1.01 * INT8_NOISE * scale)
    changed = np.frombuffer(data, np.uint8) != np.frombuffer(other, np.uint8)
    assert changed[inside].any()
    assert not changed[~inside].any()
    start, count = places[0]
    assert not np.array_equal(*(np.frombuffer(each, "<f4", count, start) for each in (data, other)))


def test_a_file_without_such_tables_is_not_moved(
    session: Session, generated_model: ModelByName, as_mnn: Callable[..., Path]
) -> None:
    model = ModelFile(as_mnn(generated_model("conv_cnn")), "normal")
    assert to_nudge(model.path) == []
    case = Case("a", {"x": np.sign(PICTURE)}, "made here")
    assert flags([case.inputs]) == {"x"}
    found = take(session, model, [case], [RoundingProbe(int8=False)], MemoryArrays(), trial="t", role="variant-host")
    assert len(found.moved) == NOISES, "a picture of black and white is moved: there is nothing else"
