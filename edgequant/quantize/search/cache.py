"""What a search made and measured, kept under keys made from the contents it depends on: a second search is free."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edgequant.errors import InputError
from edgequant.files import atomic_write

if TYPE_CHECKING:
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


class Kept(BaseModel):
    """What was measured of a model: SQNR in dB by output, and one inference in ms where it was timed."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    sqnr_db: dict[str, float]
    latency_ms: float | None


class Cache:
    """A folder.  What in it cannot be read or does not fit its checksum counts as not there.

    Attributes:
        problem: why something could not be kept in it; None while everything could.  A search goes on without.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError CACHE_UNUSABLE."""
        self.folder = folder
        self.problem: str | None = None
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
        if note is None:
            return None
        path = self.folder / "models" / f"{key}.mnn"
        try:
            source = open(path, "rb")  # noqa: SIM115  (its errors, not the copy's)
        except OSError:
            return None
        _used(path)
        found = hashlib.sha256()
        with source, open(out, "wb") as copy:
            while chunk := source.read(1 << 20):
                found.update(chunk)
                copy.write(chunk)
        return note if found.hexdigest() == note.get("sha256") else None

    def keep_model(self, key: str, path: Path, note: Mapping[str, Any]) -> None:
        with self._keeping():
            (self.folder / "models").mkdir(parents=True, exist_ok=True)  # somebody may have cleaned it meanwhile
            with open(path, "rb") as source, atomic_write(self.folder / "models" / f"{key}.mnn") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            _write(self.folder / "models" / f"{key}.json", note)

    def noises(self, key: str, width: int) -> dict[str, np.ndarray]:
        """What was measured, by `choice_key`."""
        found: dict[str, np.ndarray] = {}
        path = self.folder / "noises" / f"{key}.jsonl"
        if not path.is_file():
            return found
        _used(path)
        with open(path, encoding="utf-8", errors="replace") as file:
            while line := file.readline(_MOST_LINE):
                try:
                    value = json.loads(line)
                    if value["sum"] != digest(key, value["choice"], value["noise"]) or len(value["noise"]) != width:
                        continue
                    found[value["choice"]] = np.asarray(
                        [np.inf if each is None else float(each) for each in value["noise"]]
                    )
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue  # a line cut off when its writer was killed
        return found

    def keep_noises(self, key: str, measured: Mapping[str, np.ndarray]) -> None:
        lines = []
        for choice, noise in measured.items():
            values = [float(each) if np.isfinite(each) else None for each in noise]
            lines.append(json.dumps({"choice": choice, "noise": values, "sum": digest(key, choice, values)}) + "\n")
        if not lines:
            return
        with self._keeping(), open(self.folder / "noises" / f"{key}.jsonl", "ab", buffering=0) as file:
            # In one piece, for another search may write here too; and not behind half a line of one that was killed.
            file.write(("\n" + "".join(lines)).encode())

    def evaluation(self, key: str) -> Kept | None:
        value = _read(self.folder / "evaluations" / f"{key}.json")
        if value is None or value.pop("sum", None) != digest(key, value):
            return None
        try:
            return Kept.model_validate(value)
        except ValidationError:
            return None

    def keep_evaluation(self, key: str, value: Kept) -> None:
        content = value.model_dump()
        with self._keeping():
            _write(self.folder / "evaluations" / f"{key}.json", {**content, "sum": digest(key, content)})

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = self.problem or f"{str(self.folder)!r} cannot be written: {error.strerror or error}"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with open(path, encoding="utf-8") as file:
            value = json.loads(file.read(_MOST_LINE))
    except (OSError, ValueError, RecursionError):
        return None
    _used(path)
    return value if isinstance(value, dict) else None


def _used(path: Path) -> None:
    """What was not used for longest goes first where the user's cache is full."""
    with contextlib.suppress(OSError):  # a cache that cannot be written may still be read
        os.utime(path)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(value).encode())
