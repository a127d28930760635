"""What a search made and measured, kept under keys made from the contents it depends on: a second search is free."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.errors import InputError
from edgequant.files import atomic_write
from edgequant.quantize.search.mixture import Choice

_MOST_LINE = 1 << 20


def digest(*parts: object) -> str:
    """A key for JSON-compatible parts, the order of dictionaries aside."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def cases_digest(cases: Sequence[Mapping[str, np.ndarray]]) -> str:
    """A key for arrays: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for case in cases:
        for name in sorted(case):
            array = np.ascontiguousarray(case[name])
            found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
            found.update(array.tobytes())
        found.update(b"\1")
    return found.hexdigest()


def choice_key(choice: Choice) -> str:
    return digest(sorted((key, str(form)) for key, form in choice.items()))


class Cache:
    """A folder.  What in it cannot be read or does not fit its hash counts as not there."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError CACHE_UNUSABLE."""
        self.folder = folder
        try:
            for name in ("models", "noises", "evaluations"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                "CACHE_UNUSABLE",
                f"the cache {str(folder)!r} cannot be used: {error.strerror}",
                hint="Name another folder.",
            ) from None

    def model(self, key: str, out: Path) -> dict[str, Any] | None:
        """Copy a model to `out`; what was noted of it, or None."""
        note = _read(self.folder / "models" / f"{key}.json")
        path = self.folder / "models" / f"{key}.mnn"
        if note is None or not path.is_file():
            return None
        shutil.copyfile(path, out)
        with open(out, "rb") as file:
            found = hashlib.sha256()
            while chunk := file.read(1 << 20):
                found.update(chunk)
        return note if found.hexdigest() == note.get("sha256") else None

    def keep_model(self, key: str, path: Path, note: Mapping[str, Any]) -> None:
        with open(path, "rb") as source, atomic_write(self.folder / "models" / f"{key}.mnn") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        _write(self.folder / "models" / f"{key}.json", note)

    def noises(self, key: str, width: int) -> dict[str, np.ndarray]:
        """What was measured, by `choice_key`."""
        found: dict[str, np.ndarray] = {}
        path = self.folder / "noises" / f"{key}.jsonl"
        if not path.is_file():
            return found
        with open(path, encoding="utf-8", errors="replace") as file:
            while line := file.readline(_MOST_LINE):
                try:
                    value = json.loads(line)
                    noise = np.asarray([np.inf if each is None else float(each) for each in value["noise"]])
                    if len(noise) == width:
                        found[str(value["choice"])] = noise
                except (ValueError, TypeError, KeyError):
                    continue  # a line cut off when its writer was killed
        return found

    def keep_noises(self, key: str, measured: Mapping[str, np.ndarray]) -> None:
        with open(self.folder / "noises" / f"{key}.jsonl", "a", encoding="utf-8") as file:
            for choice, noise in measured.items():
                values = [float(each) if np.isfinite(each) else None for each in noise]
                file.write(json.dumps({"choice": choice, "noise": values}) + "\n")

    def evaluation(self, key: str) -> dict[str, Any] | None:
        return _read(self.folder / "evaluations" / f"{key}.json")

    def keep_evaluation(self, key: str, value: Mapping[str, Any]) -> None:
        _write(self.folder / "evaluations" / f"{key}.json", value)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value).encode())
