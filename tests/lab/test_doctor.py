"""devices doctor on this host, over SSH and adb: what it says, and that it changes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgequant import mnn_version
from edgequant.devices.checks import Check
from edgequant.errors import InputError
from edgequant.lab.doctor import examine
from edgequant.lab.identify import probe
from edgequant.lab.session import DeviceOptions
from edgequant.pack import WantedPack
from edgequant.progress import Progress
from tests.beds.adb import AdbBed
from tests.beds.sshd import SshServer
from tests.devices.support import mounted
from tests.devices.test_places import tree
from tests.jobs.support import ssh_home

NAMES = [
    "connection", "architecture", "work directory", "execution", "space", "SELinux", "runtime", "kernels", "governor",
    "temperature", "battery",
]  # fmt: skip


def doctor(uri: str, work: Path | str | None, **options: object) -> dict[str, Check]:
    found = examine(uri, DeviceOptions(work_dir=None if work is None else str(work), **options))  # type: ignore[arg-type]
    assert all(check.fix for check in found if check.status in ("warn", "fail")), found
    return {check.name: check for check in found}


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_this_host(tmp_path: Path) -> None:
    before = tree(tmp_path)
    found = doctor("local:", tmp_path / "work")
    assert tree(tmp_path) == before
    assert list(found) == NAMES
    for name in ("connection", "architecture", "work directory", "execution", "runtime", "kernels"):
        assert found[name].status == "ok", name
    assert found["space"].status in ("ok", "warn")
    assert str(tmp_path / "work") in found["work directory"].message
    assert f"MNN {mnn_version.host_mnn_version()}" in found["runtime"].message
    assert "i8sdot" in found["kernels"].message


def test_without_python(tmp_path: Path) -> None:
    found = doctor("local:", tmp_path / "work", python="no-such-python")
    assert found["runtime"].message.startswith("PYTHON_MISSING: ")
    assert "--python" in str(found["runtime"].fix)
    assert found["kernels"].status == "skipped"


def test_a_python_that_is_there_and_not_executable(tmp_path: Path) -> None:
    python = Path(script(tmp_path / "python", "exit 0"))
    python.chmod(0o644)
    check = doctor("local:", tmp_path / "work", python=str(python))["runtime"]
    assert check.code == "PYTHON_NOT_EXECUTABLE"
    assert f"{python} is there, but cannot be executed" in check.message
    assert "Install" not in str(check.fix)
    probed = probe("local:", DeviceOptions(work_dir=str(tmp_path / "work"), python=str(python)), Progress())
    assert probed.error is not None
    assert (probed.error.code, f"{probed.error.code}: {probed.error.message}") == (check.code, check.message)
    assert probed.error.hint == check.fix


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f'exec {sys.executable} -I -S "$@"', "MNN_MISSING"),
        ("kill -ILL $$", "RUNTIME_BROKEN"),
        ("exit 0", "RUNTIME_BROKEN"),
        ("echo hello; exit 3", "RUNTIME_BROKEN"),
        ("exit 127", "PYTHON_MISSING"),
        ("""printf '\\nedgequant-doctor {"python": "3.7.17", "numpy": "1", "mnn": "3.6.1"}\\n'""", "PYTHON_TOO_OLD"),
        ("""printf '\\nedgequant-doctor {"python": "3.11.2", "mnn": "3.6.1"}\\n'""", "NUMPY_MISSING"),
        ("""printf '\\nedgequant-doctor {"python": "3.11.2", "numpy": "1", "mnn": "odd"}\\n'""", "MNN_VERSION_UNKNOWN"),
        ("""printf '\\nedgequant-doctor {"python": []}\\n'""", "RUNTIME_BROKEN"),
        ("""printf '\\nedgequant-doctor {"python": "3.11.2", "numpy": "1", "mnn": "3.6.1"}\\n'; kill -SEGV $$""",
         "RUNTIME_BROKEN"),
    ],
)  # fmt: skip
def test_pythons_that_are_of_no_use(tmp_path: Path, text: str, code: str) -> None:
    found = doctor("local:", tmp_path / "work", python=script(tmp_path / "python", text))
    assert found["runtime"].status == "fail"
    assert found["runtime"].message.startswith(f"{code}: ")
    if "ILL" in text:
        assert "SIGILL" in found["runtime"].message
        assert "another CPU" in str(found["runtime"].fix)


def test_an_mnn_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bar above what is installed: no older MNN is there for every Python these tests run with."""
    monkeypatch.setattr(mnn_version, "MIN_MNN", (99, 0, 1))
    found = doctor("local:", tmp_path / "work")
    assert found["runtime"].message.startswith("MNN_TOO_OLD: ")
    assert "99.0.1" in found["runtime"].message
    assert "pip install -U MNN" in str(found["runtime"].fix)


