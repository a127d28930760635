"""A private, content-addressed store on a device: files named by their SHA-256, sent once, used only when whole.

A file is written under a name of its own in incoming/, hashed on the device, and only then renamed to
objects/<sha256>.  What is already there counts only after it has been hashed again: a power cut can leave a file of
the right name and size with the wrong bytes.  What the device does is in `store_scripts`.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device, Progress
from edgequant.devices.reasons import reason
from edgequant.devices.store_scripts import CLEAN, DF, FINISH, HAVE, IS_THERE, PREPARE
from edgequant.errors import DeviceError, InputError

SPACE_MARGIN = 16 << 20
"""Bytes that must stay free on the device beyond what is pushed."""

_ASK_AT_ONCE = 500
_LOOK_SECONDS = 5.0
"""Digests in one command: a command line has a limit, on some boards 128 KiB."""


@dataclass(frozen=True)
class Stored:
    """A file in the store: where it is on the device, and how many bytes had to be sent (0: it was there)."""

    path: str
    sha256: str
    sent: int


class Store:
    """The store on one device.

    Args:
        device: an open device.
        work_dir: absolute directory (or ~/...) on the device, for this use only; None for the first of the device's
            own places that can be used.
    """

    def __init__(self, device: Device, work_dir: str | None = None) -> None:
        self._device = device
        if work_dir is not None and not work_dir.startswith(("/", "~/")):
            raise InputError(
                "WORK_DIR_INVALID",
                f"work directory '{work_dir}': not an absolute path",
                where=device.uri,
                hint="Write it as /some/directory, or ~/directory for one in the home directory there.",
            )
        # A slash at the end would make the shell look through a symbolic link.
        self._candidates = [work_dir.rstrip("/") or "/"] if work_dir else list(device.work_dirs)
        self._root: str | None = None
        self._verified: set[str] = set()
        self.free_bytes: int | None = None
        self.sent_bytes = 0

    @property
    def root(self) -> str:
        assert self._root is not None, "prepare() comes first"
        return self._root

    @property
    def candidates(self) -> list[str]:
        """Where the work directory may be, best first, as `place` of RULES understands it."""
        return list(self._candidates if self._root is None else [self._root])

    def prepare(self, deadline: Deadline) -> None:
        """Make the work directory (mode 0700) and learn the free space.

        Raises DeviceError: READ_ONLY, PERMISSION_DENIED, NO_SPACE or WORK_DIR_UNUSABLE, with the reason for every
        place that was tried.
        """
        answers = dict(
            item.split("=", 1) for item in self._script(PREPARE, self._candidates, deadline).split("\0") if "=" in item
        )
        root = answers.get("root", "").removesuffix("\n/")
        if not root.startswith("/"):
            said = answers.get("why", "").strip("|").replace("|", "; ") or "the device said nothing"
            raise unusable(said, self._device.uri)
        if "\ufffd" in root:
            raise unusable(f"{root}: its name is not UTF-8", self._device.uri)
        self._root = root
        self.free_bytes = _free_bytes(answers.get("df", ""))

    def put(
        self,
        source: Path,
        sha256: str,
        deadline: Deadline,
        *,
        size: int | None = None,
        room: int = 0,
        progress: Progress | None = None,
    ) -> Stored:
        """Make sure the device has the file with this SHA-256 and return where.

        With `room`, as many bytes have to be free beside the file, also where it is there already.

        Raises DeviceError (NO_SPACE before anything is sent, PUSH_CORRUPTED, HASH_TOOL_MISSING, WORK_DIR_CLEANED, and
        what the driver raises), DeadlineExceeded.
        """
        path = f"{self.root}/objects/{sha256}"
        there = sha256 in self._verified or sha256 in self.have([sha256], deadline)
        if there and not room:
            return Stored(path, sha256, 0)
        size = source.stat().st_size if size is None else size
        # Asked now: it may have filled up, or what was in the way may have been removed.
        self.free_bytes = _free_bytes(self._script(DF, [self.root], deadline))
        self._require(source.name, 0 if there else size, room)
        if there:
            return Stored(path, sha256, 0)
        incoming = f"{self.root}/incoming/{sha256[:16]}.{secrets.token_hex(8)}"
        try:
            self._device.send_file(source, incoming, deadline, progress=progress)
        except DeviceError as error:
            self._discard(incoming)
            # Where the link is what failed, nothing can be asked, and the error stays what it is.
            with contextlib.suppress(DeviceError):
                if error.code != "LINK_LOST" and not self.is_there():
                    error = self._cleaned()
            raise error
        except BaseException:  # an interrupt too
            self._discard(incoming)
            raise
        said = self._script(FINISH, [incoming, sha256, path], deadline).strip()
        if said == "gone":
            raise self._cleaned()
        if said != "ok":
            self._refuse_nohash(said)
            raise DeviceError(
                "PUSH_CORRUPTED",
                f"{source.name} arrived with another SHA-256 than it was sent with ({said[:80] or 'no answer'})",
                transient=True,
                where=self._device.uri,
                hint="Try again; if it happens twice, the device's storage or memory is failing.",
            )
        self.sent_bytes += size
        self._verified.add(sha256)
        return Stored(path, sha256, size)

    def have(self, digests: Iterable[str], deadline: Deadline) -> set[str]:
        """Those of the SHA-256 digests whose files are there and whole; damaged ones are removed on the way."""
        wanted, found = list(dict.fromkeys(digests)), set[str]()
        for start in range(0, len(wanted), _ASK_AT_ONCE):
            said = self._script(HAVE, [self.root, *wanted[start : start + _ASK_AT_ONCE]], deadline).split()
            if not said or said[-1] != "done":
                self._refuse_nohash(" ".join(said))
                raise DeviceError("DEVICE_ANSWER", "hashing files there gave no answer", where=self._device.uri)
            found.update(said[:-1])
        self._verified.update(found)
        return found

    def is_there(self) -> bool:
        """Whether the work directory is still as prepare() left it: another edgequant may have cleaned it."""
        return self._script(IS_THERE, [self.root], Deadline(_LOOK_SECONDS)).strip() == "yes"

    def forget(self) -> None:
        """Look again before a file counts as being there."""
        self._verified.clear()

    def clean(self, deadline: Deadline) -> int:
        """Remove what is ours in the work directory, and the directory if that leaves it empty; returns the bytes that
        frees.  Without prepare(), every place there might be one is cleaned, and none is made first.

        Raises DeviceError: WORK_DIR_UNUSABLE, the directory is not ours or cannot be emptied; DEVICE_BUSY, something
        there may be in use.
        """
        roots = self._candidates if self._root is None else [self._root]
        arguments = ["yes" if self._device.exclusive else "no", *roots]
        lines, _, why = (said := self._script(CLEAN, arguments, deadline)).rpartition("why=")
        if said.strip() == "busy":
            raise DeviceError(
                "DEVICE_BUSY",
                "another edgequant is using it",
                transient=True,
                where=self._device.uri,
                hint="Clean it when that has ended.",
            )
        places = why.strip("|").split("|") if why else []
        # Of several places that might be ours, one that is not does not matter.
        if len(places) == len(roots):
            raise DeviceError(
                "WORK_DIR_UNUSABLE",
                f"{'; '.join(places)}: not a directory of ours, or it cannot be emptied",
                where=self._device.uri,
                hint="Only what edgequant put there is removed; remove anything else yourself.",
            )
        self._verified.clear()
        freed, sign = 0, 1
        for line in lines.splitlines():
            sign = {"before": 1, "after": -1}.get(line, sign)
            if size := re.match(r"([0-9]{1,15})\s", line):
                freed += sign * int(size[1])
        return 1024 * max(0, freed)

    def _require(self, name: str, size: int, room: int) -> None:
        if self.free_bytes is None or size + room + SPACE_MARGIN <= self.free_bytes:
            return
        parts = [f"{size / 1e6:.1f} MB"] if size else []
        parts += [f"{room / 1e6:.1f} MB to be unpacked"] if room else []
        raise DeviceError(
            "NO_SPACE",
            f"{name} needs {', '.join(parts)} and {SPACE_MARGIN / 1e6:.0f} MB to spare, "
            f"{self.free_bytes / 1e6:.1f} MB are free in {self.root}",
            where=self._device.uri,
            hint=f"Free some space there, run `edgequant devices clean {self._device.uri}`, or choose another "
            "place with --work-dir.",
        )

    def _cleaned(self) -> DeviceError:
        return DeviceError(
            "WORK_DIR_CLEANED",
            f"{self.root} was removed while files were sent there",
            transient=True,
            where=self._device.uri,
            hint="Another edgequant cleaned it, or somebody else did: try again.",
        )

    def _discard(self, incoming: str) -> None:
        # What was sent of a file would keep a full disk full.  A link that is lost leaves it to a later prepare().
        with contextlib.suppress(DeviceError):
            self._device.run(["rm", "-f", incoming], Deadline(_LOOK_SECONDS), max_output=1 << 16)

    def _refuse_nohash(self, said: str) -> None:
        if said.startswith("nohash"):
            raise DeviceError(
                "HASH_TOOL_MISSING",
                "no sha256sum, shasum or openssl there, so no file can be verified",
                where=self._device.uri,
                hint="Install coreutils or busybox on the device.",
            )

    def _script(self, script: str, arguments: Iterable[str], deadline: Deadline) -> str:
        result = self._device.run(["sh", "-c", script, "edgequant", *arguments], deadline, max_output=1 << 20)
        if result.lost:
            raise DeviceError("LINK_LOST", "the link was lost", transient=True, where=self._device.uri)
        if result.exit_code != 0:
            errors = result.stderr.decode("utf-8", "replace").strip() or f"exit status {result.exit_code}"
            raise reason(errors.splitlines()[-1], "preparing files there failed", self._device.uri)
        return result.stdout.decode("utf-8", "replace")


def unusable(said: str, uri: str) -> DeviceError:
    """That there is no place for the work directory; `said`: why, for every place there could have been."""
    error = reason(said, "no usable work directory", uri)
    if error.code != "DEVICE_IO":
        return error
    return DeviceError(
        "WORK_DIR_UNUSABLE",
        error.message,
        where=uri,
        hint="Choose a directory there that is yours, and new or empty, with --work-dir.",
    )


def _free_bytes(said: str) -> int | None:
    # POSIX: "name size used available percent mount point", where names may hold blanks.
    found = re.search(r"\s[0-9]+\s+[0-9]+\s+([0-9]{1,15})\s+[0-9]+%\s", said[:4096])
    return int(found[1]) * 1024 if found else None
