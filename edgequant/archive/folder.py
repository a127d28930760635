"""The folder of one run: everything that was asked for, made, captured and judged.

plan.json                            what was asked for
source.json                          the source model, its cases and its reference
models/<variant>-<sha256>.mnn        every model that was made
artifacts/<variant>.json             how each came about, or why there is none
cases/<case>.npz                     the inputs
captures/reference.json              what the outputs should be
captures/float-host.json             float MNN on this host
captures/host/<variant>.json         each variant on this host
captures/<device>/<variant>.json     each variant on each device: outputs, times, memory, facts
layers/<device>/<variant>.json       inner tensors, weights and counter-proofs of a diagnosis
diagnoses/<device>/<variant>.json    what a diagnosis says
arrays/<sha256>.npy                  what all of these refer to
journal.jsonl                        a line for each of these files, with its SHA-256, in the order they were finished
closing.json                         how it ended
report.json                          the judgement
manifest.json                        the SHA-256 of every other file, when it was finished
logs/                                of converter, reference and runners

A file is there whole or not at all.  Nothing in it names the folder's own place: it can be moved.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from edgequant.archive.arrays import ArrayFolder
from edgequant.archive.types import Capture, Closing, Making, Plan, Source, now
from edgequant.cases.load import save_npz
from edgequant.errors import InputError
from edgequant.files import append, atomic_write, disk_error, read_bounded, require_utf8, sha256_of
from edgequant.files import safe_name as safe_name
from edgequant.spec import Variant

DEFAULT_PARENT = "edgequant-runs"
FOLDERS = ("logs", "models", "cases", "captures", "artifacts", "arrays")
MAX_BYTES = 256 << 20
"""Of a record, or of the journal; a million latencies are 20 MB."""
REFERENCE = "reference"
FLOAT_HOST = "float-host"


def device_capture(uri: str, variant: Variant | str) -> str:
    """The name of the capture of a variant on a device."""
    return f"{safe_name(uri)}/{safe_name(str(variant))}"


def host_capture(variant: Variant | str) -> str:
    """The name of the capture of a variant on this host."""
    return f"host/{safe_name(str(variant))}"


class RunFolder:
    """One run's folder, to write into.

    `RunFolder.create` makes a new one, `reopen` goes on with one that was interrupted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array_folder = ArrayFolder(path / "arrays")
        self._made: list[Path] = []

    @classmethod
    def create(cls, path: Path | None, model: str) -> RunFolder:
        """Make one.

        Args:
            path: given by the user, created where it does not exist, refused where it holds something else already;
                None for a new one under ./edgequant-runs.

        Raises InputError (RUN_DIR_UNUSABLE, PATH_UNUSABLE).
        """
        require_utf8(path or Path())
        if path is None:
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            path = Path(DEFAULT_PARENT) / f"{stamp}-{safe_name(Path(model).stem, 40)}-{secrets.token_hex(2)}"
        folder = cls(path)
        try:
            for each in (*reversed(path.parents), path):
                folder._make(each)
            # Two runs may start at once: the folder belongs to the one that makes the first folder in it.
            if any(path.iterdir()) or not folder._make(path / FOLDERS[0]):
                raise InputError(
                    "RUN_DIR_UNUSABLE",
                    f"{path}: not empty",
                    hint="Give --run-dir a new or empty folder, or go on with that run: --resume.",
                )
            folder._prepare()
        except InputError:
            folder.discard()
            raise
        except OSError as error:
            folder.discard()
            raise _unusable(path, error) from None
        return folder

    def reopen(self) -> None:
        """Go on with one that is there.  Raises InputError (RUN_DIR_UNUSABLE)."""
        try:
            self._prepare()
            self._complete_journal()
        except OSError as error:
            raise _unusable(self.path, error) from None

    def _complete_journal(self) -> None:
        """Take away a line that was written in part, and add that of a record that was written just before a kill."""
        path = self.path / "journal.jsonl"
        data = read_bounded(path, MAX_BYTES) if path.exists() else b""
        if len(data) > (whole := data.rfind(b"\n") + 1):
            os.truncate(path, whole)
        lines = data[:whole].decode("utf-8", "replace").splitlines()
        known = {name for line in lines for name in re.findall(r'"file": "([^"]+)"', line)}
        found = [self.path / "plan.json", self.path / "source.json"]
        places = ("artifacts/*.json", "captures/**/*.json", "layers/**/*.json", "diagnoses/**/*.json")
        found += sorted(path for place in places for path in self.path.glob(place))
        for record in filter(Path.exists, found):
            name = record.relative_to(self.path).as_posix()
            if name not in known:
                self._note(name, sha256_of(record))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes into it meanwhile.  Raises InputError (RUN_DIR_UNUSABLE) where somebody does."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    "RUN_DIR_UNUSABLE",
                    f"{self.path}: another edgequant is at work in it",
                    hint="Wait until it has ended.",
                ) from None
            except OSError:
                pass  # this file system has no locks
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        for name in FOLDERS[1:]:
            self._make(self.path / name)

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
            elif folder == self.path:
                for name in ("plan.json", "bench-plan.json", "journal.jsonl"):
                    with contextlib.suppress(OSError):  # it may never have come to be
                        (folder / name).unlink()
            with contextlib.suppress(OSError):  # something else is in it by now
                folder.rmdir()
        self._made.clear()

    def log(self, name: str) -> Path:
        return self.logs / f"{safe_name(name)}.log"

    # ---- records

    def save_plan(self, plan: Plan) -> None:
        self._save("plan", plan)

    def save_source(self, source: Source) -> None:
        self._save("source", source)

    def save_making(self, making: Making) -> None:
        """Keep what became of a variant; its artifact's path is written relative to this folder."""
        made = making.artifact
        if made is not None and made.path.resolve().is_relative_to(self.path.resolve()):
            made = made.model_copy(update={"path": made.path.resolve().relative_to(self.path.resolve())})
        self._save(f"artifacts/{safe_name(str(making.variant))}", making.model_copy(update={"artifact": made}))

    def save_capture(self, name: str, capture: Capture) -> None:
        self._save(f"captures/{name}", capture)

    def save_layers(self, name: str, layers: BaseModel) -> None:
        """Keep what a diagnosis captured, a `layers.LayerCapture`; name: as of the capture of the same trial."""
        self._save(f"layers/{name}", layers)

    def save_diagnosis(self, name: str, told: BaseModel) -> None:
        """Keep the story of a diagnosis, a `report.diagnosis.DiagnosisReport`; name: as of `save_layers`."""
        self._save(f"diagnoses/{name}", told)

    def save_record(self, name: str, record: BaseModel) -> None:
        """Keep a record of a bench: see `archive.bench`."""
        self._save(name, record)

    def save_closing(self, closing: Closing) -> None:
        self._write("closing", closing)

    def save_case(self, name: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Keep inputs as a file that --inputs takes.  Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
        path = self.path / "cases" / f"{safe_name(name)}.npz"
        try:
            save_npz(path, inputs)
        except OSError as error:
            raise disk_error(path, error) from None

    def _save(self, name: str, record: BaseModel) -> None:
        self._note(f"{name}.json", self._write(name, record))

    def _note(self, name: str, digest: str) -> None:
        """A line in the journal."""
        line = json.dumps({"time": now().isoformat(), "file": name, "sha256": digest}) + "\n"
        path = self.path / "journal.jsonl"
        try:
            append(path, line.encode())
        except OSError as error:
            raise disk_error(path, error) from None

    def _write(self, name: str, record: BaseModel) -> str:
        """Write a record; returns its SHA-256."""
        path = self.path / f"{name}.json"
        data = encoded(record)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as stream:
                stream.write(data)
        except OSError as error:
            raise disk_error(path, error) from None
        return hashlib.sha256(data).hexdigest()


def encoded(record: BaseModel) -> bytes:
    """A record as it is kept.  A lone surrogate (of a file name that is not UTF-8, or of what a device said) stands
    there as the escape that JSON has for it, and is read as itself."""
    try:
        text = record.model_dump_json(by_alias=True, indent=1, fallback=_plain)
    except PydanticSerializationError:  # which refuses it
        plain = record.model_dump(mode="json", by_alias=True, fallback=_plain)
        text = json.dumps(plain, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def _plain(value: object) -> object:
    """Evidence may hold NumPy's numbers."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError("RUN_DIR_UNUSABLE", f"{path}: {error.strerror}", hint="Choose another --run-dir.")
