"""The pack's files on a device: unpacked so that they are there whole or not at all, and looked at before each use.

A tree has its name, the SHA-256 of its archive, only when it is whole: tar has ended well and `sync` has returned.
After a power cut it is then either there with all its bytes or not there at all, since the rename is journalled after
them.  But `sync` may be missing, flash may lose a file, and a user may delete one; so whoever is about to use a tree
compares names and sizes first.  Hashing would be surer, and would take seconds of each run on a small device, for 70 MB
that the device's own file system and flash vouch for; what they do lose they lose as whole blocks and files.

Several hosts may do all this at the same time.  Each unpacks under a name of its own; the first to be ready renames.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from edgequant.deadline import Deadline
from edgequant.devices.protocol import CommandResult, Device
from edgequant.devices.reasons import reason
from edgequant.errors import DeviceError

if TYPE_CHECKING:
    from edgequant.pack import Pack

UNPACK_SECONDS = 300.0
_LOOK_SECONDS = 60.0
_MAX_LISTING = 4 << 20
"""Bytes; the listing of a pack has about 40 KB."""

# What is being unpacked, or removed, is called FOLDER.new.PID.TOKEN, with the process on the device that does it.
_LOOK = r"""
export LC_ALL=C
folder=$1
for left in "$folder".new.*; do
  pid=${left##*.new.}
  pid=${pid%%.*}
  case $pid in ''|*[!0-9]*) continue ;; esac
  # Somebody is at it, unless a process of ours has got the same number later; nobody takes a day.
  kill -0 "$pid" 2>/dev/null && [ -z "$(find "$left" -prune -mtime +0 2>/dev/null)" ] && continue
  rm -rf "$left"
done
# A file or a link in its place is nothing we made.
[ -d "$folder" ] && [ ! -L "$folder" ] && cd "$folder" || { rm -f "$folder"; echo missing; exit 0; }
echo there
find . -type f -exec ls -ln {} +
"""

# Renamed first: half a tree must not have the name.
_DROP = r"""
folder=$1 gone=$1.new.$$.$2
mv "$folder" "$gone" && rm -rf "$gone"
"""

# Through a file where there is room for one: busybox takes twice as long through a pipe (measured: 8 to 18 against 22
# to 37 s).  In the pipe gzip's exit status takes a way of its own, or an archive that ends early would look like a
# short one.
_UNPACK = r"""
export LC_ALL=C
umask 077
folder=$1 archive=$2 new=$1.new.$$.$3 roomy=$4
by_file() { gzip -dc < "$archive" > pack.tar && tar xf pack.tar && rm -f pack.tar; }
by_pipe() {
  status=$({ { gzip -dc < "$archive"; echo $? >&3; } | tar xf - >&2; } 3>&1) && [ "$status" = 0 ]
}
mkdir -p "${folder%/*}" && mkdir "$new" && cd "$new" || exit 1
if [ "$roomy" = yes ]; then by_file; else by_pipe; fi || { cd /; rm -rf "$new"; exit 1; }
sync
cd / || exit 1
[ -e "$folder" ] || mv "$new" "$folder" || { rm -rf "$new"; exit 1; }
# Somebody else was faster: before we looked, or after that, and then mv has moved ours into theirs.
rm -rf "$new" "$folder/${new##*/}"
echo ok
"""

# Whether programs may be started there, asked before 24 MB are sent: 126 is "found, but cannot be executed".
_PROBE = r"""
file=$1/incoming/.probe
printf '#!/bin/sh\nexit 0\n' > "$file" && chmod 700 "$file" || exit 0
"$file" >/dev/null 2>&1
code=$?
rm -f "$file"
[ $code -ne 126 ] || echo noexec
"""
_LINE = re.compile(r"-\S*\s+\d+\s+\d+\s+\d+\s+(\d{1,15})\s.*?\s\./(.+)")
"""A line of `ls -ln`: rights, links, owner, group, size, date in several words, name."""


class Tree:
    """A pack unpacked below `root`, or to be.

    Args:
        device: an open device.
        root: absolute path of the store there.
        pack: whose files.
    """

    def __init__(self, device: Device, root: str, pack: Pack) -> None:
        self.folder = f"{root}/packs/{pack.sha256}"
        self._device = device
        self._root = root
        self._pack = pack

    def lacking(self) -> list[str] | None:
        """The files that are missing or have another size, sorted; None where nothing is there at all.

        Removes what others left of their work before they died.  Raises DeviceError (LINK_LOST, ...).
        """
        result = self._run(_LOOK, [], _LOOK_SECONDS)
        said = result.stdout.decode("utf-8", "surrogateescape").splitlines()
        if not said or said[0] != "there":
            return None
        found = {match[2]: int(match[1]) for line in said[1:] if (match := _LINE.fullmatch(line))}
        return sorted(name for name, size in self._pack.files.items() if found.get(name) != size)

    def require_exec(self) -> None:
        """Raises DeviceError (WORK_DIR_NOEXEC) where programs may not be started."""
        probed = self._device.run(["sh", "-c", _PROBE, "edgequant", self._root], Deadline(30)).stdout.strip()
        if probed == b"noexec":
            raise DeviceError(
                "WORK_DIR_NOEXEC",
                f"programs may not be started in {self._root}",
                where=self._device.uri,
                hint="Choose another directory with --work-dir; on phones /data/local/tmp/... is one.",
            )

    def drop(self) -> None:
        """Remove it.  What of it cannot be removed is left without the name."""
        self._run(_DROP, [secrets.token_hex(8)], _LOOK_SECONDS)

    @property
    def room(self) -> int:
        """Bytes it takes there: what tar adds to a file, a file system does too (blocks that are not full)."""
        return self._pack.unpacked_size + 4096 * len(self._pack.files)

    def unpack(self, archive: str, *, free: int | None = None) -> None:
        """Unpack the archive at this path on the device.  free: bytes there; with many of them it is done faster.

        Raises DeviceError (PACK_NOT_UNPACKED, LINK_LOST; NO_SPACE and others of `reasons`), DeadlineExceeded.
        """
        roomy = "yes" if free is not None and free > 3 * self.room else "no"
        result = self._run(_UNPACK, [archive, secrets.token_hex(8), roomy], UNPACK_SECONDS)
        if not result.ok or result.stdout.strip() != b"ok":
            said = result.stderr.decode("utf-8", "replace").strip()
            known = reason(said, "the pack could not be unpacked", self._device.uri)
            raise known if known.code != "DEVICE_IO" else self._not_unpacked(said[:500] or "no reason given")
        lacking = self.lacking()
        if lacking is None or lacking:
            self.drop()
            raise self._not_unpacked(f"tar left out {lacking[0] if lacking else 'everything'}")

    def _not_unpacked(self, why: str) -> DeviceError:
        return DeviceError(
            "PACK_NOT_UNPACKED",
            f"the pack could not be unpacked: {why}",
            where=self._device.uri,
            hint=f"It takes {self._pack.unpacked_size / 1e6:.0f} MB there, in a directory where programs may be "
            "started: choose another with --work-dir.",
        )

    def _run(self, script: str, more: list[str], seconds: float) -> CommandResult:
        argv = ["sh", "-c", script, "edgequant", self.folder, *more]
        result = self._device.run(argv, Deadline(seconds), max_output=_MAX_LISTING)
        if result.lost:
            raise DeviceError(
                "LINK_LOST",
                "the link was lost while the pack was looked at or unpacked",
                where=self._device.uri,
                transient=True,
                hint="Check cable, power and network of the device, then try again.",
            )
        return result
