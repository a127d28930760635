"""Cases from the user's files, and what is wrong with files."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgequant.cases.case import Case, fit
from edgequant.cases.load import load_cases, read_npz, save_npz
from edgequant.errors import InputError
from edgequant.tensors import DTYPES, TensorSpec

X = (TensorSpec("x", "float32", (1, 4)),)
TWO = (
    TensorSpec("a", "float32", (1, None), (None, "S")),
    TensorSpec("b", "int64", (None,), ("S",)),
)


def problem(work: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        work()
    return caught.value


def one(path: Path, inputs: tuple[TensorSpec, ...] = X) -> Case:
    (case,) = load_cases(path, inputs)
    return case


# ---- .npz


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


def good(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as stream:  # NumPy would add .npz
        np.savez(stream, x=np.zeros((1, 4), np.float32))


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


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(text: str) -> bytes:
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def zipped(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return path


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.link, (__file__, str(self.trace))


def test_pickles_are_never_unpacked(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    array = np.empty(1, object)
    array[0] = Bomb(trace)
    error = problem(lambda: read_npz(zipped(tmp_path / "x.npz", x=npy(array))))
    assert error.code == "INPUT_FILE_INVALID"
    assert "never unpickled" in str(error)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb(trace)))
    assert problem(lambda: read_npz(tmp_path / "plain.npz")).code == "INPUT_FILE_INVALID"
    assert not trace.exists()


DESCR = "{'descr': %s, 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "text": b"1 2 3 4",
        "no header": b"\x93NUMPY\x01\x00\xff\xff",
        "version": b"\x93NUMPY\x09\x00\x02\x00{}",
        "no dict": npy_header("5"),
        "code": npy_header("__import__('os').system('true')"),
        "brackets": npy_header("(" * 9000),
        "nested": npy_header("[" * 80 + "]" * 80),
        "missing keys": npy_header("{}"),
        "shape": npy_header(DESCR % ("'<f4'", "4")),
        "negative": npy_header(DESCR % ("'<f4'", "(-1,)")),
        "float size": npy_header(DESCR % ("'<f4'", "(1.5,)")),
        "giant": npy_header(DESCR % ("'<f4'", "(1000000000000,)")),
        "beyond 64 bits": npy_header(DESCR % ("'<f4'", f"({10**30},)")),
        "overflowing": npy_header(DESCR % ("'<f4'", f"({2**32}, {2**32})")),
        "dtype": npy_header(DESCR % ("'nonsense'", "(1,)")),
        "no dtype": npy_header(DESCR % ("()", "(1,)")),
        "odd dtype": npy_header(DESCR % ("(1, 2)", "(1,)")),
        "cut": npy(np.zeros(100))[:-1],
        "text array": npy(np.array(["a"])),
        "record": npy(np.zeros(2, "i4,f4")),
        "date": npy(np.zeros(2, "M8[s]")),
        "complex": npy(np.zeros(2, complex)),
    }.items(),
    ids=lambda item: item[0],
)
def test_entries_that_are_no_arrays(tmp_path: Path, data: tuple[str, bytes]) -> None:
    path = zipped(tmp_path / "x.npz", x=data[1])
    error = problem(lambda: read_npz(path))
    assert error.code == "INPUT_FILE_INVALID"
    assert str(path) in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + bytes(100), bytes(10_000)])
def test_files_that_are_no_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    assert problem(lambda: read_npz(tmp_path / "x.npz")).code == "INPUT_FILE_INVALID"


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.npz").mkdir()
    assert problem(lambda: read_npz(tmp_path / "x.npz")).code == "INPUT_FILE_INVALID"


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.arange(200, dtype=np.float32), y=np.eye(5))
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        try:
            assert all(array.dtype.kind in "fiub" for array in read_npz(path).values())
        except InputError as error:
            refused += error.code in ("INPUT_FILE_INVALID", "INPUT_TOO_LARGE")
    assert refused > 300


def test_a_zip_bomb(tmp_path: Path) -> None:
    # 3 GiB of zeros, deflated block by block: the same few bytes again and again.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    header = packer.compress(npy_header(DESCR % ("'|u1'", f"({3 << 30},)"))) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    path = zipped(tmp_path / "x.npz", x=header + block * (3 << 6) + packer.flush())
    data = bytearray(path.read_bytes())
    for start, method, size in ((0, 8, 22), (data.index(b"PK\x01\x02"), 10, 24)):
        data[start + method] = zipfile.ZIP_DEFLATED
        data[start + size : start + size + 4] = struct.pack("<I", (3 << 30) + 100)
    path.write_bytes(data)
    assert path.stat().st_size < 8 << 20
    assert problem(lambda: read_npz(path)).code == "INPUT_TOO_LARGE"


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", x=npy(np.zeros(1000, np.uint8)))
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 100)
    path.write_bytes(data)
    assert problem(lambda: read_npz(path)).code == "INPUT_FILE_INVALID"


def test_the_same_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy(np.zeros(1)))
        archive.writestr("x", npy(np.ones(1)))
    assert "'x' is in it twice" in str(problem(lambda: read_npz(tmp_path / "x.npz")))


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", x=npy(np.zeros(1)))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert problem(lambda: read_npz(path)).code == "INPUT_FILE_INVALID"


# ---- saving


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).filter(
            lambda name: not name.endswith(".npy")
        ),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=5)),
        max_size=4,
    )
)
def test_what_is_saved_is_read(tmp_path: Path, wanted: dict[str, tuple[str, list[int]]]) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: np.asarray(rng.integers(0, 2, shape)).astype(dtype) for name, (dtype, shape) in wanted.items()}
    save_npz(tmp_path / "x.npz", arrays)
    found = read_npz(tmp_path / "x.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["/enc/Conv_0", "x:0", "a/b/../c", "\u4e2d\u00e4", "..", "a b\n", "C:\\x", "x.npy.x"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.npz"
    save_npz(path, {name: np.array([np.nan, 1.5], np.float32)})
    assert list(read_npz(path)) == [name]
    assert np.load(path)[name][1] == 1.5
    before = path.read_bytes()
    save_npz(path, {name: np.array([np.nan, 1.5], np.float32)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]


def test_objects_are_not_saved(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"old")
    with pytest.raises(ValueError, match="pickle"):
        save_npz(tmp_path / "x.npz", {"x": np.array([{}])})
    assert (tmp_path / "x.npz").read_bytes() == b"old"


# ---- fitting to the model


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


# ---- MNN's own test folders


def mnn_folder(folder: Path, **tensors: np.ndarray) -> Path:
    """A folder as MNN's testMNNFromOnnx.py writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for name, array in tensors.items():
        described.append({"name": name, "shape": list(array.shape)})
        file = Path(f"{folder}/{name}.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(file, array.flatten())
    (folder / "input.json").write_text(json.dumps({"inputs": described, "outputs": ["y"]}))
    np.savetxt(folder / "y.txt", np.zeros(4))
    return folder


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


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_nan_is_refused_and_counted(tmp_path: Path, dtype: str) -> None:
    save_npz(tmp_path / "a.npz", {"x": np.array([1, np.nan, np.nan], dtype)})
    with pytest.raises(InputError) as caught:
        load_cases(tmp_path / "a.npz", (TensorSpec("x", dtype, (3,)),))
    assert caught.value.code == "INPUT_NAN"
    assert "'x' holds 2 NaN" in str(caught.value)
