"""The inputs of a pack, pinned by SHA-256: which Debian packages, which wheels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgequant.errors import InputError
from edgequant.files import atomic_write, read_bounded
from edgequant.spec import first_problem

DEFAULT_LOCK = Path(__file__).with_name("lock.json")

DEBS = (
    "base-files",  # the texts of the common licences that the others refer to
    "gcc-12-base",  # the licence of libgcc and libstdc++
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libstdc++6",
    "python3.11-minimal",
    "zlib1g",
)
_MOST_BYTES = 16 << 20
WHEELS = ("MNN", "numpy", "psutil")
QEMU_DEB = "qemu-user-static"
QEMU_HOSTS = ("amd64", "arm64")


class Pinned(BaseModel):
    """One input file: what to ask a registry for, and what has to come back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["deb", "wheel"]
    name: str
    version: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    arch: str
    """Of a deb: Debian's name of it.  Of a wheel: its Python and architecture, such as "cp311-aarch64"."""

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.arch})"


class Lock(BaseModel):
    """All inputs of the standard pack, and of the emulator that can run it here."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["edgequant.pack-lock/1"] = Field(default="edgequant.pack-lock/1", alias="schema")
    suite: str
    python: str
    debs: list[Pinned]
    wheels: list[Pinned]
    qemu: list[Pinned]

    def wheel(self, name: str) -> Pinned:
        return next(wheel for wheel in self.wheels if wheel.name == name)


def read_lock(path: Path = DEFAULT_LOCK) -> Lock:
    """Raises InputError (PACK_LOCK_INVALID)."""
    try:
        lock = Lock.model_validate_json(read_bounded(path, _MOST_BYTES))
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        why = first_problem(error)
    else:
        missing = sorted({*DEBS, *WHEELS} - {item.name for item in (*lock.debs, *lock.wheels)})
        if not missing:
            return lock
        why = f"it pins no {', '.join(missing)}"
    raise InputError(
        "PACK_LOCK_INVALID",
        f"lock file {path} cannot be used: {why}",
        hint="Make a new one with `edgequant pack build --relock`.",
    )


def write_lock(lock: Lock, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        text = json.dumps(lock.model_dump(by_alias=True), indent=1, ensure_ascii=False)
        stream.write(text.encode() + b"\n")
