"""Arrays of a run: kept once, read back as they were, and never anything else."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.arrays import ArrayFolder, described
from edgequant.archive.types import ArrayRef
from edgequant.errors import ToolError
from edgequant.tensors import DTYPES


@pytest.fixture
def folder(tmp_path: Path) -> ArrayFolder:
    return ArrayFolder(tmp_path / "arrays")


def unreadable(path: Path, ref: ArrayRef) -> str:
    """What is said of an array that is not what it was; asked of a folder that has it nowhere in memory."""
    with pytest.raises(ToolError) as caught:
        ArrayFolder(path).get(ref)
    assert caught.value.code == "CAPTURE_UNREADABLE"
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (2, 0, 3)])
def test_every_kind_comes_back(folder: ArrayFolder, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    ref = folder.put(array)
    assert (ref.dtype, ref.shape) == (dtype, shape)
    back = ArrayFolder(folder.folder).get(ref)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    assert np.load(folder.path(ref), allow_pickle=False).tobytes() == array.tobytes()
    assert hashlib.sha256(folder.path(ref).read_bytes()).hexdigest() == ref.sha256


def test_the_same_content_is_kept_once(folder: ArrayFolder) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    other_order = np.asfortranarray(array)
    big_endian = array.astype(">f4")
    assert folder.put(array) == folder.put(other_order) == folder.put(big_endian) == folder.put(array.copy())
    assert folder.put(array.reshape(4, 3)) != folder.put(array)
    assert len(list(folder.folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "bytes"),
        (lambda data: b"", "bytes"),
        (lambda data: data + b"x" * (1 << 17), "bytes"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "contents"),
        (lambda data: data + b"x", "contents"),
        (lambda data: b"\x93NUMPX" + data[6:], "contents"),
    ],
)
def test_damaged(folder: ArrayFolder, damage: Callable[[bytes], bytes], said: str) -> None:
    ref = folder.put(np.arange(100, dtype=np.float32))
    path = folder.path(ref)
    path.write_bytes(damage(path.read_bytes()))
    assert said in unreadable(folder.folder, ref)


def test_missing_or_something_else(folder: ArrayFolder) -> None:
    ref = folder.put(np.arange(100, dtype=np.float32))
    folder.path(ref).unlink()
    assert "No such file" in unreadable(folder.folder, ref)
    folder.path(ref).mkdir()
    unreadable(folder.folder, ref)


def test_a_reference_that_says_something_else(folder: ArrayFolder) -> None:
    ref = folder.put(np.arange(6, dtype=np.float32).reshape(2, 3))
    for lie in ({"shape": (3, 2)}, {"dtype": "int32"}, {"dtype": "object"}, {"dtype": "V4"}, {"shape": (2, 1 << 62)}):
        unreadable(folder.folder, ref.model_copy(update=lie))


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_nothing_pickled_is_loaded(folder: ArrayFolder, tmp_path: Path) -> None:
    """Not even where hash and size are right: whoever made the folder made those too."""
    sprung = tmp_path / "sprung"
    trap = np.empty(1, dtype=object)
    trap[0] = _Trap(str(sprung))
    stream = io.BytesIO()
    np.save(stream, trap, allow_pickle=True)
    folder.folder.mkdir()
    for data in (stream.getvalue(), pickle.dumps(_Trap(str(sprung)))):
        sha = hashlib.sha256(data).hexdigest()
        (folder.folder / f"{sha}.npy").write_bytes(data)
        for dtype, size in (("uint8", len(data)), ("uint8", 1), ("object", 1)):
            unreadable(folder.folder, ArrayRef(sha256=sha, dtype=dtype, shape=(size,)))
    assert not sprung.exists()
    pickle.loads(pickle.dumps(_Trap(str(sprung))))
    assert sprung.exists()


def test_described_without_a_folder(folder: ArrayFolder) -> None:
    array = np.linspace(0, 1, 7)
    assert described(array)[0] == folder.put(array)
