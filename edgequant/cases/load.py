"""Cases from the user's files: .npz files, a folder of them, or a test folder in MNN's own layout.

Files are untrusted: nothing is unpickled, sizes are bounded before anything is read, and a name inside a file never
leads out of its folder.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgequant.cases.case import MAX_CASE_BYTES, Case, fit, shape_text
from edgequant.errors import InputError
from edgequant.spec import first_problem
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


def load_cases(path: Path, inputs: Sequence[TensorSpec]) -> list[Case]:
    """The cases at `path` in name order, checked against the model's `inputs`.

    Raises InputError: INPUTS_NOT_FOUND, INPUTS_EMPTY, INPUTS_TOO_MANY, INPUTS_DUPLICATE, INPUTS_FORMAT,
    INPUT_FILE_INVALID, INPUT_TOO_LARGE, and what `fit` raises.
    """
    return [file.load(inputs) for file in find_cases(path)]


def find_cases(path: Path) -> list[CaseFile]:
    """The cases at `path` in name order, .npz files first; none of them is read.

    Raises InputError: INPUTS_NOT_FOUND, INPUTS_EMPTY, INPUTS_TOO_MANY, INPUTS_DUPLICATE, INPUTS_FORMAT.
    """
    try:
        found = path.exists()
        listed = list(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise InputError("INPUTS_NOT_FOUND", f"{path}: {error.strerror}") from None
    if not found:
        raise InputError("INPUTS_NOT_FOUND", f"{path}: no such file or folder")
    if path.is_dir():
        if (path / "input.json").is_file():
            _refuse_cases_beside_input_json(path, listed)
            return [CaseFile(path)]
        files, folders = _sorted_out(path, listed)
        if len(files) + len(folders) > MAX_CASES:
            raise InputError("INPUTS_TOO_MANY", f"{path}: more than {MAX_CASES} cases")
        names = Counter([file.stem for file in files] + [folder.name for folder in folders])
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            raise InputError(
                "INPUTS_DUPLICATE",
                f"{path}: there are several .npz files or folders for '{twice[0]}'; a case's name is unique",
            )
        return [CaseFile(file) for file in (*files, *folders)]
    if _is_npz(path) and path.is_file():
        return [CaseFile(path)]
    if path.name == "input.json" and path.is_file():
        return [CaseFile(path.parent)]
    raise InputError(
        "INPUTS_FORMAT",
        f"{path}: not an .npz file, a folder of them, or an MNN test folder",
        hint="Save inputs with numpy.savez('case.npz', **{'input name': array, ...})",
    )


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _sorted_out(path: Path, listed: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The .npz files and the MNN test folders of an inputs folder.  Whatever else is there must not look like a case:
    a release checked with half of its cases is not what the user asked for."""
    files, folders, others = [], [], []
    for entry in sorted(listed):
        if entry.name.startswith("."):
            continue
        if not entry.exists():
            raise _unused(entry, "a link to nothing")
        if _is_npz(entry) and entry.is_file():
            files.append(entry)
        elif entry.is_dir() and (entry / "input.json").is_file():
            _refuse_cases_beside_input_json(entry, _listed(entry))
            folders.append(entry)
        elif _is_npz(entry):
            raise _unused(entry, "not a file")
        elif entry.is_dir() and any(_is_npz(inner) for inner in _listed(entry)):
            raise _unused(entry, "a folder with .npz files, which are only looked for one level higher")
        elif entry.is_dir() and any((inner / "input.json").exists() for inner in _listed(entry)):
            raise _unused(entry, "a folder with MNN test folders, which are only looked for one level higher")
        elif entry.is_dir() or not (entry.suffix.lower() in _NOTES or entry.stem.upper() == "README"):
            others.append(entry)
    if not files and not folders:
        raise InputError(
            "INPUTS_EMPTY",
            f"{path}: neither .npz files nor MNN test folders (with input.json) in it",
            hint="Save one .npz per case: numpy.savez('case1.npz', **{'input name': array, ...})",
        )
    if others:
        raise _unused(others[0], "neither an .npz file nor an MNN test folder (with input.json)")
    return files, folders


