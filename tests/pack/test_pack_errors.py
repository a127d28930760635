"""Why a pack cannot be built: each reason its own code, and what to do about it.  Touches no network."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.pack import PackOptions, build_pack, cache, clean_packs, list_packs, wheels
from edgequant.pack.inputs import Inputs
from edgequant.pack.lock import DEFAULT_LOCK, Pinned, read_lock
from edgequant.progress import Progress

SOURCES = "http://mirror.invalid/debian/|bookworm|Debian|Debian|main"


def _deb(content: bytes = b"what is pinned") -> Pinned:
    return Pinned(
        kind="deb",
        name="thing",
        version="1:1.0-1",
        file="thing_1%3a1.0-1_arm64.deb",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        arch="arm64",
    )


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """apt(update, download): an apt-get that runs these shell lines."""

    def make(update: str = "true", download: str = "true", targets: str = SOURCES) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = (
            f"#!/bin/sh\ncase $* in\n  *indextargets*) echo '{targets}' ;;\n  *update*) {update} ;;\n"
            f"  *download*) {download} ;;\nesac\n"
        )
        for name, text in (("apt-get", script), ("apt-config", "#!/bin/sh\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return make


def _code(tmp_path: Path, pinned: Pinned | None = None) -> EdgequantError:
    with pytest.raises(EdgequantError) as caught:
        Inputs(tmp_path / "cache", [], Progress()).get([pinned or _deb()], "bookworm")
    error = caught.value
    assert error.hint
    assert not list((tmp_path / "cache").rglob("*.deb"))
    return error


def test_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = _code(tmp_path)
    assert error.code == "PACK_NO_APT"
    assert "--from" in str(error.hint)


def test_apt_without_debian(tmp_path: Path, apt) -> None:  # type: ignore[no-untyped-def]
    apt(targets="http://mirror.invalid/ubuntu/|jammy|Ubuntu|Ubuntu|main")
    assert _code(tmp_path).code == "PACK_NO_DEBIAN_SOURCE"


def test_lists_that_were_never_fetched_still_name_the_mirror(tmp_path: Path, apt) -> None:  # type: ignore[no-untyped-def]
    apt(
        targets="http://mirror.invalid/debian/|trixie|$(ORIGIN)|$(LABEL)|main",
        download="printf %s 'what is pinned' > thing_1%3a1.0-1_arm64.deb",
    )
    (path,) = Inputs(tmp_path / "cache", [], Progress()).get([_deb()], "bookworm")
    assert path.read_bytes() == b"what is pinned"


@pytest.mark.parametrize(
    ("update", "code"),
    [
        ("echo 'Err:1 x 404  Not Found' >&2; exit 100", "PACK_NO_ARM64"),
        ("echo \"N: repository doesn't support architecture 'arm64'\"; echo 'W: Failed to fetch'", "PACK_NO_ARM64"),
        ("echo 'W: Failed to fetch x  Could not connect to mirror' >&2", "PACK_REGISTRY"),
        ("echo 'E: Temporary failure resolving mirror' >&2; exit 100", "PACK_REGISTRY"),
        ("exit 100", "PACK_REGISTRY"),
        ("echo 'E: Write error - write (28: No space left on device)' >&2; exit 100", "DISK_FULL"),
    ],
)
def test_lists_that_cannot_be_fetched(update: str, code: str, tmp_path: Path, apt) -> None:  # type: ignore[no-untyped-def]
    apt(update=update)
    assert _code(tmp_path).code == code


@pytest.mark.parametrize(
    ("download", "code"),
    [
        ("echo \"E: Version '1:1.0-1' for 'thing' was not found\" >&2; exit 100", "PACK_INPUT_GONE"),
        ("printf other > thing_1%3a1.0-1_arm64.deb", "PACK_HASH_MISMATCH"),
        ("printf 'what is pinned' > thing_2_arm64.deb; printf 'x' >> thing_2_arm64.deb", "PACK_HASH_MISMATCH"),
        ("echo 'E: Write error - write (28: No space left on device)' >&2; exit 100", "DISK_FULL"),
    ],
)
def test_packages_that_are_not_what_is_pinned(download: str, code: str, tmp_path: Path, apt) -> None:  # type: ignore[no-untyped-def]
    apt(download=download)
    error = _code(tmp_path)
    assert error.code == code
    if code != "DISK_FULL":
        assert "--relock" in str(error.hint)
        assert "thing 1:1.0-1" in str(error)


def test_a_folder_of_inputs_takes_the_place_of_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    given = tmp_path / "given"
    given.mkdir()
    inputs = Inputs(tmp_path / "cache", [given], Progress())
    (given / _deb().file).write_bytes(b"something else")
    with pytest.raises(ToolError):
        inputs.get([_deb()], "bookworm")
    (given / _deb().file).write_bytes(b"what is pinned")
    (path,) = inputs.get([_deb()], "bookworm")
    shutil.rmtree(given)
    assert inputs.get([_deb()], "bookworm") == [path]
    path.write_bytes(b"what is pinneD")  # a bad disk, or somebody
    with pytest.raises(ToolError):
        inputs.get([_deb()], "bookworm")


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip with nothing but an empty folder to look in."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_no_such_wheel(tmp_path: Path, no_index: Path) -> None:
    with pytest.raises(ToolError) as caught:
        wheels.download("MNN==9.9", "3.11", tmp_path)
    assert caught.value.code == "PACK_NO_WHEEL"
    assert "--wheel" in str(caught.value.hint)


def test_a_pinned_wheel_that_is_gone(tmp_path: Path, no_index: Path) -> None:
    assert _code(tmp_path, read_lock().wheel("MNN")).code == "PACK_INPUT_GONE"


def test_a_wheel_that_was_replaced(tmp_path: Path, no_index: Path) -> None:
    import zipfile

    pinned = read_lock().wheel("psutil")
    with zipfile.ZipFile(no_index / pinned.file, "w") as archive:
        folder = f"psutil-{pinned.version}.dist-info"
        archive.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: psutil\nVersion: {pinned.version}\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp36-abi3-x\n")
        archive.writestr(f"{folder}/RECORD", "")
    assert _code(tmp_path, pinned).code == "PACK_HASH_MISMATCH"


def test_a_registry_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ToolError) as caught:
        wheels.download("MNN==3.6.1", "3.11", tmp_path)
    assert caught.value.code == "PACK_REGISTRY"


def test_a_wheel_that_was_cut_off_by_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (tmp_path / read_lock().wheel("MNN").file).write_bytes(b"its beginning")
        said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    with pytest.raises(ToolError) as caught:
        wheels.download("MNN==3.6.1", "3.11", tmp_path)
    assert caught.value.code == "DISK_FULL"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mnn-3.6.1-cp311-cp311-manylinux2014_x86_64.whl", "PACK_WHEEL_ARCH"),
        ("mnn-3.6.1-cp311-cp311-macosx_11_0_arm64.whl", "PACK_WHEEL_ARCH"),
        ("mnn-3.6.1-cp311-cp311-musllinux_1_2_aarch64.whl", "PACK_WHEEL_ARCH"),
        ("mnn-3.6.1-cp312-cp312-manylinux2014_aarch64.whl", "PACK_WHEEL_PYTHON"),
        ("mnn-3.6.1-cp312-abi3-manylinux2014_aarch64.whl", "PACK_WHEEL_PYTHON"),
        ("numpy-2.0-cp311-cp311-manylinux2014_aarch64.whl", "PACK_WHEEL_INVALID"),
        ("mnn.whl", "PACK_WHEEL_INVALID"),
        ("mnn-3.6.1-cp311-cp311-linux_aarch64.zip", "PACK_WHEEL_INVALID"),
    ],
)
def test_wheels_the_pack_cannot_take(name: str, code: str, tmp_path: Path) -> None:
    wheel = tmp_path / name
    wheel.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        build_pack(PackOptions(wheel=wheel), cache_dir=tmp_path / "cache")
    assert caught.value.code == code
    assert not list_packs(tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["cp311-cp311-linux_aarch64", "cp39-abi3-manylinux_2_28_aarch64.manylinux2014_aarch64"]
)
def test_wheels_the_pack_can_take(name: str, tmp_path: Path) -> None:
    wheel = tmp_path / f"MNN-3.6.1-{name}.whl"
    wheel.write_bytes(b"")
    assert wheels.require_wheel_for(wheel, "3.11").version == "3.6.1"


def test_options_that_contradict(tmp_path: Path) -> None:
    for options in (PackOptions(mnn="3.5.0", wheel=tmp_path / "x.whl"), PackOptions(inputs=(tmp_path / "no",))):
        with pytest.raises(InputError) as caught:
            build_pack(options, cache_dir=tmp_path)
        assert caught.value.code == "PACK_OPTIONS"


def test_tarballs_that_are_not_a_python(tmp_path: Path) -> None:
    missing, junk = tmp_path / "missing.tar.gz", tmp_path / "junk.tar.gz"
    junk.write_bytes(b"junk")
    for path, code in ((missing, "PACK_TARBALL_INVALID"), (junk, "PACK_INPUT_DAMAGED")):
        with pytest.raises(InputError) as caught:
            build_pack(PackOptions(tarball=path), cache_dir=tmp_path / "cache")
        assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "other/1"}', "[1, 2"])
def test_a_lock_file_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        build_pack(PackOptions(lock=path), cache_dir=tmp_path / "cache")
    assert caught.value.code == "PACK_LOCK_INVALID"


def test_a_lock_file_that_pins_too_little(tmp_path: Path) -> None:
    pins = json.loads(DEFAULT_LOCK.read_bytes())
    pins["debs"] = [item for item in pins["debs"] if item["name"] != "libc6"]
    (tmp_path / "lock.json").write_text(json.dumps(pins))
    with pytest.raises(InputError, match="libc6"):
        read_lock(tmp_path / "lock.json")


def test_the_lock_file_names_no_place() -> None:
    text = DEFAULT_LOCK.read_text()
    assert "://" not in text
    assert "/" not in text.replace(read_lock().schema_, "")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(cache, "atomic_write", full)
    with pytest.raises(ToolError) as caught:
        cache.keep(tmp_path, "key", b"data", "pack.tar.gz", {})
    assert caught.value.code == "DISK_FULL"
    assert not list_packs(tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError) as caught:
        build_pack(cache_dir=tmp_path / "file" / "cache")
    assert caught.value.code == "CACHE_UNWRITABLE"


def test_cleaning_what_is_not_there(tmp_path: Path) -> None:
    assert clean_packs(tmp_path / "none") == 0
    assert list_packs(tmp_path / "none") == []
