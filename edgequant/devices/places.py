"""Where the work directory is or would be, and what becomes of it there: looked at, never touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgequant.devices.store_scripts import RULES

State = Literal["ours", "free", "new", "link", "no directory", "somebody else's", "in use", "closed"]

USABLE: tuple[State, ...] = ("ours", "free", "new")
WHY: dict[str, str] = {
    "link": "is a symbolic link",
    "no directory": "there is something in the way that is no directory",
    "somebody else's": "belongs to somebody else",
    "in use": "is used for other things",
    "closed": "Permission denied",
    "read-only": "Read-only file system",
}
"""In the words of the store, which meets the same obstacles when it makes the directory."""

# Prints, for each of its arguments, items that end in NUL: names may hold anything else.
LOOK = (
    RULES
    + r"""
state() {
  if [ -L "$root" ]; then echo link
  elif [ -e "$root" ] && [ ! -d "$root" ]; then echo 'no directory'
  elif [ -d "$root" ]; then
    if [ ! -O "$root" ]; then echo "somebody else's"
    elif [ ! -w "$root" ] || [ ! -x "$root" ]; then echo closed
    elif ! ours; then echo 'in use'
    elif marked; then echo ours
    else echo free
    fi
  elif [ ! -d "$near" ]; then echo 'no directory'
  elif [ -w "$near" ] && [ -x "$near" ]; then echo new
  else echo closed
  fi
}
look() {
  for root in "$@"; do
    place
    near=$root
    while [ ! -e "$near" ] && [ ! -L "$near" ]; do
      case $near in */*) near=${near%/*} ;; *) near=. ;; esac
      [ -n "$near" ] || near=/
    done
    state=$(state)
    printf 'root=%s\0near=%s\0state=%s\0' "$root" "$(cd "$near" 2>/dev/null && pwd -P || echo "$near")" "$state"
    printf 'df=%s\0packs=' "$(df -Pk "$near" 2>/dev/null | tail -n 1)"
    if [ "$state" = ours ]; then
      for entry in "$root"/packs/*; do [ -d "$entry" ] && printf '%s ' "${entry##*/}"; done
    fi
    printf '\0\0'
  done
}
"""
)


@dataclass(frozen=True)
class Place:
    """One directory that may be the work directory.

    Attributes:
        root: its path.  near: the nearest directory above it that exists (itself where it does), without links.
        state: "ours" (made by edgequant), "free" (there and empty), "new" (can be made), or why it cannot be used.
        free, size: bytes of its file system; None where it does not tell.
        packs: SHA-256 of every pack unpacked in it.
        mount, options: where its file system is mounted, and how; empty where the device does not tell.
    """

    root: str
    near: str
    state: str
    free: int | None = None
    size: int | None = None
    packs: frozenset[str] = frozenset()
    mount: str = ""
    options: frozenset[str] = frozenset()

    @property
    def usable(self) -> bool:
        return self.state in USABLE and not self.read_only

    @property
    def read_only(self) -> bool:
        return "ro" in self.options

    @property
    def noexec(self) -> bool:
        return "noexec" in self.options

    @property
    def why(self) -> str:
        """Why it cannot be used."""
        # Root may write anywhere, say some shells, also where nobody can.
        state = "read-only" if self.read_only and self.state in (*USABLE, "closed") else self.state
        return f"{self.root}: {WHY.get(state, 'the device said nothing')}"


def places_in(said: bytes, mounts: bytes) -> list[Place]:
    """From what LOOK printed and /proc/mounts.  Never fails: what cannot be understood is left out."""
    found = []
    for block in said.split(b"\0\0")[:20]:
        texts = block.decode("utf-8", "replace").lstrip("\n").split("\0")
        items = dict(item.split("=", 1) for item in texts if "=" in item)
        root, near = items.get("root", "")[:4096], items.get("near", "")[:4096]
        if not root:
            continue
        # POSIX: "name size used available percent mount point", where names may hold blanks.
        sizes = re.search(r"\s([0-9]{1,15})\s+[0-9]+\s+([0-9]{1,15})\s+[0-9]+%\s", items.get("df", "")[:4096])
        mount, options = _mount_of(near, mounts)
        found.append(
            Place(
                root=root,
                near=near,
                state=items.get("state", "")[:40],
                free=int(sizes[2]) * 1024 if sizes else None,
                size=int(sizes[1]) * 1024 if sizes else None,
                packs=frozenset(word for word in items.get("packs", "").split() if re.fullmatch("[0-9a-f]{64}", word)),
                mount=mount,
                options=options,
            )
        )
    return found


def _mount_of(path: str, mounts: bytes) -> tuple[str, frozenset[str]]:
    best: tuple[str, frozenset[str]] = ("", frozenset())
    for line in mounts.decode("utf-8", "replace").splitlines()[:10_000]:
        words = line.split(" ")
        if len(words) < 4:
            continue
        where = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), words[1])
        # The last one on a place is the one that is seen.
        if (path == where or path.startswith(where.rstrip("/") + "/")) and len(where) >= len(best[0]):
            best = where, frozenset(words[3].split(","))
    return best
