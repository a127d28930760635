"""The tree of a small pack on a device: whole or not there, whoever else is at it and whatever is in the way."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.store import Store
from edgequant.errors import DeviceError
from edgequant.lab.tree import Tree
from edgequant.pack import Pack
from edgequant.pack.archives import Member, compress, write_tar
from tests.beds.adb import AdbBed
from tests.waiting import ended

pytestmark = pytest.mark.adb

FILES = {
    "bin/python": Member(b"#!/bin/sh\necho started\n", executable=True),
    "boot.py": Member(b"print()\n"),
    "empty": Member(b""),
    "a name with blanks.py": Member(b"blank" * 100),
    **{f"site/package/part{number:02}.so": Member(os.urandom(30_000)) for number in range(40)},
}
Made = Callable[[], tuple[AdbDevice, Store, Tree]]

ROOMY = 1 << 50
"""Bytes: enough to unpack in the way that takes more."""


def soon() -> Deadline:
    return Deadline(60)


def pack_of(folder: Path, files: dict[str, Member], archive: bytes | None = None) -> Pack:
    data = compress(write_tar(files)) if archive is None else archive
    path = folder / "pack.tar.gz"
    path.write_bytes(data)
    sizes = {name: len(member.data) for name, member in files.items()}
    return Pack(
        archive=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data), unpacked_size=sum(sizes.values()),
        arch="any", python="3", mnn="3", numpy="2", start=("{root}/bin/python",), needs=(), precompiled=True,
        key="0" * 32, files=sizes,
    )  # fmt: skip


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return pack_of(tmp_path, FILES)


@pytest.fixture
def root(adb_bed: AdbBed, tmp_path: Path) -> str:
    return str(adb_bed.files / f"tree {tmp_path.name}")


@pytest.fixture
def made(adb_bed: AdbBed, root: str, pack: Pack) -> Iterator[Made]:
    """made(): a device of one's own, its store with the archive in it, and the tree; always the same place."""
    opened = []

    def make() -> tuple[AdbDevice, Store, Tree]:
        device = AdbDevice(adb_bed.uri)
        opened.append(device)
        device.open(soon())
        store = Store(device, root)
        store.prepare(soon())
        return device, store, Tree(device, store.root, pack)

    yield make
    for device in opened:
        device.close()


def put(store: Store, pack: Pack) -> str:
    return store.put(pack.archive, pack.sha256, soon(), room=pack.unpacked_size).path


def names(tree: Tree) -> list[str]:
    return sorted(os.listdir(os.path.dirname(tree.folder)))  # noqa: PTH208, PTH120


@pytest.mark.parametrize("shell", [None, "busybox-static", "mksh"])
def test_unpack_look_damage_and_unpack_again(adb_bed: AdbBed, root: str, pack: Pack, shell: str | None) -> None:
    with AdbDevice(f"adb://{adb_bed.second(shell)}") as device:
        device.open(soon())
        store = Store(device, root)
        store.prepare(soon())
        tree = Tree(device, store.root, pack)
        tree.require_exec()
        assert tree.lacking() is None
        archive = put(store, pack)
        tree.unpack(archive, free=ROOMY)
        assert tree.lacking() == []
        assert names(tree) == [pack.sha256]
        assert not Path(tree.folder, "pack.tar").exists()
        assert device.run(pack.command(tree.folder), soon()).stdout == b"started\n"
        # What Python and others add takes nothing away.
        device.run(["touch", f"{tree.folder}/more"], soon())
        assert tree.lacking() == []
        Path(tree.folder, "a name with blanks.py").unlink()
        Path(tree.folder, "site/package/part07.so").write_bytes(bytes(29_999))
        Path(tree.folder, "boot.py").unlink()
        Path(tree.folder, "boot.py").symlink_to("empty")
        assert tree.lacking() == ["a name with blanks.py", "boot.py", "site/package/part07.so"]
        tree.drop()
        assert names(tree) == []
        assert tree.lacking() is None
        tree.unpack(archive)
        assert tree.lacking() == []


@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_something_else_in_its_place(made: Made, pack: Pack, tmp_path: Path, what: str) -> None:
    _, store, tree = made()
    archive = put(store, pack)
    place = Path(tree.folder)
    place.parent.mkdir()
    if what == "file":
        place.write_text("not a folder")
    else:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "kept").touch()
        place.symlink_to(tmp_path / ("mine" if what == "link" else "nowhere"))
    if os.geteuid() == 0:
        os.lchown(place, 2000, 2000)
        os.chown(place.parent, 2000, 2000)
    assert tree.lacking() is None
    tree.unpack(archive)
    assert tree.lacking() == []
    assert not place.is_symlink()
    assert what == "file" or (tmp_path / "mine" / "kept").exists()


