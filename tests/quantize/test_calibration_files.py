"""Calibration files that are none, that never end or unpack to too much, and every type of number in them."""

from __future__ import annotations

import json
import os
import socket
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.errors import InputError
from tests.quantize.support import PICTURE, function, load, refused


def test_nothing_there(tmp_path: Path) -> None:
    refused("CALIBRATION_NOT_FOUND", tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    refused("CALIBRATION_EMPTY", tmp_path / "empty", tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    refused("CALIBRATION_FILE", tmp_path / "broken.npz", tmp_path)
    (tmp_path / "data.csv").write_text("1,2")
    refused("CALIBRATION_FORMAT", tmp_path / "data.csv", tmp_path)


def circle(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("kind", ["fifo", "zero", "socket", "circle"])
@pytest.mark.parametrize("name", ["x.npz", "t/input.json", "t/feat_erb.txt", "x.png"])
def test_what_has_no_end_is_refused_at_once(kind: str, name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / name).parent.mkdir(parents=True)
    shapes = [{"name": "feat_erb", "shape": [1, 1, 5, 4]}, {"name": "feat_spec", "shape": [1, 2, 5, 3], "value": 0}]
    if name.endswith(".txt"):
        (data / "t" / "input.json").write_text(json.dumps({"inputs": shapes}))
    make = {"fifo": os.mkfifo, "zero": lambda path: path.symlink_to("/dev/zero"), "circle": circle, "socket": listen}
    make[kind](data / name)
    with pytest.raises(InputError) as caught:
        load(data, tmp_path)
    assert caught.value.code in ("CALIBRATION_FORMAT", "CALIBRATION_FILE", "CALIBRATION_EMPTY")
    assert Path(name).stem in str(caught.value)


def listen(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:
        # Not by its own path, which may be longer than a socket's can be.
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".npz", "n" * 300 + ".png", "nul\0byte"])
def test_names_no_file_can_have(name: str, tmp_path: Path) -> None:
    refused("CALIBRATION_NOT_FOUND", tmp_path / name, tmp_path)
    refused("CALIBRATION_NOT_FOUND", name, tmp_path)


def test_a_long_name_with_a_colon_is_a_function_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no module" in str(refused("CALIBRATION_FUNCTION", "n" * 300 + ":make", tmp_path))


def test_a_small_file_of_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    zeros = np.zeros((1, 4, 4096, 4096), np.float32)
    np.savez_compressed(tmp_path / "bomb.npz", x=zeros)
    del zeros
    tracemalloc.start()
    try:
        error = refused("CALIBRATION_SHAPE", tmp_path / "bomb.npz", tmp_path, (PICTURE,))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert "[1, 4, 4096, 4096]" in str(error)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_way_to_store_real_numbers(dtype: str, order: str, tmp_path: Path) -> None:
    values = np.linspace(-2, 2, 1 * 3 * 8 * 6).reshape(1, 3, 8, 6)
    save_npz(tmp_path / "a.npz", {"x": np.asarray(values, dtype, order=order)})  # type: ignore[call-overload]
    array = load(tmp_path / "a.npz", tmp_path, (PICTURE,)).read(0).inputs["x"]
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert np.allclose(array, values, atol=2e-3)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "complex64", "U1", "V4"])
def test_what_is_no_real_number_is_refused(dtype: str, tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", {"x": np.zeros((1, 3, 8, 6), dtype)})
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.npz", tmp_path, (PICTURE,))
    assert caught.value.code in ("CALIBRATION_DTYPE", "CALIBRATION_FILE")
    assert "'x'" in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([print], dtype=object))
    assert "never unpickled" in str(refused("CALIBRATION_FILE", tmp_path / "a.npz", tmp_path, (PICTURE,)))


def test_hints_name_every_form_there_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "data.csv").write_text("1")
    refusals = [
        refused("CALIBRATION_NOT_FOUND", tmp_path / "nowhere", tmp_path),
        refused("CALIBRATION_EMPTY", tmp_path / "empty", tmp_path),
        refused("CALIBRATION_FORMAT", tmp_path / "data.csv", tmp_path),
        refused("CALIBRATION_EMPTY", function(tmp_path, "    return []\n"), tmp_path),
    ]
    for error in refusals:
        for form in (".npz file", "folder of them", "MNN test folders", "pictures", "module:function", "one dict per"):
            assert form in str(error.hint), error.as_dict()
    assert "yields, or returns a list of, one dict per sample" in str(
        refused("CALIBRATION_FUNCTION", function(tmp_path, "    return 1\n"), tmp_path).hint
    )
