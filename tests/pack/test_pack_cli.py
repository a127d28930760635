"""`edgequant pack`: what its functions print, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgequant.cli import pack as command
from edgequant.cli.options import Ui
from edgequant.pack import Pack, PackOptions

PACK = Pack(
    archive=Path("/somewhere/pack.tar.gz"),
    sha256="ab" * 32,
    size=23_900_000,
    unpacked_size=72_000_000,
    arch="aarch64",
    python="3.11.2",
    mnn="3.6.1",
    numpy="2.4.6",
    start=("{root}/lib/loader", "{root}/bin/python3.11", "-I"),
    needs=(),
    precompiled=True,
    key="cd" * 16,
    files={"boot.py": 1000},
)


def _ui(json: bool) -> Ui:
    return Ui(json=json, verbose=False, quiet=False)


def test_build(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bare = dataclasses.replace(PACK, needs=("libc.so.6",), precompiled=False)
    monkeypatch.setattr(command, "build_pack", lambda options, progress: bare)
    command.build(PackOptions(), _ui(False))
    said = capsys.readouterr().out
    for word in ("/somewhere/pack.tar.gz", "MNN 3.6.1", "23.9 MB", "ab" * 32, "libc.so.6", "sources"):
        assert word in said
    command.build(PackOptions(), _ui(True))
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgequant.pack-build/1"
    assert document["start"] == list(PACK.start)


def test_list_and_clean(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command.list_built(_ui(False))
    assert "edgequant pack build" in capsys.readouterr().out
    monkeypatch.setattr(command, "list_packs", lambda: [PACK])
    command.list_built(_ui(True))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["packs"][0]["mnn"] == "3.6.1"
    assert "ab" * 6 in captured.err
    # The same bytes, built in two ways, are one pack.
    twin = dataclasses.replace(PACK, key="cd" * 32)
    monkeypatch.setattr(command, "list_packs", lambda: [PACK, twin, dataclasses.replace(PACK, sha256="12" * 32)])
    command.list_built(_ui(True))
    captured = capsys.readouterr()
    assert [pack["sha256"] for pack in json.loads(captured.out)["packs"]] == ["ab" * 32, "12" * 32]
    assert json.loads(captured.out)["packs"][0]["key"] == PACK.key
    assert captured.err.count("ab" * 6) == 1
    kept = tmp_path / "edgequant" / "packs" / "inputs" / "x"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(1_500_000))
    command.clean(_ui(True))
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == 1_500_000
    assert not kept.exists()


def test_command_takes_the_place_of_python() -> None:
    assert PACK.command("/data/x y") == ("/data/x y/lib/loader", "/data/x y/bin/python3.11", "-I")
