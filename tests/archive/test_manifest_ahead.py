"""What is hashed before a folder is closed is what the manifest says, unless it has changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgequant.archive.manifest import Ahead, close, differences, read


def test_what_changes_after_it_was_hashed_is_hashed_again(tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    (tmp_path / "models").mkdir()
    files = [tmp_path / "arrays" / f"{name}.npy" for name in ("same", "other", "gone")]
    for path in files:
        path.write_bytes(b"before")
    ahead = Ahead(tmp_path)
    ahead.sha256_of("arrays/same.npy", files[0])  # waits for all of them
    files[1].with_suffix(".tmp").write_bytes(b"behind")
    files[1].with_suffix(".tmp").replace(files[1])
    files[2].unlink()
    (tmp_path / "models" / "late.mnn").write_bytes(b"late")
    close(tmp_path, ahead)
    held = read(tmp_path)
    assert held is not None
    expected = {"arrays/same.npy": b"before", "arrays/other.npy": b"behind", "models/late.mnn": b"late"}
    assert {name: held[name].sha256 for name in expected} == {
        name: hashlib.sha256(data).hexdigest() for name, data in expected.items()
    }
    assert "arrays/gone.npy" not in held
    assert differences(tmp_path) == []
