"""Files that were made before, found again by all that decides what they are.

    conversions/KEY/model.mnn      the file
    conversions/KEY/record.json    its artifact, with checksums of all
    conversions/KEY/logs/          what the tools said that made it
    search/                        what searches made and measured: see `search.cache`

An entry appears whole, by a rename, and is read with its checksums: a damaged one is dropped and counts as not there.
Of all that is kept, that of searches too, goes what was not used for longest where there is too much.  Whatever is
wrong with the cache costs time, never a run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from edgequant.archive.types import Artifact
from edgequant.errors import ToolError
from edgequant.files import atomic_write, open_file, open_lock
from edgequant.mnn_version import host_mnn_version
from edgequant.models import ModelGraph
from edgequant.progress import Progress
from edgequant.quantize.child import tools_extension
from edgequant.quantize.search.cache import digest
from edgequant.quantize.work import remove_stale, source_sha256, work_dir
from edgequant.version import __version__

DEFAULT_MB = 2048
OFF = "EDGEQUANT_NO_CACHE"
"""Environment: set to anything but 0, nothing is taken from the cache or kept in it."""
SIZE = "EDGEQUANT_CACHE_MB"
"""Environment: MB (a million bytes) it may take; 0: none."""
_FORMAT = 2
"""Of what is kept.  Changes of the code that makes files are seen without it."""
_RECORD, _MODEL, _LOGS = "record.json", "model.mnn", "logs"
_MOST_RECORD = 16 << 20
_GONE = ".gone-"
_CODE = ("quantize", "models", "compare", "archive/types.py", "judge/sane.py")
"""What decides how a file comes out: changed, it makes other files, or other findings of them."""


class _DamagedError(Exception):
    """An entry is not what was kept."""


@dataclass(frozen=True)
class Entry:
    """One file in the cache.

    Attributes:
        variant: it was made for; label: what it is, where that is something else.
        size: bytes of all of the entry.
        used: when it was made, or taken last.
    """

    key: str
    variant: str
    label: str | None
    source_sha256: str
    mnn: str
    size: int
    used: datetime

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible."""
        return {
            "key": self.key,
            "variant": self.variant,
            "label": self.label,
            "source_sha256": self.source_sha256,
            "mnn": self.mnn,
            "bytes": self.size,
            "used": self.used.isoformat(timespec="seconds"),
        }


def conversions_folder() -> Path:
    """Where made files are kept."""
    return Path(platformdirs.user_cache_dir("edgequant")) / "conversions"


def search_folder() -> Path:
    """Where searches keep what they made and measured: see `search.cache`."""
    return Path(platformdirs.user_cache_dir("edgequant")) / "search"


def conversion_key(source: ModelGraph, *what: object) -> str:
    """The key of a file: its source, `what` is made of it (JSON-compatible), and all else that decides its bytes.

    Raises ToolError (MNN_MISSING).
    """
    tool = tools_extension().stat().st_size  # two builds may call themselves one version
    host = (host_mnn_version(), tool, platform.machine())
    return digest(_FORMAT, __version__, _code(), host, source.format, source.sha256, what)


@functools.cache
def _code() -> str:
    """SHA-256 of the code that makes files."""
    found = hashlib.sha256()
    root = Path(__file__).parent.parent
    for place in (root / name for name in _CODE):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def kept() -> ConversionCache:
    """The user's cache, to look into."""
    return ConversionCache(conversions_folder(), _limit(Progress()), searches=search_folder())


def clean_cache() -> int:
    """Remove all that was made and all that searches measured; returns the bytes that frees.

    Raises ToolError (CACHE_UNWRITABLE).
    """
    return kept().clean()


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # somebody removed it
            total += path.lstat().st_size if path.is_file() else 0
    return total


def open_cache(progress: Progress | None = None) -> ConversionCache | None:
    """The user's cache, as the environment says; None where there is to be none.  `progress` is told what is wrong."""
    progress = progress or Progress()
    if os.environ.get(OFF, "0") not in ("", "0"):
        return None
    limit = _limit(progress)
    return ConversionCache(conversions_folder(), limit, progress, search_folder()) if limit else None


