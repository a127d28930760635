"""Cases from the user's files: .npz files, a folder of them, a test folder in MNN's own layout, or pictures.

Files are untrusted: nothing is unpickled, sizes are bounded before anything is read, and a name inside a file never
leads out of its folder.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgequant.cases.case import MAX_CASE_BYTES, Case, fit, shape_text
from edgequant.cases.folder import listed, there
from edgequant.cases.pictures import SUFFIXES as PICTURES
from edgequant.cases.pictures import PictureFile, find_pictures
from edgequant.errors import InputError
from edgequant.files import atomic_write, open_file, read_bounded
from edgequant.spec import first_problem
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

MAX_CASES = 10_000
_NOTES = (".txt", ".md", ".json")


@dataclass(frozen=True)
class CaseFile:
    """A case that is still on disk: an .npz file, or a folder in MNN's own layout."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem if _is_npz(self.path) and self.path.is_file() else self.path.name or "case"

    def load(self, inputs: Sequence[TensorSpec]) -> Case:
        """Read it, checked against the model's `inputs`.  Raises InputError, see `load_cases`."""
        if _is_npz(self.path) and self.path.is_file():
            return _npz_case(self.path, inputs)
        return _mnn_folder(self.path, inputs)


def load_cases(path: Path, inputs: Sequence[TensorSpec], images: ImageOptions | None = None) -> list[Case]:
    """The cases at `path` in name order, checked against the model's `inputs`.

    Args:
        images: what becomes of pictures.

    Raises InputError: INPUTS_NOT_FOUND, INPUTS_EMPTY, INPUTS_TOO_MANY, INPUTS_DUPLICATE, INPUTS_FORMAT,
    INPUT_FILE_INVALID, INPUT_TOO_LARGE, what `fit` raises, and of pictures PILLOW_MISSING, IMAGE_...
    """
    return [file.load(inputs) for file in find_cases(path, images)]


def find_cases(
    path: Path, images: ImageOptions | None = None, *, most: int = MAX_CASES
) -> list[CaseFile] | list[PictureFile]:
    """The cases at `path` in name order, .npz files first; none of them is read.

    Args:
        images: what becomes of pictures.
        most: refuse more.

    Raises InputError: INPUTS_NOT_FOUND, INPUTS_EMPTY, INPUTS_TOO_MANY, INPUTS_DUPLICATE, INPUTS_FORMAT.
    """
    there(path)
    pictures = find_pictures(path)
    if pictures is not None:
        if pictures.left_out:
            raise _unused(pictures.left_out[0], "no picture of a kind that is read")
        _refuse_more(path, len(pictures.files), most)
        _refuse_twice(path, [file.stem for file in pictures.files])
        return [PictureFile(file, images or ImageOptions()) for file in pictures.files]
    if path.is_dir():
        entries = listed(path)
        if (path / "input.json").is_file():
            _refuse_cases_beside_input_json(path, entries)
            return [CaseFile(path)]
        _refuse_more(path, sum(map(_is_npz, entries)), most)  # before each of them is looked at
        files, folders = _sorted_out(path, entries)
        _refuse_more(path, len(files) + len(folders), most)
        _refuse_twice(path, [file.stem for file in files] + [folder.name for folder in folders])
        return [CaseFile(file) for file in (*files, *folders)]
    if _is_npz(path) and path.is_file():
        return [CaseFile(path)]
    if path.name == "input.json" and path.is_file():
        return [CaseFile(path.parent)]
    raise InputError(
        "INPUTS_FORMAT",
        f"{path}: {'' if path.is_file() else 'not a file, so '}not an .npz file, a folder of them, an MNN test folder, "
        "or pictures",
        hint="Save inputs with numpy.savez('case.npz', **{'input name': array, ...})",
    )


