"""Input files by their SHA-256: from the cache, from a folder of the user's, or from a registry, in this order."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgequant.errors import ToolError
from edgequant.files import sha256_of
from edgequant.pack import wheels
from edgequant.pack.apt import Apt, disk_full
from edgequant.pack.lock import DEBS, QEMU_DEB, QEMU_HOSTS, WHEELS, Lock, Pinned
from edgequant.progress import Progress

SUITE = "bookworm"
"""Debian's release with Python 3.11."""
PYTHON = "3.11"
_RELOCK = (
    "Pin what the registries have now with `edgequant pack build --relock`, or fetch the pinned version elsewhere and "
    "give its folder with --inputs DIR."
)


class Inputs:
    """The inputs in a cache folder.

    Args:
        folder: the cache.
        given: folders of the user's that may hold inputs, looked at before any registry.
    """

    def __init__(self, folder: Path, given: Sequence[Path], progress: Progress) -> None:
        self._folder = folder
        self._given = given
        self._progress = progress

    def get(self, wanted: Sequence[Pinned], suite: str) -> list[Path]:
        """Their paths, every file checked against its hash.

        Raises ToolError: PACK_HASH_MISMATCH, PACK_INPUT_GONE and what Apt and wheels.download raise.
        """
        missing = [item for item in wanted if not self._have(item)]
        for item in list(missing):
            for folder in self._given:
                if _sha256_or_none(folder / item.file) == item.sha256:
                    self._keep(folder / item.file, item)
                    missing.remove(item)
                    break
        debs = [item for item in missing if item.kind == "deb"]
        if missing:
            size = sum(item.size for item in missing)
            self._progress.say(f"fetching {len(missing)} inputs of the pack, {size / 1e6:.0f} MB")
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".fetch-") as name:
                if debs:
                    self._fetch_debs(debs, suite, Path(name))
                for item in missing:
                    if item.kind == "wheel":
                        self._fetch_wheel(item, Path(name))
        return [self._place(item) for item in wanted]

    def newest_wheel(self, requirement: str, python: str, into: Path) -> Pinned:
        """What the registry has now for a requirement; it is kept, too."""
        return self._adopt(pin_wheel(wheels.download(requirement, python, into), python), into)

    def resolve(self) -> Lock:
        """A new lock: the newest of everything that the host's registries have."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".fetch-") as name:
            folder = Path(name)
            debs = self._resolve_debs([f"{deb}:arm64" for deb in DEBS], "arm64", folder)
            qemu = [pin for arch in QEMU_HOSTS for pin in self._resolve_debs([f"{QEMU_DEB}:{arch}"], arch, folder)]
            found = [self.newest_wheel(wheel, PYTHON, folder) for wheel in WHEELS]
        return Lock(suite=SUITE, python=PYTHON, debs=debs, wheels=found, qemu=qemu)

    def _resolve_debs(self, wanted: Sequence[str], arch: str, folder: Path) -> list[Pinned]:
        pins = [_pin_deb(*found) for found in self._apt(arch, SUITE, folder).newest(wanted)]
        missing = {name.split(":")[0] for name in wanted} - {pin.name for pin in pins}
        if missing:
            raise ToolError(
                "PACK_REGISTRY",
                f"the Debian mirror of this host has no {', '.join(sorted(missing))}",
                hint="Check that it carries Debian's main section.",
            )
        return sorted(pins, key=lambda pin: pin.name)

    @staticmethod
    def _apt(arch: str, suite: str, folder: Path) -> Apt:
        return Apt(folder / f"apt-{arch}", suite, [arch])

    def _fetch_debs(self, debs: Sequence[Pinned], suite: str, folder: Path) -> None:
        for arch in sorted({item.arch for item in debs}):
            into = folder / f"debs-{arch}"
            into.mkdir()
            some = [item for item in debs if item.arch == arch]
            apt = self._apt(arch, suite, folder)
            complaints = apt.download([f"{item.name}:{arch}={item.version}" for item in some], into)
            for item in some:
                found = sorted(into.glob(f"{item.name}_*.deb"))
                if not found:
                    raise _gone(item, complaints)
                self._keep(found[0], item)

    def _fetch_wheel(self, item: Pinned, folder: Path) -> None:
        python = f"3.{item.arch.split('-')[0].removeprefix('cp3')}"
        try:
            found = wheels.download(f"{item.name}=={item.version}", python, folder)
        except ToolError as error:
            if error.code != "PACK_NO_WHEEL":
                raise
            raise _gone(item, [error.message]) from error
        self._keep(found, item)

    def _have(self, item: Pinned) -> bool:
        return _sha256_or_none(self._place(item)) == item.sha256

    def _place(self, item: Pinned) -> Path:
        return self._folder / item.sha256[:16] / item.file

    def _adopt(self, item: Pinned, folder: Path) -> Pinned:
        self._keep(folder / item.file, item)
        return item

    def _keep(self, source: Path, item: Pinned) -> None:
        digest = _sha256_or_none(source)
        if digest != item.sha256:
            raise ToolError(
                "PACK_HASH_MISMATCH",
                f"{item} from the registry is not the file that is pinned",
                hint="Somebody has replaced it, or a proxy changes what it passes on; if the new file is to be "
                "trusted, pin it with `edgequant pack build --relock`.",
                evidence={"file": item.file, "sha256": digest, "expected": item.sha256},
            )
        place = self._place(item)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as writer:
                try:
                    with open(source, "rb") as reader:
                        shutil.copyfileobj(reader, writer)
                    writer.flush()
                    Path(writer.name).replace(place)
                except BaseException:
                    Path(writer.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise no_cache(place.parent, error) from None


def no_cache(folder: Path, error: OSError) -> ToolError:
    """The cache cannot be written: because the disk is full, or for another reason."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(folder)
    return ToolError(
        "CACHE_UNWRITABLE",
        f"{folder} cannot be written: {error.strerror or error}",
        hint="Set XDG_CACHE_HOME to a folder you may write to.",
    )


def _pin_deb(file: str, size: int, sha256: str) -> Pinned:
    """A .deb under the name that apt gives it."""
    name, version, arch = file.removesuffix(".deb").split("_")
    version = version.replace("%3a", ":")
    return Pinned(kind="deb", name=name, version=version, file=file, sha256=sha256, size=size, arch=arch)


def pin_wheel(path: Path, python: str) -> Pinned:
    parsed = wheels.parse_wheel_name(path.name)
    # The distribution's own spelling, whatever the file is called.
    name = next((name for name in WHEELS if name.lower() == parsed.name.lower()), parsed.name)
    data = path.read_bytes()
    return Pinned(
        kind="wheel",
        name=name,
        version=parsed.version,
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        arch=f"cp{python.replace('.', '')}-aarch64",
    )


def _gone(item: Pinned, complaints: Sequence[str]) -> ToolError:
    return ToolError(
        "PACK_INPUT_GONE",
        f"the registry no longer has {item}, which the lock file pins",
        hint=_RELOCK,
        evidence={"log": list(complaints)[-10:]},
    )


def _sha256_or_none(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except FileNotFoundError:
        return None
