"""A private, content-addressed store on a device: files named by their SHA-256, sent once, used only when whole.

A file is written under a name of its own in incoming/, hashed on the device, and only then renamed to
objects/<sha256>.  What is already there counts only after it has been hashed again: a power cut can leave a file of
the right name and size with the wrong bytes.  Everything is plain POSIX sh, so it works with any driver.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device, Progress
from edgequant.devices.reasons import reason
from edgequant.errors import DeviceError, InputError

SPACE_MARGIN = 16 << 20
"""Bytes that must stay free on the device beyond what is pushed."""

_PREPARE = r"""
export LC_ALL=C
umask 077
why=
for root in "$@"; do
  case $root in
    @home) root=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/edgequant/device ;;
    @tmp) root=${TMPDIR:-/tmp}/edgequant-$(id -u) ;;
    '~/'*) root=${HOME:-/nonexistent}/${root#'~/'} ;;
  esac
  said=$(mkdir -p "$root" 2>&1) || { why="$why$root: ${said##*: }|"; continue; }
  # In a shared directory somebody else may have made the name first.
  if [ -L "$root" ]; then why="$why$root: is a symbolic link|"; continue; fi
  if [ ! -O "$root" ]; then why="$why$root: belongs to somebody else|"; continue; fi
  # It becomes private: that must not happen to a directory with another use, such as /tmp.
  if [ ! -d "$root/incoming" ] && { [ -k "$root" ] || [ -n "$(ls -A "$root")" ]; }; then
    why="$why$root: is used for other things|"; continue
  fi
  # incoming/ comes first: that is how the directory is known again.
  said=$(chmod 700 "$root" 2>&1 && mkdir -p "$root/incoming" "$root/objects" 2>&1 \
    && echo probe | cat 2>&1 > "$root/incoming/.probe" && rm -f "$root/incoming/.probe" 2>&1) \
    || { why="$why$root: ${said##*: }|"; continue; }
  # What an interrupted push left behind; a day is longer than any push that still runs.
  find "$root/incoming" -type f -mtime +0 -exec rm -f {} + 2>/dev/null
  # Names may hold anything but a zero byte, and echo would take backslashes apart.  No awk: small boards have none.
  cd "$root" && printf 'root=%s\0df=%s\0' "$(pwd; echo /)" "$(df -Pk . 2>/dev/null | tail -n 1)"
  exit 0
done
printf 'why=%s\0' "$why"
"""

_HASH = r"""
export LC_ALL=C
# The first that gets the hash of nothing right; openssl is three times as fast as coreutils.  The function is not
# called hash, because that is an alias in mksh, Android's shell.
nothing=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
try() { sum=$("$@" </dev/null 2>/dev/null); [ "${sum%% *}" = $nothing ]; }
if try openssl dgst -sha256 -r; then sha256() { openssl dgst -sha256 -r; }
elif try sha256sum; then sha256() { sha256sum; }
elif try shasum -a 256; then sha256() { shasum -a 256; }
else echo "nohash"; exit 0; fi
"""

_HAVE = (
    _HASH
    + r"""
root=$1; shift
for digest in "$@"; do
  [ -f "$root/objects/$digest" ] || continue
  sum=$(sha256 < "$root/objects/$digest"); sum=${sum%% *}
  if [ "$sum" = "$digest" ]; then echo "$digest"; else rm -f "$root/objects/$digest"; fi
done
echo done
"""
)

_FINISH = (
    _HASH
    + r"""
incoming=$1 digest=$2 object=$3
sum=$(sha256 < "$incoming"); sum=${sum%% *}
if [ "$sum" = "$digest" ]; then mv -f "$incoming" "$object" && echo ok
else rm -f "$incoming"; echo "bad $sum"; fi
"""
)

_CLEAN = r"""
export LC_ALL=C
root=$1
du -sk "$root/objects" "$root/incoming" 2>/dev/null
# The directory itself may be one the user keeps other things in.
rm -rf "$root/objects" "$root/incoming" && { rmdir "$root" 2>/dev/null || true; } && echo removed
"""


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
        work_dir: absolute directory (or ~/...) on the device, for this use only; None for the user's cache directory
            there, or a private directory under /tmp where that cannot be written.
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
        self._candidates = [work_dir.rstrip("/") or "/"] if work_dir else ["@home", "@tmp"]
        self._root: str | None = None
        self._verified: set[str] = set()
        self.free_bytes: int | None = None
        self.sent_bytes = 0

    @property
    def root(self) -> str:
        assert self._root is not None, "prepare() comes first"
        return self._root

    def prepare(self, deadline: Deadline) -> None:
        """Make the work directory (mode 0700) and learn the free space.

        Raises DeviceError: READ_ONLY, PERMISSION_DENIED, NO_SPACE or WORK_DIR_UNUSABLE, with the reason for every
        place that was tried.
        """
        answers = dict(
            item.split("=", 1) for item in self._script(_PREPARE, self._candidates, deadline).split("\0") if "=" in item
        )
        root = answers.get("root", "").removesuffix("\n/")
        if not root.startswith("/"):
            said = answers.get("why", "").strip("|").replace("|", "; ") or "the device said nothing"
            error = reason(said, "no usable work directory", self._device.uri)
            if error.code == "DEVICE_IO":
                error = DeviceError(
                    "WORK_DIR_UNUSABLE",
                    error.message,
                    where=self._device.uri,
                    hint="Choose a directory there that is yours, and new or empty, with --work-dir.",
                )
            raise error
        self._root = root
        # POSIX: "name size used available percent mount point", where names may hold blanks.
        found = re.search(r"\s[0-9]+\s+[0-9]+\s+([0-9]{1,15})\s+[0-9]+%\s", answers.get("df", ""))
        self.free_bytes = int(found[1]) * 1024 if found else None

    def put(
        self,
        source: Path,
        sha256: str,
        deadline: Deadline,
        *,
        size: int | None = None,
        progress: Progress | None = None,
    ) -> Stored:
        """Make sure the device has the file with this SHA-256 and return where.

        Raises DeviceError (NO_SPACE before anything is sent, PUSH_CORRUPTED, HASH_TOOL_MISSING, and what the driver
        raises), DeadlineExceeded.
        """
        path = f"{self.root}/objects/{sha256}"
        if sha256 in self._verified or sha256 in self.have([sha256], deadline):
            return Stored(path, sha256, 0)
        size = source.stat().st_size if size is None else size
        if self.free_bytes is not None and size + SPACE_MARGIN > self.free_bytes:
            raise DeviceError(
                "NO_SPACE",
                f"{source.name} needs {size / 1e6:.1f} MB and {SPACE_MARGIN / 1e6:.0f} MB to spare, "
                f"{self.free_bytes / 1e6:.1f} MB are free in {self.root}",
                where=self._device.uri,
                hint=f"Free some space there, run `edgequant devices clean {self._device.uri}`, or choose another "
                "place with --work-dir.",
            )
        incoming = f"{self.root}/incoming/{sha256[:16]}.{secrets.token_hex(8)}"
        try:
            self._device.send_file(source, incoming, deadline, progress=progress)
        except DeviceError:
            self._discard(incoming)
            raise
        said = self._script(_FINISH, [incoming, sha256, path], deadline).strip()
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
        if self.free_bytes is not None:
            self.free_bytes -= size
        self._verified.add(sha256)
        return Stored(path, sha256, size)

    def have(self, digests: Iterable[str], deadline: Deadline) -> set[str]:
        """Those of the SHA-256 digests whose files are there and whole; damaged ones are removed on the way."""
        said = self._script(_HAVE, [self.root, *digests], deadline).split()
        if not said or said[-1] != "done":
            self._refuse_nohash(" ".join(said))
            raise DeviceError("DEVICE_ANSWER", "hashing files there gave no answer", where=self._device.uri)
        self._verified.update(said[:-1])
        return set(said[:-1])

    def clean(self, deadline: Deadline) -> int:
        """Remove the work directory with everything in it; returns the bytes that frees."""
        *sizes, last = self._script(_CLEAN, [self.root], deadline).splitlines() or [""]
        if last != "removed":
            raise DeviceError("WORK_DIR_UNUSABLE", f"{self.root} cannot be emptied", where=self._device.uri)
        self._verified.clear()
        return 1024 * sum(int(found[1]) for line in sizes if (found := re.match(r"([0-9]{1,15})\s", line)))

    def _discard(self, incoming: str) -> None:
        # What was sent of a file would keep a full disk full.  A link that is lost leaves it to a later prepare().
        with contextlib.suppress(DeviceError):
            self._device.run(["rm", "-f", incoming], Deadline(5), max_output=1 << 16)

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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