def _refuse_cases_beside_input_json(folder: Path, listed: Sequence[Path]) -> None:
    for entry in sorted(listed):
        if not entry.name.startswith(".") and (_is_npz(entry) or (entry / "input.json").exists()):
            raise _unused(entry, f"beside {folder / 'input.json'}, which makes its whole folder one case")


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _unused(folder, str(error.strerror)) from None


def _unused(entry: Path, why: str) -> InputError:
    return InputError(
        "INPUTS_FORMAT",
        f"{entry}: {why}; it would not be used",
        hint="Move it out of the inputs folder; notes (.txt, .md, .json, README) and hidden files may stay.",
    )


def _npz_case(path: Path, inputs: Sequence[TensorSpec]) -> Case:
    return fit(path.stem, read_npz(path), inputs, str(path))


def read_npz(path: Path, *, max_bytes: int = MAX_CASE_BYTES) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.  Raises InputError (INPUT_FILE_INVALID, INPUT_TOO_LARGE) instead of anything else."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            # The declared sizes: a small file may unpack to terabytes.
            if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
                raise InputError("INPUT_TOO_LARGE", f"{path}: unpacks to more than {max_bytes >> 20} MiB")
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"'{name}' is in it twice")
                with archive.open(entry) as stream:
                    arrays[name] = npy_format.read_array(stream, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (damaged files make zipfile and NumPy raise a dozen unrelated classes)
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "Object arrays" in why:
            why = "it holds Python objects, which are never unpickled"
        raise InputError("INPUT_FILE_INVALID", f"{path}: not a usable .npz file ({why})") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputError("INPUT_FILE_INVALID", f"{path}: '{name}' holds {array.dtype}, not numbers")
    return arrays


class _MnnInput(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str = Field(min_length=1, max_length=1000)
    shape: list[int] | None = Field(default=None, max_length=32)
    value: float | None = None


class _MnnFolder(BaseModel):
    model_config = ConfigDict(extra="ignore")
    inputs: list[_MnnInput] = Field(min_length=1, max_length=10_000)


def _mnn_folder(folder: Path, inputs: Sequence[TensorSpec]) -> Case:
    """MNN's layout: input.json names inputs and shapes, NAME.txt holds the values as text, one after the other."""
    path = folder / "input.json"
    try:
        if path.stat().st_size > 1 << 20:
            raise InputError("INPUT_FILE_INVALID", f"{path}: larger than 1 MiB")
        listed = _MnnFolder.model_validate(json.loads(path.read_text("utf-8")))
    except ValidationError as error:
        raise InputError("INPUT_FILE_INVALID", f"{path}: {first_problem(error)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("INPUT_FILE_INVALID", f"{path}: {error}") from None
    specs = {spec.name: spec for spec in inputs}
    arrays: dict[str, Any] = {}
    total = 0
    for entry in listed.inputs:
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
    except (OSError, ValueError) as error:
        raise InputError("INPUT_FILE_INVALID", f"{folder}: input '{entry.name}': {error}") from None
    if not source.is_relative_to(folder.resolve()):
        raise InputError("INPUT_FILE_INVALID", f"{folder}: input '{entry.name}' points out of the folder")
    try:
        if source.exists() and not source.is_file():
            raise InputError("INPUT_FILE_INVALID", f"{source}: not a file")
        # 64 characters are more than any number numpy.savetxt writes.
        if source.stat().st_size > 64 * count + 4096:
            raise InputError("INPUT_SHAPE", f"{source}: more values than the shape {list(shape)} holds")
        words = source.read_text("ascii").split()
        values = np.array([float(word) for word in words], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError("INPUT_FILE_INVALID", f"{source}: {error}") from None
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
    from edgequant.files import atomic_write

    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as entry:
                npy_format.write_array(entry, np.asanyarray(array), allow_pickle=False)
