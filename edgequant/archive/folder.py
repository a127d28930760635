"""The folder of one run: everything that was made, measured and logged, so that it can be looked at later.

report.json                          the report
models/<variant>-<sha256>.mnn        every model that was made
cases/<case>.npz                     the inputs
captures/reference/<case>.npz        what the outputs should be
captures/<device>/<variant>/...      what came back: outputs of each case, timing.json
logs/                                of converter, reference and runners
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.cases.load import save_npz
from edgequant.errors import EdgequantError, InputError
from edgequant.files import atomic_write
from edgequant.quantize.work import remove_stale

DEFAULT_PARENT = "edgequant-runs"
FOLDERS = ("logs", "models", "cases", "captures")


def safe_name(text: str, limit: int = 60) -> str:
    """`text` as a file name: readable, and never the same for two different texts."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"
    if plain == text and len(plain) <= limit:
        return plain
    return f"{plain[:limit]}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


class RunDirectory:
    """One run's folder.

    Args:
        path: given by the user, created where it does not exist, refused where it holds something else already; None
            for a new one under ./edgequant-runs.

    Raises InputError (RUN_DIR_UNUSABLE).
    """

    def __init__(self, path: Path | None, model: str) -> None:
        if path is None:
            now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            path = Path(DEFAULT_PARENT) / f"{now}-{safe_name(Path(model).stem, 40)}-{secrets.token_hex(2)}"
        self.path = path
        self._made: list[Path] = []
        try:
            for folder in (*reversed(path.parents), path):
                self._make(folder)
            # Two runs may start at once: the folder belongs to the one that makes the first folder in it.
            if any(path.iterdir()) or not self._make(path / FOLDERS[0]):
                raise InputError(
                    "RUN_DIR_UNUSABLE",
                    f"{path}: not empty",
                    hint="Give --run-dir a new or empty folder: the results of two runs must not mix.",
                )
            for name in FOLDERS[1:]:
                self._make(path / name)
            # What runs beside this one left when they were killed.
            for models in path.parent.glob(f"*/{FOLDERS[1]}"):
                remove_stale(models)
        except InputError:
            self.discard()
            raise
        except OSError as error:
            self.discard()
            raise InputError(
                "RUN_DIR_UNUSABLE", f"{path}: {error.strerror}", hint="Choose another --run-dir."
            ) from None

    def _make(self, folder: Path) -> bool:
        """Make a folder and remember it; false where it, or something else, is there already."""
        try:
            folder.mkdir()
        except OSError:
            # Not only where it exists: making one that exists may be answered with "permission denied" as well.
            if not os.path.lexists(folder):
                raise
            return False
        self._made.append(folder)
        return True

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    def discard(self) -> None:
        """Remove what was made so far: a mistake on the command line leaves nothing behind.  Never raises.

        What another process made in the same place stays.
        """
        for folder in reversed(self._made):
            if folder.parent == self.path:
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # something else is in it by now
                folder.rmdir()
        self._made.clear()

    def log(self, name: str) -> Path:
        return self.logs / f"{safe_name(name)}.log"

    def arrays(self, folder: str, name: str) -> Path:
        """Where `save_arrays` puts them."""
        return self.path / folder / f"{safe_name(name)}.npz"

    def save_arrays(self, folder: str, name: str, arrays: Mapping[str, np.ndarray]) -> Path:
        """Keep arrays as FOLDER/NAME.npz.  Raises EdgequantError (RUN_DIR_FULL) where they cannot be written."""
        path = self.arrays(folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_npz(path, arrays)
        except OSError as error:
            raise disk_error(path, error) from None
        return path

    def save_json(self, folder: str, name: str, value: Any) -> Path:
        path = self.path / folder / f"{safe_name(name)}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as stream:
                stream.write(json.dumps(value, indent=1).encode())
        except OSError as error:
            raise disk_error(path, error) from None
        return path


def disk_error(path: Path, error: OSError) -> EdgequantError:
    """What to say when this host cannot write a result."""
    return EdgequantError(
        "RUN_DIR_FULL" if error.errno == 28 else "RUN_DIR_UNWRITABLE",
        f"{path} cannot be written: {error.strerror or error}",
        hint="Free some space on this host, or choose another --run-dir.",
    )
