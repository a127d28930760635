"""Cleaning the store: everything of ours goes, nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.files import sha256_of
from tests.devices.support import TIME, mode, prepared, put, tree


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