def _limit(progress: Progress) -> int:
    """Bytes the user allows."""
    text = os.environ.get(SIZE) or str(DEFAULT_MB)
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        progress.say(f"{SIZE}={text[:40]!r} is no number of MB: {DEFAULT_MB} is taken")
        text = str(DEFAULT_MB)
    return int(text) * 1_000_000


class ConversionCache:
    """A folder of made files, shared by all processes of a user.

    Attributes:
        limit: bytes it may take, with what searches keep.
        searches: where that is; None where there is no such place.
    """

    def __init__(
        self,
        folder: Path,
        limit: int = DEFAULT_MB * 1_000_000,
        progress: Progress | None = None,
        searches: Path | None = None,
    ) -> None:
        self.folder = folder
        self.limit = limit
        self.searches = searches
        self._progress = progress or Progress()
        self._told = False

    def take(self, key: str, models: Path, logs: Path) -> Artifact | None:
        """The file of a key, copied into `models`, and its logs into `logs`; None where there is none."""
        entry = self.folder / key
        try:
            record = _record(entry)
            made = Artifact.model_validate(record["artifact"])
            said = {name: _checked(entry / _LOGS / name, sha256) for name, sha256 in record["logs"].items()}
            out = models / f"{key[:16]}.mnn"
            with open_file(entry / _MODEL) as source, atomic_write(out) as copy:
                if os.fstat(source.fileno()).st_size != made.size:
                    raise _DamagedError  # before it is copied: it may have no end to speak of
                found = hashlib.sha256()
                while chunk := source.read(1 << 20):
                    found.update(chunk)
                    copy.write(chunk)
                if found.hexdigest() != made.sha256:
                    raise _DamagedError
            with contextlib.suppress(OSError):  # a cache that cannot be written may still be read
                os.utime(entry / _RECORD)
            try:
                names = {name: _write_log(logs, name, content) for name, content in said.items()}
            except OSError:
                out.unlink()
                raise
            return Artifact.model_validate(_renamed(record["artifact"], names)).model_copy(update={"path": out})
        except FileNotFoundError:
            if entry.is_dir():  # else it never was there, or was removed meanwhile
                _drop(entry)
        except (_DamagedError, ValidationError, KeyError, TypeError, ValueError):
            _drop(entry)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ELOOP):  # a pipe, a folder or a link where a file was
                _drop(entry)
            # Where the run's own disk is full, whoever makes the file says so.
            elif error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._tell("read", error)
        return None

    def keep(self, key: str, made: Artifact, logs: Path, source: ModelGraph) -> None:
        """Keep a file that was just made of `source`, if that still is what was read."""
        if made.size > self.limit or source_sha256(source) != source.sha256:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with work_dir(self.folder) as work:
                entry = work / key
                entry.mkdir()
                shutil.copyfile(made.path, entry / _MODEL)
                artifact = _as_json(made.model_dump() | {"path": _MODEL})
                said = {path.name: path.read_bytes() for path in _logs_of(made.log, json.dumps(artifact), logs)}
                (entry / _LOGS).mkdir()
                for name, log in said.items():
                    (entry / _LOGS / name).write_bytes(log)
                hashes = {name: _sha256(log) for name, log in said.items()}
                content = {"artifact": artifact, "mnn": host_mnn_version(), "logs": hashes}
                text = json.dumps({**content, "sum": digest(content)})
                (entry / _RECORD).write_text(text, encoding="utf-8")
                with contextlib.suppress(OSError):  # another process was first, with the same
                    entry.rename(self.folder / key)
            self.shrink()
        except OSError as error:
            self._tell("written", error)

    def entries(self) -> list[Entry]:
        """What is there, the last used first."""
        found = []
        for path in self._folders():
            try:
                record, used = _record(path), (path / _RECORD).stat().st_mtime
                made = Artifact.model_validate(record["artifact"])
                found.append(
                    Entry(
                        path.name, str(made.asked), made.label, made.source_sha256, str(record["mnn"]), size_of(path),
                        datetime.fromtimestamp(used, timezone.utc),
                    )
                )  # fmt: skip
            except (OSError, _DamagedError, ValidationError, KeyError):
                continue  # `take` drops it, or `clean` does
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def clean(self) -> int:
        """Remove everything, of searches too; returns the bytes that frees.  Raises ToolError (CACHE_UNWRITABLE)."""
        freed = 0
        for path in [*self._folders(hidden=True), *([] if self.searches is None else [self.searches])]:
            size = size_of(path)
            _drop(path)
            if path.exists():
                raise ToolError("CACHE_UNWRITABLE", f"{path} cannot be removed", hint="Check who owns it.")
            freed += size
        remove_stale(self.folder)
        return freed

    def _folders(self, *, hidden: bool = False) -> Iterator[Path]:
        """Those of files; hidden: and those that somebody was about to remove."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if path.is_dir() and (not path.name.startswith(".") or (hidden and path.name.startswith(_GONE))):
                    yield path

    def shrink(self) -> None:
        """Remove what was not used for longest until the rest keeps the limit."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open_lock(self.folder / ".lock")
        except OSError as error:
            self._tell("written", error)
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another process is at it, or this file system has no locks
                return
            known = []
            for path in self._folders():
                with contextlib.suppress(OSError):  # somebody removed it
                    record = path / _RECORD
                    known.append(((record if record.exists() else path).stat().st_mtime_ns, size_of(path), path))
            for path in [] if self.searches is None else self.searches.glob("*/*"):
                with contextlib.suppress(OSError):
                    known.append(((found := path.stat()).st_mtime_ns, found.st_size, path))
            total = sum(size for _, size, _ in known)
            for _, size, path in sorted(known):
                if total <= self.limit:
                    break
                _drop(path)
                total -= size

    def _tell(self, what: str, error: OSError) -> None:
        if not self._told:
            self._told = True
            why = error.strerror or error
            self._progress.say(f"the cache {self.folder} cannot be {what} ({why}): this run goes on without it")


