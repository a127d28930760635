"""The runner as one file: device_scripts/ in a zip that Python starts directly.  Same sources, same bytes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

from edgequant import device_scripts
from edgequant.files import atomic_write


@cache
def runner_bytes() -> bytes:
    """The zip of the sources that this package has."""
    return zipped(Path(device_scripts.__file__).parent)


def zipped(folder: Path) -> bytes:
    """The zip.  Times and modes are fixed, so that its SHA-256 changes only when a source file does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(folder.glob("*.py")):
            # Python starts a zip at the __main__.py in its root.
            name = source.name if source.name == "__main__.py" else f"device_scripts/{source.name}"
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, source.read_bytes().replace(b"\r\n", b"\n"))
    return buffer.getvalue()


def runner_file(folder: Path) -> tuple[Path, str]:
    """Write the runner into `folder` (once) and return its path and SHA-256."""
    data = runner_bytes()
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"runner-{digest[:16]}.pyz"
    if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream:
            stream.write(data)
    return path, digest
