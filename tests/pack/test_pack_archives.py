"""Archives: the same bytes from the same files, readable by the device's tar, and nothing evil is followed."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgequant.errors import InputError
from edgequant.pack.archives import Member, compress, read_deb, read_tar, read_wheel, write_tar, write_zip

FILES = {"bin/run": Member(b"#!/bin/sh\necho works\n", True), "a": Member(b"A" * 5000), "x/y/z": Member(b"")}


def test_bytes_do_not_depend_on_order_time_or_umask() -> None:
    before = os.umask(0o077)
    try:
        again = write_tar(dict(reversed(FILES.items())))
    finally:
        os.umask(before)
    assert again == write_tar(FILES)
    assert compress(again) == compress(again)
    assert gzip.decompress(compress(again)) == again
    sources = {"b.py": b"2", "a.py": b"1"}
    assert write_zip(sources) == write_zip(dict(sorted(sources.items())))


def test_any_tar_unpacks_it(tmp_path: Path) -> None:
    archive = tmp_path / "pack.tar.gz"
    archive.write_bytes(compress(write_tar(FILES)))
    (tmp_path / "to").mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(tmp_path / "to")], check=True, timeout=60)
    run = subprocess.run([str(tmp_path / "to/bin/run")], capture_output=True, timeout=60, check=True)
    assert run.stdout == b"works\n"
    assert (tmp_path / "to/a").read_bytes() == b"A" * 5000
    assert (tmp_path / "to/x/y/z").read_bytes() == b""


def _tar(*entries: tuple[str, bytes, str | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for name, data, link in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if link is not None:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _deb(path: Path, data: bytes, name: str = "data.tar.xz") -> Path:
    def member(name: str, data: bytes) -> bytes:
        return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)

    path.write_bytes(
        b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("control.tar.xz", b"odd") + member(name, data)
    )
    return path


def test_links_in_a_deb_become_what_they_point_to(tmp_path: Path) -> None:
    data = _tar(
        ("./lib/libz.so.1", b"", "libz.so.1.2"),
        ("./lib/libz.so.1.2", b"library", None),
        ("./lib/libz.so", b"", "libz.so.1"),
        ("./lib/absent", b"", "/etc/passwd"),
        ("./lib/circle", b"", "circle"),
    )
    files = read_deb(_deb(tmp_path / "z.deb", data))
    assert {name: member.data for name, member in files.items()} == {
        "lib/libz.so.1.2": b"library",
        "lib/libz.so.1": b"library",
        "lib/libz.so": b"library",
    }
    assert list(read_deb(tmp_path / "z.deb", only="lib/libz.so.1.2")) == ["lib/libz.so.1.2"]


def test_damaged_inputs_are_named(tmp_path: Path) -> None:
    good = _tar(("./a", b"1", None))
    cases = [
        _deb(tmp_path / "cut.deb", good[: len(good) // 2]),
        _deb(tmp_path / "empty.deb", good, name="other.tar.xz"),
        _deb(tmp_path / "zstd.deb", b"", name="data.tar.zst"),
        _deb(tmp_path / "up.deb", _tar(("../../evil", b"1", None))),
        tmp_path / "no.deb",
    ]
    cases[-1].write_bytes(b"not a package")
    for path in cases:
        with pytest.raises(InputError) as caught:
            read_deb(path)
        assert caught.value.code == "PACK_INPUT_DAMAGED"
        assert path.name in str(caught.value)
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(b"PK nothing")
    with pytest.raises(InputError):
        read_wheel(wheel)
    with pytest.raises(InputError):
        read_tar(io.BytesIO(b"junk" * 1000), tmp_path / "python.tar.gz")


def test_python_starts_a_zip_of_stored_files(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(write_zip({"__main__.py": b"print('from the zip')"}))
    assert zipfile.is_zipfile(path)
    done = subprocess.run([sys.executable, "-I", str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "from the zip\n"
