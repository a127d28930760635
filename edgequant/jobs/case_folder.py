"""The folder of an exported case: there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np

from edgequant.cases.load import save_npz
from edgequant.errors import EdgequantError, InputError
from edgequant.files import atomic_write, host_error

SCRIPT = "show_case.py"
MOST_BYTES = 256 << 20
"""Of models and arrays in one case."""
_SOURCE = "show_case.txt"


def require_free(out: Path) -> None:
    """Raise InputError OUTPUT_NOT_WRITABLE where `out` is there and not an empty folder, or may not be made."""
    try:
        taken = os.path.lexists(out) and (not out.is_dir() or out.is_symlink() or any(out.iterdir()))
    except OSError as error:
        raise _unwritable(out, error) from error
    if taken:
        raise InputError(
            "OUTPUT_NOT_WRITABLE",
            f"{str(out)!r} is there already, and is no empty folder",
            hint="Name a folder that is not there yet.",
        )
    place = next((each for each in out.absolute().parents if each.is_dir()), None)
    if place is not None and not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            "OUTPUT_NOT_WRITABLE", f"{out}: you may not write into the folder {place}", hint="Name another folder."
        )


def write_case(
    out: Path,
    models: Mapping[str, Path],
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    texts: Mapping[str, str],
) -> Path:
    """Write files, .npz and texts by name, and the script that shows them.

    Returns the script, which needs MNN and NumPy, prints how far each output is off, and exits 1 where one is.

    Raises InputError OUTPUT_NOT_WRITABLE where `out` is there and not empty, cannot be written, or would be larger than
    MOST_BYTES; EdgequantError DISK_FULL.
    """
    out = out.absolute()
    require_free(out)
    work = out.with_name(f".{out.name[:40]}.{secrets.token_hex(6)}.tmp")
    try:
        size = sum(path.stat().st_size for path in models.values())
        size += sum(array.nbytes for each in arrays.values() for array in each.values())
        if size > MOST_BYTES:
            raise InputError(
                "OUTPUT_NOT_WRITABLE",
                f"the case would have {size >> 20} MB, and may have {MOST_BYTES >> 20}",
                hint="Take smaller inputs: --shape, or --inputs.",
                where=str(out),
            )
        work.mkdir(parents=True)
        for name, source in models.items():
            with source.open("rb") as read, atomic_write(work / name) as written:
                shutil.copyfileobj(read, written, 1 << 20)
        for name, held in arrays.items():
            save_npz(work / name, held)
        script = resources.files("edgequant.jobs").joinpath(_SOURCE).read_text(encoding="utf-8")
        for name, text in {**texts, SCRIPT: script}.items():
            with atomic_write(work / name) as written:
                written.write(text.encode("utf-8", "backslashreplace"))
        work.replace(out)  # over an empty folder too; one that has filled meanwhile stays as it is
    except OSError as error:
        require_free(out)
        raise _unwritable(out, error) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(work)
    return out / SCRIPT


def _unwritable(out: Path, error: OSError) -> EdgequantError:
    found = host_error(error)
    if found is not None and found.code == "DISK_FULL":
        return EdgequantError("DISK_FULL", f"{out} cannot be written: {error.strerror}", hint=found.hint)
    return InputError(
        "OUTPUT_NOT_WRITABLE", f"{out} cannot be written: {error.strerror or error}", hint="Name another folder."
    )
