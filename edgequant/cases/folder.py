"""Looking at folders and files that users name: nothing that never ends, nothing without bound."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from edgequant.errors import InputError

MAX_LISTED = 200_000
"""Entries of a folder that are looked at."""


def there(path: Path) -> None:
    """Raises InputError (INPUTS_NOT_FOUND) where nothing has that name, or it cannot be one."""
    try:
        path.stat()
    except OSError as error:
        why = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
        hint = (
            "Give what numpy.savez('case.npz', **{'input name': array, ...}) writes, or a folder of those, or pictures."
        )
        raise InputError("INPUTS_NOT_FOUND", f"{path}: {why}", hint=hint) from None
    except ValueError as error:
        raise InputError("INPUTS_NOT_FOUND", f"{str(path)!r}: {error}") from None


def listed(folder: Path) -> list[Path]:
    """The entries of a folder in name order, hidden ones left out.

    Raises InputError: INPUTS_NOT_FOUND (it cannot be read), INPUTS_TOO_MANY.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, MAX_LISTED + 1)]
    except OSError as error:
        raise InputError("INPUTS_NOT_FOUND", f"{folder}: {error.strerror}") from None
    if len(names) > MAX_LISTED:
        raise InputError(
            "INPUTS_TOO_MANY",
            f"{folder}: more than {MAX_LISTED} entries",
            hint="Make a folder with those that are to be used; 8 to 100 samples are enough to calibrate with.",
        )
    return [folder / name for name in sorted(names) if not name.startswith(".")]
