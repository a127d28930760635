"""MNN's own test folders: `input.json`, and a text file for each input."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import load_cases
from edgequant.tensors import TensorSpec
from tests.cases.support import TWO, X, mnn_folder, one, problem


def test_mnn_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {"a": rng.standard_normal((1, 5)).astype(np.float32), "b": np.array([0, -3, 7, 2**40, 1])}
    folder = mnn_folder(tmp_path / "case", **given)
    for path in (folder, folder / "input.json"):
        case = one(path, TWO)
        assert case.name == "case"
        assert np.array_equal(case.inputs["a"], given["a"])
        assert np.array_equal(case.inputs["b"], given["b"])
        assert case.inputs["b"].dtype == np.int64


def test_mnn_folders_in_a_folder(tmp_path: Path) -> None:
    for name in ("two", "one"):
        mnn_folder(tmp_path / name, x=np.ones((1, 4), np.float32))
    np.savez(tmp_path / "zero.npz", x=np.zeros((1, 4), np.float32))
    assert [case.name for case in load_cases(tmp_path, X)] == ["zero", "one", "two"]


@pytest.mark.parametrize("name", ["enc/input.1", "/enc/input", "x:0", "a b", "deep/er/and/deeper"])
def test_mnn_names(tmp_path: Path, name: str) -> None:
    array = np.arange(4, dtype=np.float32).reshape(1, 4)
    case = one(mnn_folder(tmp_path / "c", **{name: array}), (TensorSpec(name, "float32", (1, 4)),))
    assert np.array_equal(case.inputs[name], array)


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        ("bool", np.array([[True, False]])),
        ("uint8", np.array([[0, 255]], np.uint8)),
        ("int32", np.array([[-5, 5]], np.int32)),
        ("float16", np.array([[0.5, -2]], np.float16)),
        ("float32", np.array([[-np.inf, np.inf]], np.float32)),
    ],
)
def test_mnn_types(tmp_path: Path, dtype: str, array: np.ndarray) -> None:
    case = one(mnn_folder(tmp_path / "c", x=array), (TensorSpec("x", dtype, (1, 2)),))
    assert case.inputs["x"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(case.inputs["x"], array)


def test_mnn_rank_0(tmp_path: Path) -> None:
    case = one(mnn_folder(tmp_path / "c", x=np.array(16000)), (TensorSpec("x", "int64", ()),))
    assert case.inputs["x"].shape == ()
    assert case.inputs["x"] == 16000


def described(folder: Path, inputs: object, text: str | None = "1 2 3 4") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "input.json").write_text(json.dumps({"inputs": inputs}))
    if text is not None:
        (folder / "x.txt").write_text(text)
    return folder


def test_mnn_without_a_shape_or_a_file(tmp_path: Path) -> None:
    assert one(described(tmp_path / "a", [{"name": "x"}])).inputs["x"].tolist() == [[1, 2, 3, 4]]
    folder = described(tmp_path / "b", [{"name": "x", "shape": [1, 4], "value": 0.5}], None)
    assert one(folder).inputs["x"].tolist() == [[0.5] * 4]


@pytest.mark.parametrize(
    ("inputs", "text", "code"),
    [
        ([{"name": "x", "shape": [1, 4]}], "1 2 3", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [1, 4]}], "1 2 3 4 5", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [1, 4]}], "1 " * 10_000, "INPUT_SHAPE"),
        ([{"name": "x", "shape": [1, 4]}], "1 2 three 4", "INPUT_FILE_INVALID"),
        ([{"name": "x", "shape": [1, 4]}], "1 2 \u0663 4", "INPUT_FILE_INVALID"),
        ([{"name": "x", "shape": [1, 4]}], None, "INPUT_FILE_INVALID"),
        ([{"name": "x", "shape": [1, 4]}], "1 2 3 1e39", "INPUT_VALUE"),
        ([{"name": "x", "shape": [4]}], "1 2 3 4", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [1, -4]}], "1 2 3 4", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [0]}], "", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [2**31, 2**31]}], "1", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [2**31 - 1] * 32}], "1", "INPUT_SHAPE"),
        ([{"name": "x", "shape": [1, 4], "value": 1}, {"name": "x", "shape": [1, 4]}], "1 2 3 4", "INPUT_FILE_INVALID"),
        ([{"name": "x", "shape": [10**30]}], "1", "INPUT_SHAPE"),
        ([{"name": "x", "shape": "big"}], "1", "INPUT_FILE_INVALID"),
        ([{"name": "z", "shape": [1, 4]}], "1 2 3 4", "INPUT_UNKNOWN"),
        ([{"name": ""}], "1", "INPUT_FILE_INVALID"),
        ([{}], "1", "INPUT_FILE_INVALID"),
        ([], "1", "INPUT_FILE_INVALID"),
        ("x", "1", "INPUT_FILE_INVALID"),
    ],
)
def test_mnn_folders_that_do_not_fit(tmp_path: Path, inputs: object, text: str | None, code: str) -> None:
    folder = described(tmp_path / "c", inputs, text)
    error = problem(lambda: load_cases(folder, X))
    assert error.code == code
    assert str(folder) in str(error)


@pytest.mark.parametrize(
    ("inputs", "shape", "code"),
    [
        ([{"name": "x", "shape": [600_000_000], "value": 1}], (1, 4), "INPUT_SHAPE"),
        ([{"name": "x", "shape": [600_000_000], "value": 1}], (4,), "INPUT_SHAPE"),
        ([{"name": "x", "shape": [600_000_000], "value": 1}], (None,), "INPUT_TOO_LARGE"),
        ([{"name": "x", "shape": [300_000_000], "value": 1}], None, "INPUT_TOO_LARGE"),
        ([{"name": "x", "shape": [2**31, 2**31]}], (None, None), "INPUT_TOO_LARGE"),
        ([{"name": "x", "shape": [2**31 - 1] * 32}], None, "INPUT_TOO_LARGE"),
        ([{"name": n, "shape": [200_000_000], "value": 1} for n in "xy"], (None,), "INPUT_TOO_LARGE"),
        ([{"name": "x", "shape": [200_000_000], "value": 1}] * 2, (None,), "INPUT_FILE_INVALID"),
    ],
)
def test_a_few_bytes_do_not_take_gigabytes(
    tmp_path: Path, inputs: object, shape: tuple[int | None, ...] | None, code: str
) -> None:
    folder = described(tmp_path / "c", inputs, None)
    specs = [TensorSpec(name, "float32", shape) for name in "xy"]
    tracemalloc.start()
    try:
        assert problem(lambda: load_cases(folder, specs)).code == code
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_mnn_one_value_for_all(tmp_path: Path) -> None:
    folder = described(tmp_path / "c", [{"name": "x", "shape": [2, 3], "value": 7}], None)
    for dtype in ("float16", "float32", "int64", "uint8"):
        found = one(folder, (TensorSpec("x", dtype, (None, 3)),)).inputs["x"]
        assert (found.dtype.name, found.tolist()) == (dtype, [[7] * 3] * 2)
        assert found.flags.c_contiguous


@pytest.mark.parametrize("text", ["nan", "inf", "1e30", "-1e19", "9223372036854775808"])
def test_mnn_whole_numbers_that_are_none(tmp_path: Path, text: str) -> None:
    spec = (TensorSpec("x", "int64", (1,)),)
    folder = described(tmp_path / "c", [{"name": "x", "shape": [1]}], text)
    assert problem(lambda: load_cases(folder, spec)).code == "INPUT_VALUE"
    value = described(tmp_path / "v", [{"name": "x", "shape": [1], "value": float(text)}], None)
    assert problem(lambda: load_cases(value, spec)).code == "INPUT_VALUE"


def test_mnn_whole_numbers_out_of_range(tmp_path: Path) -> None:
    folder = described(tmp_path / "c", [{"name": "x", "shape": [1]}], "300")
    assert problem(lambda: load_cases(folder, (TensorSpec("x", "uint8", (1,)),))).code == "INPUT_VALUE"


@pytest.mark.parametrize(
    "json_text", ["", "[", "[]", '{"inputs": 1}', "[" * 100_000, "\ufeff{}", '{"inputs": [{"name": 1}]}']
)
def test_mnn_json_that_is_none(tmp_path: Path, json_text: str) -> None:
    (tmp_path / "input.json").write_text(json_text)
    error = problem(lambda: load_cases(tmp_path, X))
    assert error.code == "INPUT_FILE_INVALID"
    assert "input.json" in str(error)


def test_mnn_json_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(" " * (1 << 20) + "{}")
    assert "larger than 1 MiB" in str(problem(lambda: load_cases(tmp_path, X)))


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "link", "nul\0byte", "n" * 900])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("1 2 3 4")
    folder = described(tmp_path / "c", [{"name": name, "shape": [1, 4]}], None)
    (folder / "sub").mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    error = problem(lambda: load_cases(folder, (TensorSpec(name, "float32", (1, 4)),)))
    assert error.code == "INPUT_FILE_INVALID"


def test_a_pipe_in_a_folder(tmp_path: Path) -> None:
    folder = described(tmp_path / "c", [{"name": "x", "shape": [1, 4]}], None)
    os.mkfifo(folder / "x.txt")
    assert problem(lambda: load_cases(folder, X)).code == "INPUT_FILE_INVALID"