def _drop(entry: Path) -> None:
    """Take a file or folder away at once, whoever reads it."""
    away = entry.with_name(f"{_GONE}{secrets.token_hex(8)}")
    try:
        entry.rename(away)
        if away.is_dir():
            shutil.rmtree(away, ignore_errors=True)
        else:
            away.unlink()
    except OSError:  # gone already, or it cannot be
        return


def _logs_of(own: str | None, text: str, logs: Path) -> list[Path]:
    """The logs that an artifact names, and those that go on from its own."""
    more = None if own is None else f"{Path(own).stem}-"
    found = sorted(path for path in logs.glob("*.log") if path.is_file())
    return [path for path in found if path.name in text or (more is not None and path.stem.startswith(more))]


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """An artifact with the names its logs have now."""
    text = json.dumps(value)
    for name, now in names.items():
        text = text.replace(name, now) if name != now else text
    return json.loads(text)


def _as_json(value: dict[str, Any]) -> Any:
    """As it comes back; evidence of findings may hold NumPy's numbers."""
    return json.loads(json.dumps(value, default=lambda odd: odd.tolist() if hasattr(odd, "tolist") else str(odd)))


def _record(entry: Path) -> dict[str, Any]:
    with open_file(entry / _RECORD) as file:
        data = file.read(_MOST_RECORD)
    try:
        record = json.loads(data)
        if not isinstance(record, dict) or record.pop("sum", None) != digest(record):
            raise _DamagedError
    except (ValueError, RecursionError):
        raise _DamagedError from None
    return record


def _checked(path: Path, sha256: str) -> bytes:
    with open_file(path) as file:
        data = file.read(_MOST_RECORD)
    if _sha256(data) != sha256:
        raise _DamagedError
    return data


def _write_log(logs: Path, name: str, content: bytes) -> str:
    """Under its own name, or another where that is taken."""
    logs.mkdir(parents=True, exist_ok=True)
    path, number = logs / name, 1
    while True:
        try:
            with open(path, "xb") as file:
                file.write(content)
            return path.name
        except FileExistsError:
            number += 1
            path = logs / f"{Path(name).stem}-{number}.log"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
