"""Archives of arrays: what is saved is read again, and a damaged or evil file is refused."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgequant.cases.load import read_npz, save_npz
from edgequant.errors import InputError
from edgequant.tensors import DTYPES
from tests.cases.support import problem


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


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
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
