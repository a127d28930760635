"""The store with the tools and shells of small systems."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.devices.store_scripts import MARKER
from edgequant.errors import DeviceError
from edgequant.files import sha256_of
from tests.beds.adb_packages import unpacked
from tests.devices.support import TIME, prepared, put, refused


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
