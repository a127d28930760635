"""The store, on this host: what is private, whole, sent once, and what happens when something is in the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult
from edgequant.devices.store import SPACE_MARGIN, Store, sha256_of
from edgequant.devices.store_scripts import MARKER
from edgequant.errors import DeviceError, InputError
from tests.beds.adb_packages import unpacked

TIME = Deadline(None)  # every test has a time limit of its own


@pytest.fixture
def device() -> Iterator[LocalDevice]:
    with LocalDevice() as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.mnn"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def prepared(device: LocalDevice, work: Path | str) -> Store:
    store = Store(device, str(work))
    store.prepare(TIME)
    return store


def put(store: Store, source: Path) -> Path:
    return Path(store.put(source, sha256_of(source), TIME).path)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def refused(device: LocalDevice, work: Path | str) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        prepared(device, work)
    assert caught.value.where == "local:"
    assert str(work) in str(caught.value)
    return caught.value


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


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


def test_an_empty_directory_of_ours_becomes_private(device: LocalDevice, work: Path) -> None:
    work.mkdir(mode=0o755)
    prepared(device, work)
    assert mode(work) == 0o700


def test_sent_once(device: LocalDevice, work: Path, source: Path) -> None:
    first = prepared(device, work)
    path = put(first, source)
    before = path.stat()
    sent: list[int] = []
    assert first.put(source, sha256_of(source), TIME, progress=sent.append).sent == 0
    assert prepared(device, work).put(source, sha256_of(source), TIME, progress=sent.append).sent == 0
    assert sent == []
    assert path.stat().st_ino == before.st_ino


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


# ---- interruptions


_PUSH = """
    import sys, time
    from pathlib import Path
    from edgequant.deadline import Deadline
    from edgequant.devices.local import LocalDevice
    from edgequant.devices.store import Store, sha256_of
    source, work, slow = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "slow"
    def progress(size):
        if slow:
            print("sending", flush=True)
            time.sleep(600)
    store = Store(LocalDevice(), work)
    store.prepare(Deadline(60))
    digest = sha256_of(source)
    print("ready", flush=True)
    sys.stdin.readline()
    print(store.put(source, digest, Deadline(60), progress=progress).sent, flush=True)
"""


def pusher(source: Path, work: Path, how: str = "fast") -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", textwrap.dedent(_PUSH), str(source), str(work), how]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_killed_push_leaves_no_object(device: LocalDevice, work: Path, source: Path) -> None:
    source.write_bytes(os.urandom(3 << 20))
    with pusher(source, work, "slow") as child:
        assert said(child) == "ready"
        go(child)
        assert said(child) == "sending"
        child.send_signal(signal.SIGKILL)
        child.wait()
    (left,) = (work / "incoming").iterdir()
    assert left.stat().st_size < 3 << 20
    assert list((work / "objects").iterdir()) == []
    store = prepared(device, work)
    assert store.put(source, sha256_of(source), TIME).sent == 3 << 20
    assert left.exists()  # it may belong to a push that still runs


def test_two_pushes_at_once(work: Path, source: Path) -> None:
    source.write_bytes(os.urandom(8 << 20))
    with pusher(source, work) as one, pusher(source, work) as other:
        assert [said(one), said(other)] == ["ready", "ready"]
        go(one)
        go(other)
        assert {said(one), said(other)} <= {"0", str(8 << 20)}
    (path,) = (work / "objects").iterdir()
    assert path.read_bytes() == source.read_bytes()
    assert list((work / "incoming").iterdir()) == []


def test_old_leftovers_are_removed(device: LocalDevice, work: Path, source: Path) -> None:
    prepared(device, work)
    old, young, new = (f"{digit * 16}.{'0' * 16}" for digit in "abc")
    for name, age in ((old, 49 * 3600), (young, 23 * 3600), (new, 0), ("mine.txt", 49 * 3600)):
        path = work / "incoming" / name
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    path = put(prepared(device, work), source)
    os.utime(path, (1, 1))
    prepared(device, work)
    assert sorted(entry.name for entry in (work / "incoming").iterdir()) == sorted([young, new, "mine.txt"])
    assert path.exists()  # objects have no age


# ---- work directories


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


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(file.relative_to(folder)): file.read_bytes() if file.is_file() else None for file in folder.rglob("*")}


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
    # As another user, because root may do anything.
    script = f"""
        import os, sys
        sys.path[:0] = {[entry for entry in sys.path if entry]!r}
        from edgequant.deadline import Deadline
        from edgequant.devices.local import LocalDevice
        from edgequant.devices.store import Store
        from edgequant.errors import DeviceError
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


