"""Arrays of a run, kept once each and named by their content, so that a changed file is noticed."""

from __future__ import annotations

import hashlib
import io
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.lib import format as npy

from edgequant.archive.types import ArrayRef
from edgequant.errors import ToolError
from edgequant.files import disk_error, open_file
from edgequant.tensors import DTYPES

_CACHE_BYTES = 256 << 20
_MAX_HEADER = 1 << 16


class ArraySink(Protocol):
    """Where whoever runs a model leaves its outputs."""

    def put(self, array: np.ndarray) -> ArrayRef:
        """Keep it; the same content is kept once."""

    def get(self, ref: ArrayRef) -> np.ndarray:
        """What was kept under `ref`."""


def described(array: np.ndarray) -> tuple[ArrayRef, bytes, np.ndarray]:
    """An array's reference, the header of its .npy file, and the array in C order.

    The bytes are those that `numpy.save` writes.
    """
    plain = np.ascontiguousarray(array).reshape(array.shape)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(plain))
    digest = hashlib.sha256(header.getvalue())
    digest.update(_flat(plain))
    ref = ArrayRef(sha256=digest.hexdigest(), dtype=plain.dtype.name, shape=tuple(plain.shape))
    return ref, header.getvalue(), plain


def _flat(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")  # type: ignore[arg-type]


class MemoryArrays:
    """Arrays of a run that leaves no folder behind."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def put(self, array: np.ndarray) -> ArrayRef:
        ref, _, plain = described(array)
        self._kept.setdefault(ref.sha256, plain)
        return ref

    def get(self, ref: ArrayRef) -> np.ndarray:
        return self._kept[ref.sha256]


class ArrayFolder:
    """Arrays as FOLDER/SHA256.npy; those used last also in memory, up to 256 MiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._cached = 0

    def path(self, ref: ArrayRef) -> Path:
        return self.folder / f"{ref.sha256}.npy"

    def put(self, array: np.ndarray) -> ArrayRef:
        """Keep an array.  Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
        ref, header, plain = described(array)
        path = self.path(ref)
        if ref.sha256 not in self._cache and not path.exists():
            # Not forced to the disk: after a power cut its hash tells whether it is whole, and it can be made again.
            temporary = path.with_name(f".{ref.sha256[:16]}.{secrets.token_hex(4)}.tmp")
            try:
                self.folder.mkdir(exist_ok=True)
                with open(temporary, "xb") as stream:
                    stream.write(header)
                    stream.write(_flat(plain))
                temporary.replace(path)
            except OSError as error:
                _remove(temporary)
                raise disk_error(path, error) from None
            except BaseException:
                _remove(temporary)
                raise
        self._remember(ref.sha256, plain)
        return ref

    def get(self, ref: ArrayRef) -> np.ndarray:
        """Read it, and make sure that it is what was kept.

        Raises ToolError (CAPTURE_UNREADABLE) where it is not there, or not what it was.
        """
        if (known := self._cache.get(ref.sha256)) is not None:
            self._cache.move_to_end(ref.sha256)
            return known
        path = self.path(ref)
        try:
            array = _read(path, ref)
        except (OSError, ValueError) as error:
            raise ToolError(
                "CAPTURE_UNREADABLE",
                f"{path}: {(error.strerror if isinstance(error, OSError) else None) or error}",
                hint="Something else changed or removed it; the run has to be made again.",
            ) from None
        self._remember(ref.sha256, array)
        return array

    def _remember(self, sha256: str, array: np.ndarray) -> None:
        if sha256 in self._cache or array.nbytes > _CACHE_BYTES:
            return
        self._cache[sha256] = array
        self._cached += array.nbytes
        while self._cached > _CACHE_BYTES:
            self._cached -= self._cache.popitem(last=False)[1].nbytes


def _read(path: Path, ref: ArrayRef) -> np.ndarray:
    if ref.dtype not in DTYPES:
        raise ValueError(f"no array is kept as {ref.dtype[:20]}")
    wanted = np.dtype(ref.dtype).itemsize
    for size in ref.shape:
        wanted *= size
    size = path.stat().st_size
    if not wanted <= size <= wanted + _MAX_HEADER:
        raise ValueError(f"it has {size} bytes, its {wanted} and a header were kept")
    with open_file(path) as stream:
        data = stream.read(size + 1)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise ValueError("its contents are not those that were kept")
    array = npy.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype.name != ref.dtype or array.shape != tuple(ref.shape):
        raise ValueError(f"it is {array.dtype.name} {list(array.shape)}, not {ref.dtype} {list(ref.shape)}")
    return array


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        return  # it never came to be, or its disk is gone: the first error is the one to tell
