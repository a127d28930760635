"""The pack itself: reproducible, small, complete, and at home nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant.pack import (
    Pack,
    PackOptions,
    build_pack,
    bytecode,
    clean_packs,
    default_cache,
    elf,
    list_packs,
    unpacked,
)
from edgequant.pack.archives import Member, compress, read_deb, write_tar
from edgequant.pack.inputs import Inputs
from edgequant.pack.lock import read_lock, write_lock
from edgequant.pack.trust import Trusted
from edgequant.progress import Progress

pytestmark = [pytest.mark.arm64, pytest.mark.slow]

BUILD = """
import sys
from pathlib import Path
from edgequant.pack import build_pack
from edgequant.progress import Progress
class Says(Progress):
    def say(self, text):
        print(text, flush=True)
pack = build_pack(cache_dir=Path(sys.argv[1]), progress=Says())
print("sha256", pack.sha256, flush=True)
"""
VERSIONS = "import MNN, numpy, psutil, platform; print(MNN.version(), numpy.__version__, platform.python_version())"


class Lines(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def other_cache(pack: Pack, tmp_path: Path) -> Iterator[Path]:
    """A cache of its own with all inputs in it, so that nothing is fetched twice."""
    cache = tmp_path / "a cache of its own"
    shutil.copytree(default_cache() / "inputs", cache / "inputs", ignore=shutil.ignore_patterns("qemu*"))
    yield cache
    shutil.rmtree(cache)  # pytest would keep a few hundred MB of it


def _start(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "random"}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(cache)], stdout=subprocess.PIPE, text=True, env=environment
    )


def _emulated(qemu: str, command: tuple[str, ...], *arguments: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [qemu, "-cpu", "cortex-a76", *command, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd, env={}
    )


@pytest.mark.nightly
def test_the_same_inputs_give_the_same_bytes(pack: Pack, other_cache: Path) -> None:
    """Built in another process, at another time, in another place, after a build that was killed, by two at once."""
    first = _start(other_cache)
    assert first.stdout is not None
    assert first.stdout.readline().startswith("building the pack")
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    first.stdout.close()
    assert list_packs(other_cache) == []

    both = [_start(other_cache), _start(other_cache)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(f"sha256 {pack.sha256}" in text for text in said), said
    # One built, the other waited for it.
    assert sum("building the pack" in text for text in said) == 1
    assert sum("waiting for another edgequant" in text for text in said) <= 1

    (found,) = list_packs(other_cache)
    assert found.archive.read_bytes() == pack.archive.read_bytes()
    # A damaged pack is not a pack.
    found.archive.write_bytes(found.archive.read_bytes()[:-1] + b"\0")
    assert list_packs(other_cache) == []
    assert clean_packs(other_cache) > found.size
    assert not [path for path in other_cache.rglob("*") if path.name != ".lock"]


def test_a_second_call_builds_nothing(pack: Pack) -> None:
    listener = Lines()
    assert build_pack(progress=listener) == pack
    assert not [line for line in listener.said if "building" in line or "fetching" in line]
    assert pack in list_packs()


def test_it_is_small_and_plain(pack: Pack) -> None:
    assert pack.size < 30_000_000
    assert pack.size == pack.archive.stat().st_size
    with tarfile.open(pack.archive) as tar:
        entries = tar.getmembers()
    assert all(entry.isfile() or entry.isdir() for entry in entries)
    assert all(entry.uid == entry.gid == 0 and entry.mode in (0o644, 0o755) for entry in entries)
    assert all(not entry.name.startswith(("/", "..")) for entry in entries)
    assert pack.unpacked_size == sum(entry.size for entry in entries)
    head = pack.archive.read_bytes()[:10]
    assert head[:4] == b"\x1f\x8b\x08\0"  # gzip, without a name
    assert head[4:8] == bytes(4)  # and without a time


def test_the_manifest_lists_every_file(pack: Pack, pack_tree: Path) -> None:
    manifest = json.loads((pack_tree / "pack.json").read_bytes())
    files = {str(path.relative_to(pack_tree)) for path in pack_tree.rglob("*") if path.is_file()} - {"pack.json"}
    assert set(manifest["files"]) == files
    for name, known in manifest["files"].items():
        data = (pack_tree / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (known["size"], known["sha256"])
    assert (manifest["arch"], manifest["mnn"], manifest["python"]) == ("aarch64", pack.mnn, pack.python)
    assert tuple(manifest["start"]) == pack.start
    assert manifest["needs"] == []
    lock = read_lock()
    assert {item["sha256"] for item in manifest["inputs"]} == {item.sha256 for item in (*lock.debs, *lock.wheels)}


def test_every_part_has_its_licence(pack_tree: Path) -> None:
    manifest = json.loads((pack_tree / "LICENSES/manifest.json").read_bytes())
    parts = {part["name"]: part for part in manifest["components"]}
    lock = read_lock()
    assert set(parts) == {item.name for item in (*lock.debs, *lock.wheels)}
    for name, part in parts.items():
        assert all((pack_tree / "LICENSES" / file).is_file() for file in part["files"])
        # libgcc, libstdc++ and Python's library keep theirs in another package.
        shared = {"libgcc-s1", "libstdc++6", "libpython3.11-stdlib"}
        assert part["files"] or name in shared, name
    assert parts["numpy"]["license"]
    assert (pack_tree / "LICENSES/common-licenses/LGPL-2.1").is_file()


def test_nothing_in_it_tells_where_it_was_built(pack_tree: Path) -> None:
    own = [
        str(default_cache()),
        str(Path.home()),
        str(Path(__file__).parents[2]),
        "edgequant-compile",
        os.uname().nodename,
    ]
    words = [word.encode() for word in own if len(word) > 5]
    for path in pack_tree.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [word for word in words if word in data], path


def test_it_brings_every_library_it_needs(pack_tree: Path) -> None:
    names = {path.name for path in pack_tree.rglob("*")}
    for path in pack_tree.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if elf.is_elf(data):
            assert elf.machine(data) == elf.AARCH64
            assert set(elf.needed(data)) <= names, path
            assert elf.stripped(data) == data, f"{path} is not stripped"


def test_it_starts_anywhere_with_an_empty_environment(pack: Pack, qemu: str, tmp_path: Path) -> None:
    place = tmp_path / "another place, with spaces"
    place.mkdir()
    subprocess.run(["tar", "-xzf", str(pack.archive), "-C", str(place)], check=True, timeout=120)
    done = _emulated(qemu, pack.command(str(place)), "-u", "-c", VERSIONS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [pack.mnn, pack.numpy, pack.python]
    assert done.stderr == ""
    # Every path inside of it, and no bytecode written: the directory stays as its manifest says.
    code = "import sys, MNN; print(*sys.path, sep='\\n'); print(MNN.__file__)"
    paths = _emulated(qemu, pack.command(str(place)), "-c", code).stdout.splitlines()[1:]
    assert all(path.startswith(str(place)) for path in paths), paths
    assert not list(place.rglob("__pycache__"))
    # Through a relative path as well, and after the directory has moved.
    place.rename(tmp_path / "moved")
    done = _emulated(qemu, pack.command("./moved"), "-c", VERSIONS, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_boot_is_a_python(pack: Pack, pack_tree: Path, qemu: str, tmp_path: Path) -> None:
    command = pack.command(str(pack_tree))
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:], __name__)\nsys.exit(7)\n")
    done = _emulated(qemu, command, "-u", str(script), "-u", "two words")
    assert (done.returncode, done.stdout) == (7, "['-u', 'two words'] __main__\n")
    assert _emulated(qemu, command, "/nonexistent.py").returncode == 2
    assert _emulated(qemu, command).returncode == 1


def test_a_wheel_that_is_not_pinned_is_trusted_on_first_use(tmp_path: Path) -> None:
    listener = Lines()
    trusted = Trusted(tmp_path / "trusted.json", Inputs(tmp_path / "inputs", [], listener), listener)
    wanted = f"psutil=={read_lock().wheel('psutil').version}"  # as if no lock file had it
    pin = trusted.wheel(wanted, "3.11")
    (line,) = [line for line in listener.said if "trusted on first use" in line]
    assert pin.sha256 in line
    assert json.loads((tmp_path / "trusted.json").read_bytes())[f"{wanted} 3.11"]["sha256"] == pin.sha256
    # From then on that one is wanted, whatever the registry has.
    listener.said.clear()
    assert trusted.wheel(wanted, "3.11") == pin
    assert listener.said == []


@pytest.mark.nightly
def test_another_mnn(qemu: str, other_cache: Path) -> None:
    """Trust on first use: the hash is recorded, and what has another hash later is refused."""
    listener = Lines()
    older = build_pack(PackOptions(mnn="3.5.0"), cache_dir=other_cache, progress=listener)
    (line,) = [line for line in listener.said if "trusted on first use" in line]
    pins = json.loads((other_cache / "trusted.json").read_bytes())
    assert pins["MNN==3.5.0 3.11"]["sha256"] in line
    assert older.mnn == "3.5.0"
    root = unpacked(older, other_cache)
    assert _emulated(qemu, older.command(str(root)), "-c", VERSIONS).stdout.splitlines()[-1].startswith("3.5.0 ")

    # The same wheel given as a file makes the same pack.
    wheel = next((other_cache / "inputs").rglob("mnn-3.5.0-*.whl"))
    assert build_pack(PackOptions(wheel=wheel), cache_dir=other_cache) == older


@pytest.mark.nightly
def test_relocking_pins_what_the_registries_have_now(tmp_path: Path) -> None:
    """Downloads no Debian package: apt's lists tell hashes."""
    inputs = Inputs(tmp_path / "inputs", [], Progress())
    pins = inputs.resolve()
    write_lock(pins, tmp_path / "lock.json")
    assert read_lock(tmp_path / "lock.json") == pins
    shipped = read_lock()
    assert {item.name for item in pins.debs} == {item.name for item in shipped.debs}
    assert {item.arch for item in pins.qemu} == {"amd64", "arm64"}
    same = {(item.name, item.version, item.arch): item.sha256 for item in (*shipped.debs, *shipped.qemu)}
    for item in (*pins.debs, *pins.qemu):
        assert same.get((item.name, item.version, item.arch), item.sha256) == item.sha256
    assert not list(tmp_path.rglob("*.deb"))