def test_many_at_once(made: Made, pack: Pack) -> None:
    """Each ends with a whole tree, nobody removes another's work, and nothing is left over."""
    _, store, first = made()
    archive = put(store, pack)
    wrong: list[object] = []
    trees = [made()[2] for _ in range(4)]
    for _ in range(4):
        start = threading.Barrier(len(trees))

        def work(tree: Tree, start: threading.Barrier = start) -> None:
            try:
                start.wait(60)
                if tree.lacking() is None:
                    tree.unpack(archive)
                wrong.extend(tree.lacking() or [])
            except Exception as error:  # noqa: BLE001  (what it was is asserted below)
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(tree,)) for tree in trees]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert names(first) == [pack.sha256]
        assert not [name for name in os.listdir(first.folder) if ".new." in name]  # noqa: PTH208
        first.drop()


def test_what_others_left(adb_bed: AdbBed, made: Made, root: str) -> None:
    device, _, tree = made()
    process = device.start(["sh", "-c", "echo $$; sleep 1000"], soon())
    live = int(process.read(100, soon()))
    dead = int(device.run(["sh", "-c", "echo $$"], soon()).stdout)
    mine = f"{tree.folder}.new.mine"
    left = [f"{tree.folder}.new.{dead}.aa", f"{tree.folder}.new.{dead}", f"{tree.folder}.new.{live}.old"]
    busy = f"{tree.folder}.new.{live}.bb"
    device.run(["mkdir", "-p", *left, busy, mine], soon())
    device.run(["touch", "-d", "2 days ago", left[2]], soon())
    assert tree.lacking() is None
    assert names(tree) == sorted(os.path.basename(path) for path in (busy, mine))  # noqa: PTH119
    process.kill()
    assert ended(live)
    assert tree.lacking() is None
    assert names(tree) == [os.path.basename(mine)]  # noqa: PTH119


def test_no_room_for_the_tree_is_known_before_anything_is_sent(
    adb_bed: AdbBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive would fit, what is in it would not."""
    pack = pack_of(tmp_path, {"large": Member(bytes(3_000_000)), "other": Member(os.urandom(1000))})
    assert pack.size < 100_000
    monkeypatch.setattr("edgequant.devices.store.SPACE_MARGIN", 0)
    with AdbDevice(adb_bed.uri) as device:
        device.open(soon())
        store = Store(device, str(adb_bed.small / "room"))
        store.prepare(soon())
        with pytest.raises(DeviceError) as caught:
            put(store, pack)
        assert caught.value.code == "NO_SPACE"
        assert "3.0 MB to be unpacked" in caught.value.message
        assert "devices clean" in (caught.value.hint or "")
        assert store.sent_bytes == 0
        # Nor is it unpacked where the archive is there already.
        path = store.put(pack.archive, pack.sha256, soon()).path
        with pytest.raises(DeviceError) as caught:
            put(store, pack)
        assert caught.value.code == "NO_SPACE"
        # And where nobody looked before, or somebody else took the rest meanwhile, nothing of it stays.
        tree = Tree(device, store.root, pack)
        for free in (None, ROOMY):
            with pytest.raises(DeviceError) as caught:
                tree.unpack(path, free=free)
            assert caught.value.code == "NO_SPACE"
            assert caught.value.hint
        assert not device.run(["ls", f"{store.root}/packs"], soon()).stdout.strip()
        store.clean(soon())


def test_an_archive_that_ends_early(adb_bed: AdbBed, made: Made, pack: Pack, tmp_path: Path) -> None:
    """tar may not mind; the sizes do."""
    device, store, tree = made()
    whole = put(store, pack)
    for cut, name in ((pack.size // 2, "cut"), (0, "nothing")):
        place = f"{store.root}/{name}"
        (tmp_path / name).write_bytes(pack.archive.read_bytes()[:cut])
        device.send_file(tmp_path / name, place, soon())
        for free in (None, ROOMY):
            with pytest.raises(DeviceError) as caught:
                tree.unpack(place, free=free)
            assert caught.value.code == "PACK_NOT_UNPACKED"
            assert names(tree) == []
    other = pack_of(tmp_path, {name: member for name, member in FILES.items() if name != "boot.py"})
    device.send_file(other.archive, f"{store.root}/other", soon())
    with pytest.raises(DeviceError) as caught:
        tree.unpack(f"{store.root}/other")
    assert caught.value.code == "PACK_NOT_UNPACKED"
    assert "boot.py" in caught.value.message
    assert names(tree) == []
    tree.unpack(whole)
    assert tree.lacking() == []