def test_importing_leaves_no_bytecode(tmp_path: Path) -> None:
    """On a device whose Python has none yet."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import more\n")
    (tmp_path / "site" / "more.py").touch()
    python = script(tmp_path / "python", f'PYTHONPATH={tmp_path}/site exec {sys.executable} "$@"')
    before = tree(tmp_path)
    assert doctor("local:", tmp_path / "work", python=python)["runtime"].status == "ok"
    assert tree(tmp_path) == before


def test_a_work_directory_of_another_use(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes").touch()
    found = doctor("local:", tmp_path / "work")
    assert found["work directory"].message.startswith("WORK_DIR_UNUSABLE: ")
    assert "is used for other things" in found["work directory"].message
    assert found["space"].status == found["execution"].status == "skipped"
    assert found["runtime"].status == "ok"  # that much can be told all the same


def test_low_space(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=100m", "tmpfs") as small:
        found = doctor("local:", small / "work")
        assert found["space"].status == "warn"
        assert "devices clean local:" in str(found["space"].fix)
        (small / "big").write_bytes(bytes(90 << 20))
        found = doctor("local:", small / "work")
        assert found["space"].message.startswith("NO_SPACE: ")
        assert [path.name for path in small.iterdir()] == ["big"]


def test_a_pack_on_another_architecture(tmp_path: Path) -> None:
    if os.uname().machine in ("aarch64", "arm64"):
        pytest.fail("this test is for hosts that are no 64-bit ARM")
    found = doctor("local:", tmp_path / "work", runtime="pack")
    assert found["architecture"].message.startswith("PACK_ARCH: ")
    assert found["runtime"].status == "skipped"


def test_a_pack_that_was_asked_for_where_none_runs(tmp_path: Path) -> None:
    found = doctor("local:", tmp_path / "work", wanted=WantedPack(mnn="3.6.1"))
    assert found["runtime"].message.startswith("PACK_NOT_WANTED: MNN 3.6.1 ")


def test_a_device_that_does_not_answer(closed_port: int) -> None:
    found = doctor(f"ssh://127.0.0.1:{closed_port}", None)
    assert list(found) == NAMES
    assert {check.status for check in list(found.values())[1:]} == {"skipped"}
    assert found["connection"].status == "fail"


def test_a_bad_uri_or_directory() -> None:
    with pytest.raises(InputError):
        examine("nonsense", DeviceOptions())
    with pytest.raises(InputError):
        examine("local:", DeviceOptions(work_dir="relative"))


@pytest.mark.arm64
def test_an_emulated_device(tmp_path: Path) -> None:
    found = doctor("emulated:a76", tmp_path / "work")
    assert found["architecture"].message == "aarch64, cortex-a76"
    assert "i8sdot on" in found["kernels"].message
    assert found["governor"].status == found["temperature"].status == found["battery"].status == "skipped"
    assert not (tmp_path / "work").exists()


@pytest.mark.ssh
def test_over_ssh_nothing_changes(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(name, value)
    there = tmp_path / "there"
    there.mkdir()
    for kind in ("new", "empty", "ours"):
        work = there / "work"
        if kind == "empty":
            work.mkdir(mode=0o755)
        if kind == "ours":
            assert probe("ssh://bed", DeviceOptions(str(work), sys.executable), Progress()).error is None
        before = tree(there)
        found = doctor("ssh://bed", work, python=sys.executable)
        assert tree(there) == before, kind
        assert found["runtime"].status == found["work directory"].status == "ok", kind


@pytest.mark.ssh
def test_over_ssh_places_that_will_not_do(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(name, value)
    if not sshd.accounts:
        pytest.fail("this test needs root for file systems of its own")
    small = doctor("ssh://bed", sshd.small / "work", python=sys.executable)
    assert small["space"].message.startswith("NO_SPACE: ")
    read_only = doctor("ssh://bed", sshd.read_only / "work", python=sys.executable)
    assert read_only["work directory"].message.startswith("READ_ONLY: ")
    assert "choose" in str(read_only["work directory"].fix).lower()


@pytest.mark.adb
def test_over_adb_nothing_changes(adb_bed: AdbBed) -> None:
    before = tree(adb_bed.files)
    found = doctor(adb_bed.uri, adb_bed.files / "work", runtime="system")
    assert tree(adb_bed.files) == before
    assert found["connection"].status == found["work directory"].status == "ok"
    closed = doctor(adb_bed.uri, adb_bed.closed / "work", runtime="system")
    assert closed["work directory"].message.startswith("PERMISSION_DENIED: ")


@pytest.mark.adb
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--auth"], "ADB_UNAUTHORIZED", "USB debugging"),
        (["--state", "recovery"], "ADB_RECOVERY", "reboot"),
        (["--features", "cmd", "--release", "6.0.1"], "ADB_TOO_OLD", "Android 7.0"),
        (["--broken-shell"], "NO_SHELL", ""),
    ],
)
def test_phones_that_cannot_be_used(adb_bed: AdbBed, options: list[str], code: str, words: str) -> None:
    """What adb says of them comes first, with the fix."""
    fake = adb_bed.fake(*options)
    found = {check.name: check for check in examine(f"adb://{fake.serial}", DeviceOptions())}
    assert found["connection"].message.startswith(f"{code}: ")
    assert words in str(found["connection"].fix)
    assert {check.status for check in list(found.values())[1:]} == {"skipped"}
