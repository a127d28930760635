"""Work directories: odd names, where they are by default, and those that are not ours to use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.devices.store_scripts import MARKER
from edgequant.errors import DeviceError, InputError
from edgequant.files import sha256_of
from tests.devices.support import TIME, mode, mounted, prepared, put, refused, tree


def test_an_empty_directory_of_ours_becomes_private(device: LocalDevice, work: Path) -> None:
    work.mkdir(mode=0o755)
    prepared(device, work)
    assert mode(work) == 0o700


@pytest.mark.parametrize(
    "name",
    [
        "with spaces",
        "it's",
        'a "b" $HOME `id` \\n \\c',
        "line\nbreak",
        "ends with\n",
        "\u00e4\u4e2d",
        "*",
        "a;b&c|d",
        "=x=",
    ],
)
def test_odd_names(device: LocalDevice, tmp_path: Path, source: Path, name: str) -> None:
    work = tmp_path / "parent" / name
    store = prepared(device, work)
    assert store.root == str(work)
    path = put(store, source)
    assert path == work / "objects" / sha256_of(source)
    assert path.read_bytes() == source.read_bytes()
    store.clean(TIME)
    assert list((tmp_path / "parent").iterdir()) == []


def test_home_and_default(device: LocalDevice, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert prepared(device, "~/models").root == f"{tmp_path}/home/models"
    default = Store(device)
    default.prepare(TIME)
    assert default.root == f"{tmp_path}/home/.cache/edgequant/device"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    default.prepare(TIME)
    assert default.root == f"{tmp_path}/cache/edgequant/device"
    # Where the cache cannot be made, a private directory for temporary files does.
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))
    default.prepare(TIME)
    assert default.root == f"{tmp_path}/tmp/edgequant-{os.getuid()}"
    monkeypatch.setenv("TMPDIR", str(source))
    with pytest.raises(DeviceError, match=r"Not a directory.*Not a directory") as caught:
        default.prepare(TIME)
    assert caught.value.code == "WORK_DIR_UNUSABLE"


@pytest.mark.parametrize("name", ["relative", "./x", "~", "~root/x", "", "-rf"])
def test_no_absolute_path(device: LocalDevice, name: str) -> None:
    with pytest.raises(InputError) as caught:
        Store(device, name)
    assert caught.value.code == "WORK_DIR_INVALID"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_symbolic_link_is_refused(device: LocalDevice, tmp_path: Path, slash: str) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(DeviceError, match="is a symbolic link") as caught:
        prepared(device, f"{tmp_path}/link{slash}")
    assert caught.value.code == "WORK_DIR_UNUSABLE"
    assert list((tmp_path / "target").iterdir()) == []


def test_somebody_elses_directory_is_refused(device: LocalDevice, work: Path) -> None:
    work.mkdir(mode=0o777)
    os.chown(work, 65534, 65534)
    error = refused(device, work)
    assert error.code == "WORK_DIR_UNUSABLE"
    assert "belongs to somebody else" in str(error)
    assert "--work-dir" in str(error.hint)
    assert list(work.iterdir()) == []


def test_a_directory_with_another_use_is_refused(device: LocalDevice, work: Path) -> None:
    work.mkdir(mode=0o755)
    (work / "photo.jpg").touch()
    assert "is used for other things" in str(refused(device, work))
    (work / "photo.jpg").unlink()
    work.chmod(0o1777)  # as /tmp is
    assert "is used for other things" in str(refused(device, work))
    assert work.stat().st_mode & 0o7777 == 0o1777
    assert "is used for other things" in str(refused(device, "/"))


@pytest.mark.parametrize(
    "name",
    [
        "incoming/scan.pdf",
        "incoming/.hidden",
        "objects/model.blend",
        "objects/" + "A" * 64,
        "objects/" + "a" * 63,
        "incoming/" + "a" * 16 + "." + "b" * 15,
        "incoming/" + "a" * 16,
        "notes.txt",
        "other/x",
        ".git/config",
    ],
)
def test_a_folder_of_the_user_that_looks_like_a_store(device: LocalDevice, work: Path, name: str) -> None:
    (work / "incoming").mkdir(parents=True)
    (work / "objects").mkdir()
    path = work / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    os.utime(path, (1, 1))
    work.chmod(0o755)
    before = tree(work)
    assert "is used for other things" in str(refused(device, work))
    with pytest.raises(DeviceError) as caught:
        Store(device, str(work)).clean(TIME)
    assert caught.value.code == "WORK_DIR_UNUSABLE"
    assert tree(work) == before
    assert mode(work) == 0o755


def test_a_marker_or_a_folder_that_is_a_link_makes_no_store(device: LocalDevice, tmp_path: Path, work: Path) -> None:
    (work / "incoming").mkdir(parents=True)
    (tmp_path / "x").touch()
    (work / MARKER).symlink_to(tmp_path / "x")
    (work / "mine").touch()
    assert "is used for other things" in str(refused(device, work))
    (work / "mine").unlink()
    assert "is used for other things" in str(refused(device, work))
    other = tmp_path / "other"
    (other / "incoming").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (other / "objects").symlink_to(tmp_path / "elsewhere")
    assert "is used for other things" in str(refused(device, other))


def test_a_store_without_a_marker_is_known_again(device: LocalDevice, work: Path, source: Path) -> None:
    digest = put(prepared(device, work), source).name
    (work / "incoming" / f"{'a' * 16}.{'0' * 16}").touch()
    (work / MARKER).unlink()
    store = prepared(device, work)
    assert (work / MARKER).is_file()
    assert store.have([digest], TIME) == {digest}
    (work / MARKER).unlink()
    shutil.rmtree(work / "objects")  # an interrupted first use
    prepared(device, work)
    assert (work / "objects").is_dir()


def test_the_device_knows_its_own_places(tmp_path: Path) -> None:
    class Elsewhere(LocalDevice):
        @property
        def work_dirs(self) -> tuple[str, ...]:
            return (str(tmp_path / "file"), str(tmp_path / "own"))

    (tmp_path / "file").touch()
    with Elsewhere() as device:
        store = Store(device)
        store.prepare(TIME)
        assert store.root == str(tmp_path / "own")
        assert LocalDevice().work_dirs == ("@home", "@tmp")


def test_a_file_in_the_way(device: LocalDevice, work: Path) -> None:
    work.touch()
    assert refused(device, work).code == "WORK_DIR_UNUSABLE"


def test_no_permission(tmp_path: Path) -> None:
    # As nobody where the tests run as root, who may do anything.
    script = f"""
        import os, sys
        sys.path[:0] = {[entry for entry in sys.path if entry]!r}
        from edgequant.deadline import Deadline
        from edgequant.devices.local import LocalDevice
        from edgequant.devices.store import Store
        from edgequant.errors import DeviceError
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            Store(LocalDevice(), "/var/edgequant-test").prepare(Deadline(60))
        except DeviceError as error:
            print(error.code, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd="/")
    assert done.stdout.startswith("PERMISSION_DENIED local: no usable work directory: /var/edgequant-test: "), done


def test_read_only(device: LocalDevice, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    prepared(device, folder / "work")
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        for name in ("work", "new"):
            assert refused(device, folder / name).code == "READ_ONLY"
