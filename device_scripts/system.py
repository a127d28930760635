"""The files in which the kernel tells of its machine, and takes settings.  All are read and written through here.

They are below one root, so that a tree which was made up is read by the code that reads the real one.
"""

from __future__ import annotations

import glob
import os
from typing import List, Optional

ROOT = "EDGEQUANT_SYSTEM_ROOT"
"""Environment variable: where /proc and /sys are looked for; / where it is not set."""


def root() -> str:
    return os.environ.get(ROOT) or "/"


def text(path: str, top: Optional[str] = None) -> str:
    """What a file says, without blanks around it; "" where it cannot be read."""
    try:
        with open(os.path.join(top or root(), path), encoding="ascii", errors="replace") as stream:
            return stream.read(1 << 20).strip()
    except OSError:
        return ""


def number(path: str, top: Optional[str] = None) -> Optional[int]:
    said = text(path, top)
    return int(said) if said.lstrip("-").isdigit() and len(said) <= 20 else None


def found(pattern: str, top: Optional[str] = None) -> List[str]:
    """Paths below the root, in order, 256 at most."""
    base = top or root()
    return sorted(os.path.relpath(each, base) for each in glob.glob(os.path.join(glob.escape(base), pattern)))[:256]


def put(path: str, said: str, top: Optional[str] = None) -> None:
    """Have the kernel take a setting.  Raises OSError; makes no file that is not there."""
    descriptor = os.open(os.path.join(top or root(), path), os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, said.encode("ascii", "replace"))
    finally:
        os.close(descriptor)


def cpus() -> List[int]:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
