"""Packs that have been built: found again by what they were made of, and unpacked once for this host."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from edgequant.errors import DeviceError, InputError
from edgequant.files import atomic_write, open_lock, read_bounded, sha256_of
from edgequant.pack.archives import read_tar, write_tree
from edgequant.pack.inputs import no_cache


@dataclass(frozen=True)
class Pack:
    """One built pack.

    Attributes:
        archive: the .tar.gz; its SHA-256 and size in bytes are `sha256` and `size`.
        unpacked_size: bytes on the device.
        arch, python, mnn, numpy: what is in it.
        start: the command that starts Python from it, with {root} where the pack's directory goes.
        needs: libraries the device itself must have; empty for a pack with its own C library.
        precompiled: false where it carries sources, which start slower.
        key: what it was made of.
        files: size in bytes of each file in it, by its path.
    """

    archive: Path
    sha256: str
    size: int
    unpacked_size: int
    arch: str
    python: str
    mnn: str
    numpy: str
    start: tuple[str, ...]
    needs: tuple[str, ...]
    precompiled: bool
    key: str
    files: Mapping[str, int] = field(repr=False, hash=False)

    def command(self, root: str) -> tuple[str, ...]:
        """What takes the place of `python` where the pack is unpacked in the (absolute) directory `root`."""
        return tuple(word.replace("{root}", root) for word in self.start)

    def require_whole(self, uri: str) -> None:
        """Raises DeviceError (PACK_NEEDS_LIBRARIES) where it is not complete in itself; uri: of who is to run it."""
        if self.needs:
            raise DeviceError(
                "PACK_NEEDS_LIBRARIES",
                f"this pack has no C library of its own (it needs {', '.join(self.needs)})",
                where=uri,
                hint="Build one on a host with apt and a Debian mirror, or give the packages with --inputs DIR.",
            )

    def as_dict(self) -> dict[str, Any]:
        known = {**asdict(self), "archive": str(self.archive), "start": list(self.start), "needs": list(self.needs)}
        del known["files"]  # hundreds; they are in the archive's pack.json
        return known


def default_cache() -> Path:
    """Where packs are kept unless told otherwise."""
    return Path(platformdirs.user_cache_dir("edgequant")) / "packs"


def stored(cache: Path, key: str) -> Pack | None:
    """The pack made of `key`, if it is there and whole."""
    record = cache / "builds" / key / "pack.json"
    try:
        known = json.loads(read_bounded(record, 1 << 24))
        archive = record.parent / known.pop("archive")
        if archive.stat().st_size != known["size"] or sha256_of(archive) != known["sha256"]:
            return None
        start, needs = tuple(known.pop("start")), tuple(known.pop("needs"))
        files = {str(name): int(size) for name, size in known.pop("files").items()}
        return Pack(archive=archive, start=start, needs=needs, files=files, **known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # not built, or by another version of edgequant: it is built anew


def keep(cache: Path, key: str, archive: bytes, name: str, facts: Mapping[str, Any]) -> Pack:
    """Write a pack so that it is there whole or not at all.  Raises ToolError (DISK_FULL, CACHE_UNWRITABLE)."""
    folder = cache / "builds" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name) as stream:
            stream.write(archive)
        # The record is last: without it the pack does not exist.
        with atomic_write(folder / "pack.json") as stream:
            stream.write(json.dumps({**facts, "archive": name, "key": key}, indent=1).encode())
    except OSError as error:
        raise no_cache(folder, error) from None
    pack = stored(cache, key)
    assert pack is not None, "what was just written can be read"
    return pack


def list_packs(cache_dir: Path | None = None) -> list[Pack]:
    """Every whole pack in the cache, newest first."""
    builds = (cache_dir or default_cache()) / "builds"
    found = [pack for path in builds.glob("*/pack.json") if (pack := stored(builds.parent, path.parent.name))]
    return sorted(found, key=lambda pack: pack.archive.stat().st_mtime, reverse=True)


def find_pack(text: str, cache_dir: Path | None = None) -> Pack:
    """The pack the user means: its archive, or the beginning of its SHA-256 as `edgequant pack list` shows it.

    Raises InputError (PACK_UNKNOWN).
    """
    # Two ways to build it may give the same bytes.
    packs = list({pack.sha256: pack for pack in list_packs(cache_dir)}.values())
    here = Path(text).absolute()
    found = [
        pack
        for pack in packs
        if (len(text) >= 6 and pack.sha256.startswith(text)) or (here.is_file() and sha256_of(here) == pack.sha256)
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{pack.sha256[:12]} (MNN {pack.mnn})" for pack in packs[:10])
    raise InputError(
        "PACK_UNKNOWN",
        f"{'several packs begin' if found else 'no pack begins'} with '{text[:100]}'",
        hint=f"There are {known}." if known else "Build one first: edgequant pack build",
    )


def clean_packs(cache_dir: Path | None = None) -> int:
    """Remove packs, inputs, pins and tools from the cache; returns the bytes that frees.

    Waits for builds that run.  Raises ToolError (CACHE_UNWRITABLE).
    """
    cache = cache_dir or default_cache()
    if not cache.is_dir():
        return 0
    with lock(cache):
        freed = sum(path.lstat().st_size for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
        try:
            for path in cache.iterdir():
                # The lock file stays: another process may be waiting for it, under this very name.
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != ".lock":
                    path.unlink()
        except OSError as error:
            raise no_cache(cache, error) from None
    return freed


def unpacked(pack: Pack, cache_dir: Path | None = None) -> Path:
    """The directory of the pack's files on this host, unpacked on first use.  Raises ToolError (DISK_FULL, ...)."""
    cache = cache_dir or default_cache()
    place = cache / "trees" / pack.sha256[:32]
    if place.is_dir():
        return place
    with lock(cache):
        if place.is_dir():
            return place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.mkdtemp(dir=place.parent, prefix=".")
            try:
                with open(pack.archive, "rb") as stream:
                    write_tree(read_tar(stream, pack.archive), Path(temporary))
                Path(temporary).chmod(0o755)
                Path(temporary).rename(place)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        except OSError as error:
            raise no_cache(place.parent, error) from None
    return place


def sweep(cache: Path) -> None:
    """Remove what a killed process left of its work.  The caller holds the lock."""
    for left in (*cache.glob(".fetch-*"), *cache.glob("inputs/.fetch-*"), *cache.glob("trees/.*")):
        shutil.rmtree(left, ignore_errors=True)
    for file in (*cache.glob("builds/*/.*.tmp"), *cache.glob("inputs/*/.*")):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(cache: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """One process at a time changes the cache; a process that dies lets go.  `waiting` is called where one has to."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        stream = open_lock(cache / ".lock")
    except OSError as error:
        raise no_cache(cache, error) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def usable_here() -> bool:
    """Whether this host runs packs without emulation."""
    return os.uname().sysname == "Linux" and os.uname().machine == "aarch64"
