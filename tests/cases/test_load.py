"""Cases from the user's files: which are taken, in which order, and that none is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import load_cases, save_npz
from edgequant.errors import InputError
from edgequant.tensors import TensorSpec
from tests.cases.support import TWO, X, good, mnn_folder, one, problem


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "case 1.npz"
    np.savez(path, a=np.ones((1, 3), np.float32), b=np.arange(3))
    case = one(path, TWO)
    assert (case.name, case.source, case.generated) == ("case 1", str(path), False)
    assert case.shapes == {"a": (1, 3), "b": (3,)}
    assert case.inputs["b"].tolist() == [0, 1, 2]


def test_npz_compressed(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((1, 4), np.float32))
    assert one(path).shapes == {"x": (1, 4)}


def test_a_folder_in_name_order(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=np.full((1, 4), ord(name), np.float32))
    for note in ("notes.txt", "README", "readme.rst", "a.md", "meta.json", ".hidden.npz"):
        (tmp_path / note).write_text("not a case")
    cases = load_cases(tmp_path, X)
    assert [case.name for case in cases] == ["a", "b", "c"]
    assert [case.inputs["x"][0, 0] for case in cases] == [97, 98, 99]


def test_nothing_there(tmp_path: Path) -> None:
    assert problem(lambda: load_cases(tmp_path / "no.npz", X)).code == "INPUTS_NOT_FOUND"
    assert problem(lambda: load_cases(tmp_path / ("n" * 300), X)).code == "INPUTS_NOT_FOUND"
    empty = problem(lambda: load_cases(tmp_path, X))
    assert empty.code == "INPUTS_EMPTY"
    assert "numpy.savez" in str(empty.hint)
    (tmp_path / "x.csv").write_text("1,2")
    assert problem(lambda: load_cases(tmp_path / "x.csv", X)).code == "INPUTS_FORMAT"


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    assert problem(lambda: load_cases(tmp_path / "x.npz", X)).code == "INPUTS_FORMAT"
    assert problem(lambda: load_cases(tmp_path, X)).code == "INPUTS_FORMAT"


def test_upper_case_is_an_npz_too(tmp_path: Path) -> None:
    good(tmp_path / "A.NPZ")
    good(tmp_path / "b.npz")
    assert [case.name for case in load_cases(tmp_path, X)] == ["A", "b"]
    assert one(tmp_path / "A.NPZ").name == "A"
    good(tmp_path / "A.npz")
    assert problem(lambda: load_cases(tmp_path, X)).code == "INPUTS_DUPLICATE"


@pytest.mark.parametrize("beside", ["a.npz", "a/input.json"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("z.npz", lambda path: path.symlink_to("nowhere.npz")),
        ("z", lambda path: path.symlink_to("nowhere")),
        ("z.npz", lambda path: path.mkdir()),
        ("z.npz", lambda path: os.mkfifo(path)),
        ("more", lambda path: good(path / "b.npz")),
        ("more", lambda path: good(path / "B.NPZ")),
        ("more", lambda path: (path / "c").mkdir(parents=True) or (path / "c" / "input.json").touch()),
        ("more", lambda path: path.mkdir()),
        ("z.npy", lambda path: path.touch()),
        ("z.npz.gz", lambda path: path.touch()),
    ],
)
def test_nothing_is_left_out_in_silence(tmp_path: Path, name: str, make: Callable[[Path], object], beside: str) -> None:
    if beside == "a.npz":
        good(tmp_path / beside)
    else:
        mnn_folder(tmp_path / "a", x=np.zeros((1, 4), np.float32))
    make(tmp_path / name)
    error = problem(lambda: load_cases(tmp_path, X))
    assert error.code == "INPUTS_FORMAT"
    assert str(error).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("name", ["b.npz", "b.NPZ", "sub/input.json"])
@pytest.mark.parametrize("level", [".", "case"])
def test_cases_beside_an_input_json(tmp_path: Path, name: str, level: str) -> None:
    folder = mnn_folder(tmp_path / level, x=np.zeros((1, 4), np.float32))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    error = problem(lambda: load_cases(tmp_path, X))
    assert error.code == "INPUTS_FORMAT"
    assert name.split("/")[0] in str(error)


def test_two_cases_of_one_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 4), np.float32))
    mnn_folder(tmp_path / "a", x=np.zeros((1, 4), np.float32))
    assert problem(lambda: load_cases(tmp_path, X)).code == "INPUTS_DUPLICATE"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_nan_is_refused_and_counted(tmp_path: Path, dtype: str) -> None:
    save_npz(tmp_path / "a.npz", {"x": np.array([1, np.nan, np.nan], dtype)})
    with pytest.raises(InputError) as caught:
        load_cases(tmp_path / "a.npz", (TensorSpec("x", dtype, (3,)),))
    assert caught.value.code == "INPUT_NAN"
    assert "'x' holds 2 NaN" in str(caught.value)
