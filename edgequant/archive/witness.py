"""What a shell on a device saw of the runner's process: all that the runner says of itself can be held against it."""

from __future__ import annotations

from pydantic import Field

from edgequant.archive.record import Name, Record, Sha256


class Thread(Record):
    """One of the process's threads.

    seconds: of the CPU, during a timing.  core: the one it ran on last.
    """

    seconds: float = Field(ge=0)
    core: int | None = Field(default=None, ge=0)


class Library(Record):
    """A file of MNN's that the process has in its memory.

    Attributes:
        machine: e_machine of its ELF header, such as 183 for aarch64.
        has_version: whether the version that the runner names stands in it.
        packages: versions of the installed packages that list it, by the names of their folders.
        recorded: SHA-256 that it should have: by such a package, or of the file in the pack that was sent.
        sent: `recorded` is of the pack.
    """

    path: Name
    sha256: Sha256 | None = None
    machine: int | None = Field(default=None, ge=0)
    has_version: bool | None = None
    packages: tuple[Name, ...] = ()
    recorded: tuple[Sha256, ...] = ()
    sent: bool = False


class Witness(Record):
    """Attributes:
    why: why nothing could be seen; None where it was.
    machine: what the kernel calls the CPU; None where the device is emulated, for it would be this host's.
    cores: how many there are, sleeping ones included.
    allowed: those the process may run on, after the model was loaded.
    """

    why: str | None = None
    machine: str | None = Field(default=None, max_length=100)
    cores: int | None = Field(default=None, ge=1)
    allowed: tuple[int, ...] = ()
    libraries: tuple[Library, ...] = ()
