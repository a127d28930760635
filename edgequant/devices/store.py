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

MARKER = ".edgequant-store"
"""File that tells a directory of ours from one of the user's that merely looks like it."""

LOCK = "@edgequant-device"
"""Name of the runner's lock in /proc/net/unix."""

_ASK_AT_ONCE = 500
"""Digests in one command: a command line has a limit, on some boards 128 KiB."""

# The function that hashes is not called hash, nor any other name that is an alias in mksh, Android's shell.
_OURS = r"""
export LC_ALL=C
marker=MARKER
place() {
  case $root in
    @home) root=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/edgequant/device ;;
    @tmp) root=${TMPDIR:-/tmp}/edgequant-$(id -u) ;;
    '~/'*) root=${HOME:-/nonexistent}/${root#'~/'} ;;
  esac
}
hex() { case $1 in *[!0-9a-f]*) return 1 ;; esac; [ ${#1} -eq "$2" ]; }
is_object() { hex "$1" 64; }
is_incoming() { case $1 in *.*) hex "${1%%.*}" 16 && hex "${1#*.}" 16 ;; *) return 1 ;; esac; }
marked() { [ -f "$root/$marker" ] && [ ! -L "$root/$marker" ]; }
# Nothing in directory $1 but names that $2 accepts.
only() (
  [ ! -L "$1" ] && cd "$1" 2>/dev/null || exit 1
  for entry in * .*; do
    case $entry in .|..) continue ;; esac
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    "$2" "$entry" || exit 1
  done
)
of_older() { case $1 in incoming|objects) ;; *) return 1 ;; esac; }
probe_or_incoming() { [ "$1" = .probe ] || is_incoming "$1"; }
# Stores made before there was a marker: incoming/ was made first, objects/ may be missing.
older() {
  only "$root" of_older && only "$root/incoming" probe_or_incoming \
    && { [ ! -e "$root/objects" ] || only "$root/objects" is_object; }
}
ours() {
  marked && return 0
  # It becomes private: that must not happen to a directory with another use, such as /tmp.
  [ ! -k "$root" ] && said=$(ls -A "$root" 2>/dev/null) || return 1
  # The marker once more: somebody else may have claimed it just now.
  [ -z "$said" ] || marked || older
}
""".replace("MARKER", MARKER)
RULES = _OURS
"""Shell functions: where a work directory is, and whether a directory is one.  They change nothing."""

_PREPARE = (
    _OURS
    + r"""
umask 077
why=
for root in "$@"; do
  place
  said=$(mkdir -p "$root" 2>&1) || { why="$why$root: ${said##*: }|"; continue; }
  # In a shared directory somebody else may have made the name first.
  if [ -L "$root" ]; then why="$why$root: is a symbolic link|"; continue; fi
  if [ ! -O "$root" ]; then why="$why$root: belongs to somebody else|"; continue; fi
  ours || { why="$why$root: is used for other things|"; continue; }
  # The marker comes first: that is how the directory is known again.
  said=$({ marked || : > "$root/$marker"; } 2>&1 && chmod 700 "$root" 2>&1 \
    && mkdir -p "$root/incoming" "$root/objects" 2>&1 \
    && echo probe | cat 2>&1 > "$root/incoming/.probe" && rm -f "$root/incoming/.probe" 2>&1) \
    || { why="$why$root: ${said##*: }|"; continue; }
  # What an interrupted push left behind; a day is longer than any push that still runs.
  for file in "$root"/incoming/*; do
    is_incoming "${file##*/}" && find "$file" -type f -mtime +0 -exec rm -f {} + 2>/dev/null
  done
  # Names may hold anything but a zero byte, and echo would take backslashes apart.  No awk: small boards have none.
  cd "$root" && printf 'root=%s\0df=%s\0' "$(pwd; echo /)" "$(df -Pk . 2>/dev/null | tail -n 1)"
  exit 0
done
printf 'why=%s\0' "$why"
"""
)

_HASH = r"""
export LC_ALL=C
# The first that gets the hash of nothing right; openssl is three times as fast as coreutils.
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
  object=$root/objects/$digest
  [ -e "$object" ] || [ -L "$object" ] || continue
  # A link or a directory is nothing we made.
  if [ -L "$object" ] || [ ! -f "$object" ]; then rm -rf "$object"; continue; fi
  sum=$(sha256 < "$object"); sum=${sum%% *}
  if [ "$sum" = "$digest" ]; then echo "$digest"; else rm -f "$object"; fi
done
echo done
"""
)

