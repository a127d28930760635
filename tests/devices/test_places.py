"""Looking for the work directory decides as making it does, and makes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.facts import Readings, read
from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.devices.store_scripts import MARKER
from edgequant.errors import DeviceError
from tests.beds.adb_packages import unpacked
from tests.devices.support import mounted

TIME = Deadline(None)


def look(root: Path) -> Readings:
    with LocalDevice() as device:
        return read(device, Deadline(60), Store(device, str(root)).candidates)


def tree(folder: Path) -> list[tuple[str, int, int, int]]:
    """Everything in and around it, as far as a change would show."""
    found = [folder, *folder.rglob("*")]
    return sorted((str(path), (s := path.lstat()).st_mode, s.st_mtime_ns, s.st_uid) for path in found)


def _ours(root: Path) -> None:
    with LocalDevice() as device:
        Store(device, str(root)).prepare(TIME)


def _older(root: Path) -> None:
    _ours(root)
    (root / MARKER).unlink()


def _used(root: Path) -> None:
    root.mkdir()
    (root / "notes").touch()


def _marker_link(root: Path) -> None:
    root.mkdir()
    (root / MARKER).symlink_to("/dev/null")


def _foreign(root: Path) -> None:
    root.mkdir()
    os.chown(root, 12345, 12345)


def _link(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    root.symlink_to(root.parent / "elsewhere")


def _sticky(root: Path) -> None:
    root.mkdir()
    root.chmod(0o1777)


SITUATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: None, "new"),
    "deep": (lambda root: None, "new"),
    "empty": (lambda root: root.mkdir(), "free"),
    "ours": (_ours, "ours"),
    "older": (_older, "free"),
    "used": (_used, "in use"),
    "marker link": (_marker_link, "in use"),
    "foreign": (_foreign, "somebody else's"),
    "link": (_link, "link"),
    "dangling": (lambda root: root.symlink_to("/nowhere/at/all"), "link"),
    "file": (lambda root: root.touch(), "no directory"),
    "under a file": (lambda root: root.parent.joinpath("file").touch(), "no directory"),
    "shared": (_sticky, "in use"),
}


@pytest.mark.parametrize("shell", ["dash", "bash", "mksh", "busybox"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_it_says_what_making_it_will_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, situation: str, shell: str
) -> None:
    make, state = SITUATIONS[situation]
    package = {"busybox": "busybox-static"}.get(shell, shell)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(shutil.which(shell) or unpacked(package) / "bin" / shell)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    here = tmp_path / "here"
    here.mkdir()
    root = here / {"deep": "a/b c/d", "under a file": "file/work"}.get(situation, "work dir")
    make(here / "work dir")
    before = tree(here)
    readings = look(root)
    assert tree(here) == before
    (place,) = readings.places
    assert (place.root, place.state) == (str(root), state)
    assert place.free or state == "link"  # of one that leads nowhere
    assert place.mount
    with LocalDevice() as device:
        store = Store(device, str(root))
        if readings.place is not None:
            store.prepare(TIME)
            assert store.root == place.root
            return
        with pytest.raises(DeviceError) as caught:
            store.prepare(TIME)
    # Where mkdir itself stumbles, each system has its own words.
    assert place.why in str(caught.value) or situation in ("dangling", "file", "under a file")


def test_read_only_is_seen_even_by_root(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "ro", "tmpfs") as small:
        readings = look(small / "work")
    assert readings.place is None
    assert readings.places[0].why.endswith(": Read-only file system")
    assert readings.places[0].mount == str(small)


def test_the_first_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with LocalDevice() as device:
        candidates = Store(device).candidates
        readings = read(device, Deadline(60), candidates)
        assert readings.place is not None
        assert readings.place.root == f"{tmp_path}/cache/edgequant/device"
        (tmp_path / "cache").touch()
        readings = read(device, Deadline(60), candidates)
        assert [place.usable for place in readings.places] == [False, True]
        assert readings.place is not None
        assert readings.place.root == f"{tmp_path}/edgequant-{os.getuid()}"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_packs_that_are_there(tmp_path: Path) -> None:
    work = tmp_path / "work"
    _ours(work)
    for name in ("a" * 64, "b" * 63, "c" * 64 + ".new.17", "d e"):
        (work / "packs" / name).mkdir(parents=True)
    (work / "packs" / ("e" * 64)).touch()
    (place,) = look(work).places
    assert place.packs == {"a" * 64}


def test_without_root(tmp_path: Path) -> None:
    """Where this user may not write, and that is said in the same words."""
    if os.geteuid() != 0:
        pytest.fail("this test needs root to become nobody")
    code = (
        "import os\n"
        "from edgequant.deadline import Deadline; from edgequant.devices.facts import read\n"
        "from edgequant.devices.local import LocalDevice\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "(place,) = read(LocalDevice(), Deadline(60), ['/var/edgequant-test']).places\n"
        "print(place.why)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout == "/var/edgequant-test: Permission denied\n", done.stderr
