"""Arrays against the model's inputs: values, shapes and names that fit, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.cases.case import fit
from edgequant.tensors import TensorSpec
from tests.cases.support import TWO, X, problem


def fitted(array: object, dtype: str = "float32", shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    return fit("c", {"x": np.asarray(array)}, [TensorSpec("x", dtype, shape)], "file.npz").inputs["x"]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1.5, np.inf, -np.inf]), "float32"),
        (np.array([1e-50, 0.1]), "float32"),
        (np.array([1.5, -2], np.float16), "float64"),
        (np.array([1.5], ">f4"), "float32"),
        (np.array([-128, 127]), "int8"),
        (np.array([0, 2**62]), "uint64"),
        (np.array([0, 1]), "bool"),
        (np.array([True, False]), "uint8"),
        (np.array([255], np.uint8), "int64"),
        (np.asfortranarray(np.eye(3)), "float64"),
        (np.array([], np.float64), "float32"),
    ],
    ids=str,
)
def test_values_that_fit(array: np.ndarray, dtype: str) -> None:
    found = fitted(array, dtype)
    assert found.dtype == np.dtype(dtype)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array.astype(dtype))


@pytest.mark.parametrize(
    ("array", "dtype", "code"),
    [
        (np.array([1e39]), "float32", "INPUT_VALUE"),
        (np.array([70000.0]), "float16", "INPUT_VALUE"),
        (np.array([128]), "int8", "INPUT_VALUE"),
        (np.array([-1]), "uint8", "INPUT_VALUE"),
        (np.array([-1]), "uint64", "INPUT_VALUE"),
        (np.array([2**63], np.uint64), "int64", "INPUT_VALUE"),
        (np.array([2]), "bool", "INPUT_VALUE"),
        (np.array([-1]), "bool", "INPUT_VALUE"),
        (np.array([1.0]), "int64", "INPUT_DTYPE"),
        (np.array([1]), "float32", "INPUT_DTYPE"),
        (np.array([True]), "float32", "INPUT_DTYPE"),
        (np.array(["1"]), "float32", "INPUT_DTYPE"),
        (np.array([1j]), "float32", "INPUT_DTYPE"),
        (np.array([None]), "float32", "INPUT_DTYPE"),
    ],
    ids=str,
)
def test_values_that_do_not(array: np.ndarray, dtype: str, code: str) -> None:
    error = problem(lambda: fitted(array, dtype))
    assert error.code == code
    assert str(error).startswith("file.npz: input 'x' ")
    assert dtype in str(error.hint)


def test_rank_0() -> None:
    assert fitted(np.array([5]), "int64", ()).shape == ()
    assert fitted(np.array(5), "int64", ()).shape == ()
    assert fitted(np.array(5), "int64", ()).dtype == np.int64
    assert problem(lambda: fitted(np.array([5, 6]), "int64", ())).code == "INPUT_SHAPE"
    assert problem(lambda: fitted(np.array(5), "int64", (1,))).code == "INPUT_SHAPE"


def test_shapes() -> None:
    assert fitted(np.zeros((2, 3)), shape=(None, 3)).shape == (2, 3)
    for shape in ((2, 4), (2,), (1, 2, 3), (0, 3)):
        error = problem(lambda shape=shape: fitted(np.zeros(shape), shape=(None, 3)))
        assert error.code == "INPUT_SHAPE"
        assert "file.npz: input 'x'" in str(error)
    assert fitted(np.zeros((7, 7)), shape=None).shape == (7, 7)


def test_a_past_may_be_empty() -> None:
    assert fitted(np.zeros((1, 0, 4)), shape=(1, None, 4)).shape == (1, 0, 4)
    assert fitted(np.zeros((1, 0, 4)), shape=(None, None, 4)).shape == (1, 0, 4)
    for given, shape in (((0, 2, 4), (None, None, 4)), ((1, 0), (1, 0))):
        assert problem(lambda given=given, shape=shape: fitted(np.zeros(given), shape=shape)).code == "INPUT_SHAPE"


def test_one_symbol_one_size() -> None:
    good = {"a": np.zeros((1, 3), np.float32), "b": np.zeros(3, np.int64)}
    assert fit("c", good, TWO, "f").shapes == {"a": (1, 3), "b": (3,)}
    error = problem(lambda: fit("c", {**good, "b": np.zeros(4, np.int64)}, TWO, "f"))
    assert str(error) == "f: 'S' is 3 in input 'a' and 4 in 'b'; it is one size"


def test_names() -> None:
    array = np.zeros((1, 4), np.float32)
    unknown = problem(lambda: fit("c", {"x": array, "y": array}, X, "f.npz"))
    assert (unknown.code, str(unknown)) == ("INPUT_UNKNOWN", "f.npz: the model has no input 'y'")
    assert unknown.hint == "Its inputs are x."
    missing = problem(lambda: fit("c", {}, X, "f.npz"))
    assert (missing.code, str(missing)) == ("INPUT_MISSING", "f.npz: no data for input x")


def test_too_large_a_case() -> None:
    giant = np.broadcast_to(np.float32(0), (1 << 20, 1 << 10))
    assert problem(lambda: fit("c", {"x": giant}, [TensorSpec("x", "float32", None)], "f")).code == "INPUT_TOO_LARGE"
