"""Reading what the registries give (.deb, .whl, tarballs) and writing archives whose bytes depend on nothing else."""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgequant.errors import InputError


@dataclass(frozen=True)
class Member:
    """One file: its bytes, and whether it may be executed."""

    data: bytes
    executable: bool = False


Files = dict[str, Member]
"""By path, relative and without "./"."""


def read_deb(path: Path, only: str | None = None) -> Files:
    """The files a Debian package installs, or `only` one; links are followed where they stay inside of it."""
    with open(path, "rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise _damaged(path, "not a Debian package")
        while header := stream.read(60):
            try:
                name, size = header[:16].decode().rstrip(" /"), int(header[48:58])
            except ValueError:
                raise _damaged(path, "its ar header is damaged") from None
            if name.startswith("data.tar"):
                if name.endswith(".zst"):
                    raise _damaged(path, "it is compressed with zstd, which Python cannot read")
                return read_tar(io.BytesIO(stream.read(size)), path, only)
            stream.seek(size + size % 2, io.SEEK_CUR)
    raise _damaged(path, "it holds no files")


def read_tar(stream: IO[bytes], path: Path, only: str | None = None) -> Files:
    """The files of a tar archive, however compressed; links become copies of what they point to."""
    files: Files = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream) as tar:
            for entry in tar:
                name = posixpath.normpath(entry.name)
                if name.startswith(("/", "..")):
                    raise _damaged(path, f"it holds {entry.name}")
                if only not in (None, name):
                    continue
                if entry.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname))
                elif entry.islnk():
                    links[name] = posixpath.normpath(entry.linkname)
                elif entry.isfile():
                    content = tar.extractfile(entry)
                    assert content is not None
                    files[name] = Member(content.read(), bool(entry.mode & 0o100))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise _damaged(path, str(error) or type(error).__name__) from None
    for name, target in links.items():
        for _ in range(10):  # more links to links than any package has
            if target not in links:
                break
            target = links[target]
        if target in files:
            files[name] = files[target]
    return files


def read_wheel(path: Path) -> Files:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                entry.filename: Member(archive.read(entry), bool(entry.external_attr >> 16 & 0o100))
                for entry in archive.infolist()
                if not entry.is_dir()
            }
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise _damaged(path, str(error) or type(error).__name__) from None


def write_zip(files: Mapping[str, bytes]) -> bytes:
    """A zip of stored files: started from faster than a compressed one, and what holds it is compressed anyway."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, also where it is made on something else
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def write_tar(files: Mapping[str, Member]) -> bytes:
    """A plain tar: sorted, owned by root, of 1980, with nothing a small device's tar would not know."""
    buffer = io.BytesIO()
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted([*folders, *files]):
            entry = tarfile.TarInfo(name)
            entry.mtime = 315532800
            entry.uname = entry.gname = "root"
            if name in files:
                entry.size = len(files[name].data)
                entry.mode = 0o755 if files[name].executable else 0o644
                tar.addfile(entry, io.BytesIO(files[name].data))
            else:
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o755
                tar.addfile(entry)
    return buffer.getvalue()


def write_tree(files: Mapping[str, Member], folder: Path) -> None:
    """The files below a directory of this host."""
    for name, member in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member.data)
        path.chmod(0o755 if member.executable else 0o644)


def compress(data: bytes) -> bytes:
    """gzip without a name or a time in it.  (gzip.compress writes other headers in other versions of Python.)"""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    body = deflate.compress(data) + deflate.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        "PACK_INPUT_DAMAGED",
        f"{path.name} cannot be read: {why}",
        hint="Get it again; a file of edgequant's own cache is fetched anew after `edgequant pack clean`.",
    )