def test_an_interrupted_push_leaves_nothing(device: LocalDevice, work: Path, source: Path) -> None:
    def press(size: int) -> None:
        raise KeyboardInterrupt

    store = prepared(device, work)
    with pytest.raises(KeyboardInterrupt):
        store.put(source, sha256_of(source), TIME, progress=press)
    assert list((work / "incoming").iterdir()) == []
    assert list((work / "objects").iterdir()) == []


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


# ---- tools of small systems


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """only("openssl"): from here on the device has no other tool that hashes."""

    def limit(*hashers: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in (
            "sh",
            "mkdir",
            "rm",
            "mv",
            "chmod",
            "find",
            "df",
            "awk",
            "id",
            "cat",
            "ls",
            "du",
            "rmdir",
            *hashers,
        ):
            found = shutil.which(name)
            assert found, name
            (folder / name).symlink_to(found)
        monkeypatch.setenv("PATH", str(folder))

    return limit


@pytest.mark.parametrize("tool", ["sha256sum", "shasum", "openssl"])
def test_hash_tools(device: LocalDevice, work: Path, source: Path, only: Callable[..., None], tool: str) -> None:
    digest = sha256_of(source)
    if shutil.which(tool) is None:
        pytest.fail(f"this test needs {tool}")
    only(*(["shasum", "perl"] if tool == "shasum" else [tool]))
    store = prepared(device, work)
    assert store.put(source, digest, TIME).sent == 300_000
    assert prepared(device, work).put(source, digest, TIME).sent == 0


def test_no_hash_tool(device: LocalDevice, work: Path, source: Path, only: Callable[..., None]) -> None:
    digest = sha256_of(source)
    only()
    store = prepared(device, work)
    with pytest.raises(DeviceError) as caught:
        store.put(source, digest, TIME)
    assert caught.value.code == "HASH_TOOL_MISSING"


# ---- clean


def test_clean(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    put(store, source)
    assert 300_000 <= store.clean(TIME) < 400_000
    assert not work.exists()
    store.prepare(TIME)
    assert store.put(source, sha256_of(source), TIME).sent == 300_000


def test_clean_keeps_what_is_not_ours(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    (work / "notes.txt").write_text("mine")
    put(store, source)
    assert store.clean(TIME) > 0
    assert [entry.name for entry in work.iterdir()] == ["notes.txt"]


def test_clean_takes_nothing_by_its_place(device: LocalDevice, work: Path, source: Path) -> None:
    store = prepared(device, work)
    put(store, source)
    (work / "incoming" / f"{'a' * 16}.{'0' * 16}").touch()
    for name in ("objects/model.blend", "incoming/scan.pdf", "objects/-rf"):
        (work / name).write_bytes(b"mine")
    assert 300_000 <= store.clean(TIME) < 400_000
    assert sorted(name for name, data in tree(work).items() if data is not None) == [
        "incoming/scan.pdf", "objects/-rf", "objects/model.blend",
    ]  # fmt: skip


def test_clean_makes_nothing(device: LocalDevice, work: Path, source: Path) -> None:
    assert Store(device, str(work)).clean(TIME) == 0
    assert not work.exists()
    work.mkdir(mode=0o755)
    assert Store(device, str(work)).clean(TIME) == 0
    assert mode(work) == 0o755  # nobody's yet
    store = prepared(device, work)
    put(store, source)
    assert Store(device, str(work)).clean(TIME) >= 300_000
    assert not work.exists()
    assert store.clean(TIME) == 0


def test_clean_without_a_directory_named(
    device: LocalDevice, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    taken = tmp_path / f"edgequant-{os.getuid()}"
    taken.mkdir()
    (taken / "mine").touch()
    default = Store(device)
    default.prepare(TIME)
    put(default, source)
    assert Store(device).clean(TIME) >= 300_000
    assert (taken / "mine").exists()


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


@pytest.mark.parametrize("shell", ["dash", "bash", "mksh", "busybox"])
def test_every_shell(
    device: LocalDevice, tmp_path: Path, work: Path, source: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    # Never skipped: phones have no other shell than mksh, and it once was the one that broke.
    package = {"busybox": "busybox-static"}.get(shell, shell)
    path = shutil.which(shell) or str(unpacked(package) / "bin" / shell)
    assert os.access(path, os.X_OK)  # a dangling link would let the host's own sh do the work
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    store = prepared(device, work)
    digest = put(store, source).name
    (work / MARKER).unlink()
    assert prepared(device, work).have([digest, "0" * 64], TIME) == {digest}
    (work / "objects" / "mine").touch()
    assert Store(device, str(work)).clean(TIME) >= 300_000
    assert (work / "objects" / "mine").exists()
    assert "is used for other things" in str(refused(device, work))


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
