"""The store, on this host: what is private, whole and sent once, and whether there is space for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult
from edgequant.devices.store import SPACE_MARGIN
from edgequant.errors import DeviceError
from edgequant.files import sha256_of
from tests.devices.support import TIME, mode, mounted, prepared, put, refused


def test_private_and_whole(device: LocalDevice, work: Path, source: Path) -> None:
    old = os.umask(0)
    try:
        store = prepared(device, work)
        stored = store.put(source, sha256_of(source), TIME)
    finally:
        os.umask(old)
    path = Path(stored.path)
    assert store.root == str(work)
    assert path.read_bytes() == source.read_bytes()
    assert path.name == sha256_of(source) == hashlib.sha256(source.read_bytes()).hexdigest()
    assert [mode(work), mode(path.parent), mode(work / "incoming"), mode(path)] == [0o700, 0o700, 0o700, 0o600]
    assert list((work / "incoming").iterdir()) == []
    assert store.free_bytes is not None
    assert store.free_bytes > 0
    assert (stored.sent, store.sent_bytes) == (300_000, 300_000)


def test_sent_once(device: LocalDevice, work: Path, source: Path) -> None:
    first = prepared(device, work)
    path = put(first, source)
    before = path.stat()
    sent: list[int] = []
    assert first.put(source, sha256_of(source), TIME, progress=sent.append).sent == 0
    assert prepared(device, work).put(source, sha256_of(source), TIME, progress=sent.append).sent == 0
    assert sent == []
    assert path.stat().st_ino == before.st_ino


def test_cleaned_while_it_is_sent(device: LocalDevice, work: Path, source: Path) -> None:
    """By another edgequant: no storage is failing, and the place can be prepared again."""
    other = prepared(device, work)
    store = prepared(device, work)
    with pytest.raises(DeviceError) as caught:
        store.put(source, sha256_of(source), TIME, progress=lambda _: other.clean(TIME))
    assert (caught.value.code, caught.value.transient) == ("WORK_DIR_CLEANED", True)
    assert not store.is_there()
    store.prepare(TIME)
    assert store.is_there()
    assert put(store, source).read_bytes() == source.read_bytes()


def test_cleaned_before_it_is_sent(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    prepared(device, work).clean(TIME)
    with pytest.raises(DeviceError) as caught:
        put(store, source)
    assert caught.value.code == "WORK_DIR_CLEANED"


def test_other_contents_under_the_same_name(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    first = put(store, source)
    source.write_bytes(bytes(300_000))
    second = put(store, source)
    assert first != second
    assert second.read_bytes() == bytes(300_000)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer"])
def test_a_damaged_object_is_sent_again(device: LocalDevice, work: Path, source: Path, damage: str) -> None:
    path = put(prepared(device, work), source)
    good = path.read_bytes()
    flipped = bytes([good[0] ^ 1]) + good[1:]
    path.write_bytes({"flipped": flipped, "cut": good[:-1], "empty": b"", "longer": good + b"x"}[damage])
    os.utime(path, (1, 1))
    store = prepared(device, work)
    assert store.have([path.name], TIME) == set()
    assert store.put(source, path.name, TIME).sent == 300_000
    assert path.read_bytes() == good


def test_have(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    digest = put(store, source).name
    assert store.have([], TIME) == set()
    assert store.have([digest, "0" * 64], TIME) == {digest}


def test_a_file_that_is_not_what_was_announced(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    wrong = "0" * 64
    with pytest.raises(DeviceError) as caught:
        store.put(source, wrong, TIME)
    assert caught.value.code == "PUSH_CORRUPTED"
    assert caught.value.transient
    assert list((work / "incoming").iterdir()) == []
    assert not (work / "objects" / wrong).exists()


def test_no_space_is_known_before_anything_is_sent(device: LocalDevice, tmp_path: Path, source: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as small:
        store = prepared(device, small / "work")
        sent: list[int] = []
        with pytest.raises(DeviceError, match=r"needs 0\.3 MB and 17 MB to spare") as caught:
            store.put(source, sha256_of(source), TIME, progress=sent.append)
        assert caught.value.code == "NO_SPACE"
        assert "devices clean local:" in str(caught.value.hint)
        assert sent == []


def test_space_that_runs_out_while_sending(device: LocalDevice, tmp_path: Path, source: Path) -> None:
    source.write_bytes(bytes(4 << 20))
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", f"size={SPACE_MARGIN + (8 << 20)}", "tmpfs") as small:
        store = prepared(device, small / "work")
        (small / "other").write_bytes(bytes(SPACE_MARGIN + (6 << 20)))
        with pytest.raises(DeviceError) as caught:
            put(store, source)
        assert caught.value.code == "NO_SPACE"
        assert list((small / "work" / "incoming").iterdir()) == []  # so that the next one has its space
        (small / "other").unlink()
        assert put(store, source).read_bytes() == source.read_bytes()


def test_space_is_asked_for_when_it_is_needed(device: LocalDevice, tmp_path: Path, source: Path) -> None:
    """It may have changed since the store was prepared, in both directions."""
    sent: list[int] = []
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", f"size={SPACE_MARGIN + (4 << 20)}", "tmpfs") as small:
        (small / "other").write_bytes(bytes(SPACE_MARGIN))
        store = prepared(device, small / "work")
        (small / "other").unlink()
        path = put(store, source)
        path.unlink()
        store = prepared(device, small / "work")
        (small / "other").write_bytes(bytes(SPACE_MARGIN))
        with pytest.raises(DeviceError) as caught:
            store.put(source, sha256_of(source), TIME, progress=sent.append)
        assert caught.value.code == "NO_SPACE"
        assert sent == []


def test_no_space_for_anything(device: LocalDevice, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        prepared(device, small / "work")
        with contextlib.suppress(OSError):
            (small / "other").write_bytes(bytes(2 << 20))
        assert refused(device, small / "work").code == "NO_SPACE"


@pytest.mark.parametrize("kind", ["directory", "link to a directory", "dangling link", "pipe"])
@pytest.mark.parametrize("when", ["before", "after asking"])
def test_what_is_no_file_under_an_objects_name(
    device: LocalDevice, tmp_path: Path, work: Path, source: Path, kind: str, when: str
) -> None:
    store = prepared(device, work)
    (tmp_path / "elsewhere").mkdir()
    path = work / "objects" / sha256_of(source)
    if when == "after asking":
        store.have = lambda digests, deadline: set()  # type: ignore[method-assign]
    if kind == "directory":
        path.mkdir()
        (path / "x").touch()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / ("elsewhere" if kind == "link to a directory" else "nowhere"))
    assert put(store, source) == path
    assert path.is_file()
    assert not path.is_symlink()
    assert path.read_bytes() == source.read_bytes()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_many_digests_are_asked_for_in_parts(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    digest = put(store, source).name
    asked: list[int] = []
    run = device.run

    def counted(argv: Sequence[str], *given: Any, **named: Any) -> CommandResult:
        asked.append(len(argv))
        return run(argv, *given, **named)

    device.run = counted  # type: ignore[method-assign]
    wanted = [f"{number:064x}" for number in range(1200)]
    assert store.have([*wanted, digest, digest], TIME) == {digest}
    assert len(asked) == 3
    assert max(asked) <= 510


def test_objects_that_vanish_are_an_error(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    shutil.rmtree(work)
    with pytest.raises(DeviceError) as caught:
        put(store, source)
    assert caught.value.where == "local:"


def test_sha256_of(tmp_path: Path) -> None:
    path = tmp_path / "a b"
    path.write_bytes(bytes(3_000_001))
    said_by_system = subprocess.run(f"sha256sum < {shlex.quote(str(path))}", shell=True, capture_output=True, text=True)
    assert sha256_of(path) == said_by_system.stdout.split()[0]