@pytest.fixture(scope="session")
def relocatable(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's Python in the layout of python-build-standalone."""
    lock = read_lock()
    files: dict[str, Member] = {}
    debs = [item for item in lock.debs if item.name.startswith(("python3", "libpython3", "libexpat", "libffi"))]
    for path in Inputs(default_cache() / "inputs", [], Progress()).get(debs, lock.suite):
        for name, member in read_deb(path).items():
            if name.startswith(("usr/bin/", "usr/lib/python3")):
                files[f"python/{name[4:]}"] = member
            elif ".so" in name:
                files[f"python/lib/{Path(name).name}"] = member
    path = tmp_path_factory.mktemp("tarball") / "cpython-3.11-aarch64-install_only.tar.gz"
    path.write_bytes(compress(write_tar(files)))
    return path


@pytest.mark.nightly
def test_a_relocatable_python_without_apt(
    relocatable: Path, tmp_path: Path, other_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Debian's C library it is a pack like any other; without, the device has to have one, and this is said."""
    complete = build_pack(PackOptions(tarball=relocatable), cache_dir=other_cache)
    assert complete.needs == ()
    assert complete.start[0].endswith("ld-linux-aarch64.so.1")

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for path in other_cache.rglob("*.whl"):
        shutil.copy(path, wheels)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    listener = Lines()
    options = PackOptions(tarball=relocatable, inputs=(wheels,))
    bare = build_pack(options, cache_dir=tmp_path / "bare", progress=listener)
    assert {"libc.so.6", "libstdc++.so.6"} <= set(bare.needs)
    assert bare.start[0] == "{root}/bin/python3.11"
    assert any("no C library" in line for line in listener.said)


@pytest.mark.nightly
def test_a_relocatable_python_runs(relocatable: Path, qemu: str, other_cache: Path) -> None:
    pack = build_pack(PackOptions(tarball=relocatable), cache_dir=other_cache)
    done = _emulated(qemu, pack.command(str(unpacked(pack, other_cache))), "-c", VERSIONS)
    assert done.returncode == 0, done.stderr


@pytest.mark.nightly
def test_without_a_matching_python_the_packs_own_compiles(
    pack: Pack, qemu: str, other_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(qemu).parent}:{os.environ['PATH']}")
    monkeypatch.setattr(bytecode, "find_host_compiler", lambda python: None)
    listener = Lines()
    other = build_pack(cache_dir=other_cache, progress=listener)
    assert other.precompiled
    assert any("the pack's own compiles" in line for line in listener.said)
    root = unpacked(other, other_cache)
    assert json.loads((root / "pack.json").read_bytes())["compiled_by"] == f"CPython {pack.python}"
    assert not list((root / "site").rglob("*.py"))
    done = _emulated(qemu, other.command(str(root)), "-c", VERSIONS)
    assert done.returncode == 0, done.stderr
