"""What a finished folder holds: manifest.json, with the SHA-256 of every file in it but itself.

Of a run inside it (those of an acceptance) that has a manifest of its own, only the plan is held here: what is added to
the run later is the run's; that it is there, and is this one, is the whole's.

It is written when all else is.  The journal's last line says that there is one, so that it cannot go unnoticed; it is
in one form only, so that no byte of it can change unnoticed.  It proves that nothing has changed by accident; who
changes a file and writes a manifest anew is not found by it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edgequant.archive.types import now
from edgequant.background import Background
from edgequant.files import append, atomic_write, disk_error, read_bounded, sha256_of

MANIFEST = "manifest.json"
SCHEMA = "edgequant.manifest/1"
_JOURNAL = "journal.jsonl"
_PLANS = ("plan.json", "bench-plan.json")
_MAX_BYTES = 256 << 20
_TURNS: set[str] = set()
"""Folders that this process is adding to."""


class Difference(NamedTuple):
    """file: relative to the folder, with slashes.  why: what is known of it, in words."""

    file: str
    what: Literal["missing", "changed", "extra"]
    why: str = ""


class Held(NamedTuple):
    """What the manifest says of a file; size in bytes."""

    sha256: str
    size: int


Files = Mapping[str, Held]
Seen = tuple[int, int, int, int]


def _seen(path: Path) -> Seen:
    """What tells a file from what it was before it was written to."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Ahead:
    """Begins to hash a folder's arrays and models while it is still being judged.  What changes after it was hashed is
    hashed again when the folder is closed, and so is what could not be read."""

    def __init__(self, folder: Path) -> None:
        self._known: dict[str, tuple[Seen, str]] = {}
        self._work = Background(lambda: self._hash(folder))

    def _hash(self, folder: Path) -> None:
        for path in (*folder.glob("arrays/*.npy"), *folder.glob("models/*.mnn")):
            with suppress(OSError):
                seen = _seen(path)
                self._known[path.relative_to(folder).as_posix()] = seen, sha256_of(path)

    def sha256_of(self, name: str, path: Path) -> str:
        """Raises OSError."""
        self._work.wait()
        known = self._known.get(name)
        return known[1] if known is not None and known[0] == _seen(path) else sha256_of(path)


def close(folder: Path, ahead: Ahead | None = None) -> None:
    """Say what is in the folder now.  Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
    try:
        _note_closed(folder)
        held = {
            name: Held(sha256_of(path) if ahead is None else ahead.sha256_of(name, path), path.stat().st_size)
            for name, path in _files(folder)
        }
        _write(folder, held)
    except OSError as error:
        raise disk_error(folder / MANIFEST, error) from None


def begin_anew(folder: Path) -> None:
    """The folder is about to change: what was said of it holds no longer.  Raises OSError."""
    (folder / MANIFEST).unlink(missing_ok=True)


@contextmanager
def amended(folder: Path) -> Iterator[None]:
    """What is written into a closed folder in this block belongs to it afterwards.

    What was missing, changed or too many before the block stays so: adding to a folder hides nothing.  A folder
    without a manifest stays one.  Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE).
    """
    with _turn(folder):
        held = read(folder)
        before = [] if held is None else _between(folder, held)
        try:
            yield
        finally:
            if held is not None:
                _amend(folder, held, before)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One after the other: what another one adds meanwhile would be in no manifest.  Within one's own turn it is."""
    mine = os.path.realpath(folder)
    if mine in _TURNS:
        yield
        return
    try:
        descriptor = os.open(folder / _JOURNAL, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield  # without a journal nothing was ever closed
        return
    try:
        with suppress(OSError):  # this file system has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _TURNS.add(mine)
        yield
    finally:
        _TURNS.discard(mine)
        os.close(descriptor)


def _amend(folder: Path, held: Files, before: Sequence[Difference]) -> None:
    try:
        _note_closed(folder)
        found = {name: Held(sha256_of(path), path.stat().st_size) for name, path in _files(folder)}
        for each in before:
            found.pop(each.file, None)
            if each.what != "extra":
                found[each.file] = held.get(each.file, Held("", 0))
        _write(folder, found)
    except OSError as error:
        raise disk_error(folder / MANIFEST, error) from None


def read(folder: Path) -> Files | None:
    """What manifest.json says; None where there is none, or it is not a file in the form in which it is written."""
    if (folder / MANIFEST).is_symlink():
        return None
    try:
        data = read_bounded(folder / MANIFEST, _MAX_BYTES)
        document = json.loads(data)
        held = {str(name): Held(str(each["sha256"]), int(each["size"])) for name, each in document["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return held if _text(held).encode() == data else None


def differences(folder: Path) -> list[Difference] | None:
    """What is not as the manifest has it, by name; None where the folder never had one.  Raises OSError."""
    held = read(folder)
    if held is not None:
        return _between(folder, held)
    if os.path.lexists(folder / MANIFEST):
        return [Difference(MANIFEST, "changed", "not as it is written")]
    if _closed(folder):
        return [Difference(MANIFEST, "missing", "the journal says that there is one")]
    return None


def _between(folder: Path, held: Files) -> list[Difference]:
    found = []
    there = dict(_entries(folder))
    for name in sorted(held.keys() | there.keys()):
        path, known = there.get(name), held.get(name)
        if path is None:
            found.append(Difference(name, "missing"))
        elif known is None:
            found.append(Difference(name, "extra", "manifest.json does not have it"))
        elif (why := _changed(path, known)) is not None:
            found.append(Difference(name, "changed", why))
    return found


def _changed(path: Path, held: Held) -> str | None:
    try:
        if path.is_symlink():
            return "it is a link now"
        if (size := path.stat().st_size) != held.size:
            return f"it has {size} bytes, and had {held.size}"
        return None if sha256_of(path) == held.sha256 else "its SHA-256 is another"
    except OSError as error:
        return error.strerror or str(error)


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything below the folder but folders and the manifest itself; links are not followed.  Raises OSError."""

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        here = Path(root)
        if here != folder and MANIFEST in names and (plan := next((each for each in _PLANS if each in names), None)):
            folders.clear()
            yield (here / plan).relative_to(folder).as_posix(), here / plan
            continue
        for name in (*names, *(each for each in folders if (here / each).is_symlink())):
            relative = (here / name).relative_to(folder).as_posix()
            if relative != MANIFEST:
                yield relative, here / name


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, path in _entries(folder) if path.is_file() and not path.is_symlink())


def _closed(folder: Path) -> bool:
    """Whether the journal ends with a line that says so: what is written after it opens the folder again."""
    try:
        last = read_bounded(folder / _JOURNAL, _MAX_BYTES).rstrip(b"\n").rpartition(b"\n")[2]
        line: Any = json.loads(last)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(line, dict) and line.get("closed") == MANIFEST


def _note_closed(folder: Path) -> None:
    if not _closed(folder):
        append(folder / _JOURNAL, (json.dumps({"time": now().isoformat(), "closed": MANIFEST}) + "\n").encode())


def _text(held: Files) -> str:
    files = {name: {"sha256": each.sha256, "size": each.size} for name, each in sorted(held.items())}
    return json.dumps({"schema": SCHEMA, "files": files}, indent=1) + "\n"


def _write(folder: Path, held: Files) -> None:
    with atomic_write(folder / MANIFEST) as stream:
        stream.write(_text(held).encode())