def _refuse_more(path: Path, count: int, most: int) -> None:
    if count > most:
        raise InputError("INPUTS_TOO_MANY", f"{path}: more than {most} cases")


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            "INPUTS_DUPLICATE",
            f"{path}: there are several files or folders for '{twice[0]}'; a case's name is unique",
        )


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _sorted_out(path: Path, entries: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The .npz files and the MNN test folders of an inputs folder.  Whatever else is there must not look like a case:
    a release checked with half of its cases is not what the user asked for."""
    files, folders, others = [], [], []
    for entry in entries:
        if not entry.exists():
            raise _unused(entry, "a link to nothing")
        if _is_npz(entry) and entry.is_file():
            files.append(entry)
        elif entry.is_dir() and (entry / "input.json").is_file():
            _refuse_cases_beside_input_json(entry, _inside(entry))
            folders.append(entry)
        elif _is_npz(entry) or entry.name == "input.json":
            raise _unused(entry, "not a file")
        elif os.path.lexists(entry / "input.json"):
            raise _unused(entry / "input.json", "not a file")
        elif entry.is_dir() and (what := _looked_for_higher(_inside(entry))):
            raise _unused(entry, f"a folder with {what}, which are only looked for one level higher")
        elif entry.is_dir() or not (entry.suffix.lower() in _NOTES or entry.stem.upper() == "README"):
            others.append(entry)
    if not files and not folders:
        raise InputError(
            "INPUTS_EMPTY",
            f"{path}: neither .npz files nor MNN test folders (with input.json) nor pictures in it",
            hint="Save one .npz per case: numpy.savez('case1.npz', **{'input name': array, ...})",
        )
    if others:
        raise _unused(others[0], "neither an .npz file nor an MNN test folder (with input.json)")
    return files, folders


def _looked_for_higher(entries: Sequence[Path]) -> str:
    if any(map(_is_npz, entries)):
        return ".npz files"
    if any((entry / "input.json").exists() for entry in entries):
        return "MNN test folders"
    return "pictures" if any(entry.suffix.lower() in PICTURES for entry in entries) else ""


def _refuse_cases_beside_input_json(folder: Path, entries: Sequence[Path]) -> None:
    for entry in entries:
        if _is_npz(entry) or (entry / "input.json").exists():
            raise _unused(entry, f"beside {folder / 'input.json'}, which makes its whole folder one case")


def _inside(folder: Path) -> list[Path]:
    try:
        return listed(folder)
    except InputError as error:
        raise _unused(folder, error.message.removeprefix(f"{folder}: ")) from None


def _unused(entry: Path, why: str) -> InputError:
    return InputError(
        "INPUTS_FORMAT",
        f"{entry}: {why}; it would not be used",
        hint="Move it out of the inputs folder; notes (.txt, .md, .json, README) and hidden files may stay.",
    )


def _npz_case(path: Path, inputs: Sequence[TensorSpec]) -> Case:
    specs = {spec.name: spec for spec in inputs}

    def check(name: str, shape: tuple[int, ...]) -> None:
        # Before there are values: a few bytes of a compressed file can stand for gigabytes.
        if name in specs and not _shape_fits(shape, specs[name]) and shape != (1,):
            raise InputError(
                "INPUT_SHAPE",
                f"{path}: input '{name}' has shape {list(shape)}, the model takes {shape_text(specs[name])}",
            )

    return fit(path.stem, read_npz(path, check=check), inputs, str(path))


def read_npz(
    path: Path, *, max_bytes: int = MAX_CASE_BYTES, check: Callable[[str, tuple[int, ...]], None] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.  Raises InputError (INPUT_FILE_INVALID, INPUT_TOO_LARGE) instead of anything else.

    Args:
        max_bytes: of all of them, unpacked.
        check: is called with name and shape of each before its values are read; what it raises ends it.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            # The declared sizes: a small file may unpack to terabytes.
            if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
                raise InputError("INPUT_TOO_LARGE", f"{path}: unpacks to more than {max_bytes >> 20} MiB")
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"'{name}' is in it twice")
                with archive.open(entry) as stream:
                    shape, dtype = _header(stream)
                    if dtype.hasobject:
                        raise ValueError("it holds Python objects, which are never unpickled")
                    if math.prod(shape) * dtype.itemsize > entry.file_size:
                        raise ValueError(f"'{name}' has fewer values than its shape {list(shape)}")
                    if check is not None:
                        check(name, shape)
                with archive.open(entry) as stream:
                    arrays[name] = npy_format.read_array(stream, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (damaged files make zipfile and NumPy raise a dozen unrelated classes)
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError("INPUT_FILE_INVALID", f"{path}: not a usable .npz file ({why})") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputError("INPUT_FILE_INVALID", f"{path}: '{name}' holds {array.dtype}, not numbers")
    return arrays


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and element type of an .npy, of which nothing more is read."""
    version = npy_format.read_magic(stream)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


class _MnnInput(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)
    name: str = Field(min_length=1, max_length=1000)
    shape: list[int] | None = Field(default=None, max_length=32)
    value: float | None = None


class _MnnFolder(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)
    inputs: list[_MnnInput] = Field(min_length=1, max_length=10_000)


def _mnn_folder(folder: Path, inputs: Sequence[TensorSpec]) -> Case:
    """MNN's layout: input.json names inputs and shapes, NAME.txt holds the values as text, one after the other."""
    path = folder / "input.json"
    try:
        described = _MnnFolder.model_validate(json.loads(read_bounded(path, 1 << 20).decode("utf-8")))
    except ValidationError as error:
        raise InputError("INPUT_FILE_INVALID", f"{path}: {first_problem(error)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("INPUT_FILE_INVALID", f"{path}: {getattr(error, 'strerror', None) or error}") from None
    specs = {spec.name: spec for spec in inputs}
    arrays: dict[str, Any] = {}
    total = 0
    for entry in described.inputs:
        if entry.name in arrays:
            raise InputError("INPUT_FILE_INVALID", f"{path}: input '{entry.name}' is in it twice")
        spec = specs.get(entry.name)
        if spec is None:
            arrays[entry.name] = np.zeros(())  # `fit` names the unknown input
            continue
        shape = entry.shape if entry.shape is not None else [size or 1 for size in spec.shape or ()]
        if any(not 0 < size <= MAX_CASE_BYTES for size in shape):
            raise InputError("INPUT_SHAPE", f"{path}: input '{entry.name}' has shape {shape}")
        # Before there are values: a few bytes of JSON can ask for any amount of memory.
        if not _shape_fits(shape, spec):
            raise InputError(
                "INPUT_SHAPE",
                f"{path}: input '{entry.name}' has shape {shape}, the model takes {shape_text(spec)}",
            )
        # 8 bytes: numbers are float64 or int64 until they have the model's own type.
        total += math.prod(shape) * 8
        if total > MAX_CASE_BYTES:
            raise InputError(
                "INPUT_TOO_LARGE", f"{path}: input '{entry.name}' makes it larger than {MAX_CASE_BYTES >> 20} MiB"
            )
        arrays[entry.name] = _mnn_values(folder, entry, shape, spec.dtype)
    return fit(folder.name or "case", arrays, inputs, str(path))


def _shape_fits(shape: Sequence[int], spec: TensorSpec) -> bool:
    if spec.shape is None or (spec.shape == () and list(shape) == [1]):
        return True
    return len(shape) == len(spec.shape) and all(
        want is None or have == want for have, want in zip(shape, spec.shape, strict=True)
    )


def _mnn_values(folder: Path, entry: _MnnInput, shape: Sequence[int], dtype: str) -> np.ndarray:
    count = math.prod(shape)
    if entry.value is not None:
        value = _as_dtype(np.asarray(entry.value), dtype, f"{folder / 'input.json'}: input '{entry.name}'")
        return np.broadcast_to(value, shape)
    try:
        # Not joined with /, which a name that starts with a slash would throw the folder away: MNN does not either.
        source = Path(f"{folder}/{entry.name}.txt").resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise InputError("INPUT_FILE_INVALID", f"{folder}: input '{entry.name}': {error}") from None
    if not source.is_relative_to(folder.resolve()):
        raise InputError("INPUT_FILE_INVALID", f"{folder}: input '{entry.name}' points out of the folder")
    try:
        # 64 characters are more than any number numpy.savetxt writes.
        with open_file(source) as file:
            if file.seek(0, 2) > 64 * count + 4096:
                raise InputError("INPUT_SHAPE", f"{source}: more values than the shape {list(shape)} holds")
            file.seek(0)
            words = file.read().decode("ascii").split()
        values = np.array([float(word) for word in words], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError("INPUT_FILE_INVALID", f"{source}: {getattr(error, 'strerror', None) or error}") from None
    if values.size != count:
        raise InputError("INPUT_SHAPE", f"{source}: {values.size} values, the shape {list(shape)} holds {count}")
    return _as_dtype(values.reshape(shape), dtype, f"{source}: input '{entry.name}'")


def _as_dtype(values: np.ndarray, dtype: str, what: str) -> np.ndarray:
    """Numbers written as text, where the model's own type decides, as it does in MNN; `fit` checks their range."""
    if np.dtype(dtype).kind in "iu":
        if not (np.abs(values) < 2.0**63).all():  # false for NaN too
            raise InputError("INPUT_VALUE", f"{what} holds values that {dtype} cannot hold")
        return np.asarray(values.astype(np.int64))
    return np.asarray(values != 0) if dtype == "bool" else values


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as .npz, whole or not at all.  Names may be anything a tensor is called."""
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as entry:
                npy_format.write_array(entry, np.asanyarray(array), allow_pickle=False)
