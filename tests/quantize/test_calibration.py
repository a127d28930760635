"""Calibration data in arrays and MNN's test folders, good and bad, against real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.errors import InputError
from edgequant.tensors import TensorSpec
from tests.quantize.support import BOTH, codes, folder_of, load, refused, sample


def test_a_folder_with_several_shapes_is_read_in_order_again_and_again(tmp_path: Path) -> None:
    given = [sample(steps, seed) for seed, steps in enumerate((5, 7, 5))]
    found = load(folder_of(tmp_path / "data", *given), tmp_path)
    assert len(found) == 3
    assert found.findings == ()
    for _ in range(2):
        for case, arrays in zip(found, given, strict=True):
            assert all(np.array_equal(case.inputs[name], arrays[name]) for name in arrays)
    assert sorted(found.shapes.values()) == [1, 2]
    assert found.shapes[found.facts[0].shapes] == 2
    assert found.facts[1].largest[0] == pytest.approx(float(np.abs(given[1]["feat_erb"]).max()))
    assert [case.name for case in found.only([2, 0])] == ["s002", "s000"]


def test_samples_takes_the_first_and_says_when_there_are_fewer(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", *(sample(5, seed) for seed in range(4)))
    assert len(load(data, tmp_path, samples=3)) == 3
    assert codes(load(data, tmp_path, samples=9)) == ["CALIBRATION_FEW"]
    for samples in (0, -1, 10**6):
        refused("CALIBRATION_SAMPLES", data, tmp_path, samples=samples)


def test_a_bad_sample_behind_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", sample(), sample(seed=1), {"wrong": np.zeros(3)})
    assert len(load(data, tmp_path, samples=2)) == 2
    refused("CALIBRATION_NAMES", data, tmp_path)


def test_one_npz_is_one_sample_and_that_is_said(tmp_path: Path) -> None:
    save_npz(tmp_path / "one.npz", sample())
    found = load(tmp_path / "one.npz", tmp_path)
    assert len(found) == 1
    assert codes(found) == ["CALIBRATION_FEW"]


def test_mnn_test_folders(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(2):
        folder = data / f"case{number}"
        folder.mkdir(parents=True)
        arrays = sample(3, number)
        listed = [{"name": name, "shape": list(array.shape)} for name, array in arrays.items()]
        (folder / "input.json").write_text(json.dumps({"inputs": listed}))
        for name, array in arrays.items():
            np.savetxt(folder / f"{name}.txt", array.ravel())
    found = load(data, tmp_path)
    assert [case.name for case in found] == ["case0", "case1"]
    assert np.allclose(found.read(1).inputs["feat_spec"], sample(3, 1)["feat_spec"])


def test_a_misspelt_input_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    arrays = sample()
    arrays["feat_erbs"] = arrays.pop("feat_erb")
    error = refused("CALIBRATION_NAMES", folder_of(tmp_path / "data", arrays), tmp_path)
    assert "feat_erbs" in str(error)
    assert "Did you mean 'feat_erb'?" in (error.hint or "")


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    arrays = sample()
    del arrays["feat_spec"]
    error = refused("CALIBRATION_NAMES", folder_of(tmp_path / "data", sample(), arrays), tmp_path)
    assert "s001.npz" in str(error)
    assert "feat_spec" in str(error)


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((1, 1, 5, 3), np.float32)}),
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((8, 1, 5, 4), np.float32)}),
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((1, 1, 6, 4), np.float32)}),
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((1, 1, 0, 4), np.float32)}),
        ("CALIBRATION_DTYPE", {"feat_erb": np.zeros((1, 1, 5, 4), np.int32)}),
        ("CALIBRATION_DTYPE", {"feat_erb": np.full((1, 1, 5, 4), 1e300)}),
        ("CALIBRATION_NAN", {"feat_erb": np.full((1, 1, 5, 4), np.nan, np.float32)}),
        ("CALIBRATION_NAN", {"feat_erb": np.full((1, 1, 5, 4), -np.inf, np.float32)}),
    ],
)
def test_what_does_not_fit_is_refused_with_sample_and_input_named(
    code: str, changed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", sample(5, 1), sample(5, 2, **changed))
    error = refused(code, data, tmp_path)
    assert "s001.npz" in str(error)
    assert "feat_erb" in str(error)
    assert error.hint


def test_a_constant_input_is_told_and_a_mode_is_not(tmp_path: Path) -> None:
    flat = np.full((1, 1, 5, 4), 0.25, np.float32)
    rate = TensorSpec("sr", "int64", ())
    given = [sample(5, seed, feat_erb=flat, sr=np.array(16000)) for seed in range(3)]
    found = load(folder_of(tmp_path / "data", *given), tmp_path, (*BOTH, rate))
    assert codes(found) == ["CALIBRATION_CONSTANT"]
    assert found.findings[0].where == "feat_erb"


def test_constant_samples_that_differ_are_not_constant(tmp_path: Path) -> None:
    given = [sample(5, n, feat_erb=np.full((1, 1, 5, 4), n, np.float32)) for n in range(2)]
    assert codes(load(folder_of(tmp_path / "data", *given), tmp_path)) == []


def test_whole_numbers_float32_cannot_hold_are_told(tmp_path: Path) -> None:
    ids = TensorSpec("ids", "int64", (1, 2))
    given = [{"ids": np.array([[n, (1 << 24) + 1]])} for n in range(2)]
    assert codes(load(folder_of(tmp_path / "data", *given), tmp_path, (ids,))) == ["CALIBRATION_INEXACT"]


def test_a_file_that_changes_between_two_passes_is_noticed(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", sample(), sample(seed=1))
    found = load(data, tmp_path)
    save_npz(data / "s001.npz", sample(9, 1))
    assert found.read(0).name == "s000"
    with pytest.raises(InputError) as caught:
        list(found)
    assert caught.value.code == "CALIBRATION_CHANGED"


def test_random_data_is_made_and_never_in_silence(tmp_path: Path) -> None:
    found = load(None, tmp_path, samples=3, seed=7)
    assert codes(found) == ["CALIBRATION_RANDOM"]
    assert len(found) == 3
    assert found.findings[0].severity == "warn"
    values = [case.inputs["feat_erb"] for case in found]
    assert not np.array_equal(values[0], values[1])
    assert np.array_equal(values[0], load(None, tmp_path, seed=7).read(0).inputs["feat_erb"])