_FINISH = (
    _HASH
    + r"""
incoming=$1 digest=$2 object=$3
sum=$(sha256 < "$incoming"); sum=${sum%% *}
if [ "$sum" = "$digest" ]; then
  # mv would move into a directory.
  if [ -L "$object" ] || [ -d "$object" ]; then rm -rf "$object" || { rm -f "$incoming"; exit 1; }; fi
  mv -f "$incoming" "$object" && echo ok
else rm -f "$incoming"; echo "bad $sum"; fi
"""
)

_CLEAN = (
    _OURS
    + r"""
why= exclusive=$1
shift
# A runner that measures has a lock (device_scripts/lock.py), which Linux lists here, where it lets us look.
if [ "$exclusive" = yes ]; then
  while read -r line; do
    case $line in *" NAME_OF_LOCK$EDGEQUANT_LOCK_SCOPE") echo busy; exit 0 ;; esac
  done 2>/dev/null < /proc/net/unix
fi
is_other_object() { ! is_object "$1"; }
is_other_incoming() { ! is_incoming "$1"; }
gone() { [ ! -e "$1" ] || only "$1" "$2"; }
for root in "$@"; do
  place
  [ -e "$root" ] || [ -L "$root" ] || continue
  [ ! -L "$root" ] && [ -O "$root" ] && cd "$root" 2>/dev/null || { why="$why$root|"; continue; }
  if ! marked; then
    # An empty directory is nobody's yet; it stays as it is.
    said=$(ls -A . 2>/dev/null) && [ -z "$said" ] && continue
    older || { why="$why$root|"; continue; }
  fi
  echo before; du -sk objects incoming packs 2>/dev/null
  # By name: the user may keep other things in there.
  for file in objects/* incoming/* packs/*; do
    case $file in
      packs/*) name=${file#*/}; is_object "${name%%.new.*}" && rm -rf "$file" ;;
      objects/*) is_object "${file#*/}" && rm -rf "$file" ;;
      *) is_incoming "${file#*/}" && rm -f "$file" ;;
    esac
  done
  rm -f incoming/.probe
  rmdir objects incoming packs 2>/dev/null
  echo after; du -sk objects incoming packs 2>/dev/null
  # The marker goes last, so that an interrupted clean can be done again.
  gone objects is_other_object && gone incoming is_other_incoming && rm -f "$marker" \
    || { why="$why$root|"; continue; }
  cd / && rmdir "$root" 2>/dev/null
done
printf 'why=%s' "$why"
"""
).replace("NAME_OF_LOCK", LOCK)


_DF = 'LC_ALL=C df -Pk "$1" 2>/dev/null | tail -n 1 2>/dev/null; :'


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
            item.split("=", 1) for item in self._script(_PREPARE, self._candidates, deadline).split("\0") if "=" in item
        )
        root = answers.get("root", "").removesuffix("\n/")
        if not root.startswith("/"):
            said = answers.get("why", "").strip("|").replace("|", "; ") or "the device said nothing"
            raise unusable(said, self._device.uri)
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

        Raises DeviceError (NO_SPACE before anything is sent, PUSH_CORRUPTED, HASH_TOOL_MISSING, and what the driver
        raises), DeadlineExceeded.
        """
        path = f"{self.root}/objects/{sha256}"
        there = sha256 in self._verified or sha256 in self.have([sha256], deadline)
        if there and not room:
            return Stored(path, sha256, 0)
        size = source.stat().st_size if size is None else size
        # Asked now: it may have filled up, or what was in the way may have been removed.
        self.free_bytes = _free_bytes(self._script(_DF, [self.root], deadline))
        self._require(source.name, 0 if there else size, room)
        if there:
            return Stored(path, sha256, 0)
        incoming = f"{self.root}/incoming/{sha256[:16]}.{secrets.token_hex(8)}"
        try:
            self._device.send_file(source, incoming, deadline, progress=progress)
        except BaseException:  # an interrupt too
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
        self._verified.add(sha256)
        return Stored(path, sha256, size)

    def have(self, digests: Iterable[str], deadline: Deadline) -> set[str]:
        """Those of the SHA-256 digests whose files are there and whole; damaged ones are removed on the way."""
        wanted, found = list(dict.fromkeys(digests)), set[str]()
        for start in range(0, len(wanted), _ASK_AT_ONCE):
            said = self._script(_HAVE, [self.root, *wanted[start : start + _ASK_AT_ONCE]], deadline).split()
            if not said or said[-1] != "done":
                self._refuse_nohash(" ".join(said))
                raise DeviceError("DEVICE_ANSWER", "hashing files there gave no answer", where=self._device.uri)
            found.update(said[:-1])
        self._verified.update(found)
        return found

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
        lines, _, why = (said := self._script(_CLEAN, arguments, deadline)).rpartition("why=")
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
    found = re.search(r"\s[0-9]+\s+[0-9]+\s+([0-9]{1,15})\s+[0-9]+%\s", said)
    return int(found[1]) * 1024 if found else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
