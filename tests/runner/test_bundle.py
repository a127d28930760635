"""The runner as one file."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from edgequant import device_scripts
from edgequant.runner.bundle import runner_bytes, runner_file, zipped


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources to be changed."""
    source = Path(device_scripts.__file__).parent
    shutil.copytree(source, tmp_path / "copy" / "device_scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def test_same_sources_same_bytes(copy: Path) -> None:
    assert zipped(copy / "device_scripts") == runner_bytes()
    for number, file in enumerate(sorted(copy.rglob("*.py"))):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # as a checkout on Windows has them
        file.chmod(0o600)
        os.utime(file, (number, number))
    (copy / "device_scripts" / "__pycache__").mkdir()
    (copy / "device_scripts" / "notes.txt").write_text("not part of it")
    assert zipped(copy / "device_scripts") == runner_bytes()


def test_another_source_other_bytes(copy: Path) -> None:
    with open(copy / "device_scripts" / "facts.py", "a") as file:
        file.write("# changed\n")
    assert zipped(copy / "device_scripts") != runner_bytes()


def test_what_is_in_it() -> None:
    with zipfile.ZipFile(io.BytesIO(runner_bytes())) as archive:
        names = archive.namelist()
    modules = {path.name for path in Path(device_scripts.__file__).parent.glob("*.py")} - {"__main__.py"}
    assert sorted(names) == sorted({"__main__.py", *(f"device_scripts/{name}" for name in modules)})


def test_the_file_is_named_by_its_hash_and_written_once(tmp_path: Path) -> None:
    path, digest = runner_file(tmp_path / "new" / "folder")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert digest[:16] in path.name
    before = path.stat()
    assert runner_file(path.parent) == (path, digest)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    path, digest = runner_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    runner_file(tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_a_kept_runner_without_end_is_written_anew(tmp_path: Path) -> None:
    path, digest = runner_file(tmp_path)
    os.truncate(path, 1 << 40)
    assert runner_file(tmp_path) == (path, digest)
    assert path.read_bytes() == runner_bytes()
