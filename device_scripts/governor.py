"""The CPU frequency governor: set for a measurement, and always given back.

Before anything is changed, what was there is written into a record beside the runner.  It is given back by the runner
at its end, by the runner's watcher where the runner was killed (the host's end too: its stream closes), and by the next
runner where both were.  What somebody else has set meanwhile is left to them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from typing import Any, Dict, List, Optional

from . import system

NAME = ".edgequant-governor"
_FILE = "sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor"


def record_path() -> str:
    """In the work directory that the runner lies in: the next one, of whatever version, looks there too."""
    program = os.path.dirname(os.path.abspath(sys.argv[0] or "."))
    name = os.path.basename(program)
    place = os.path.dirname(program) if name == "objects" else program
    top = system.root()
    # A tree that was made up is another machine.
    return os.path.join(place, NAME if top == "/" else "%s-%08x" % (NAME, zlib.crc32(os.fsencode(top))))


def take(name: str, cpus: List[int], record: Optional[str] = None) -> Dict[str, Any]:
    """Set it for `cpus`.  The answer: `set`, what each had (`was`: governor -> CPUs), and `why` where it is not set."""
    record = record or record_path()
    files = [_FILE % cpu for cpu in cpus]
    now = {path: said for path in files for said in [system.text(path)[:100]] if said}
    if not now:
        return _answer(False, {}, "the kernel shows no governor there")
    left = _read(record)
    if left is not None and not _mine(left):
        if _lives(left):
            return _answer(False, now, "another runner has set it (process %s)" % left["pid"])
        give_back(record)
        now = {path: system.text(path)[:100] for path in now}
    was = dict(now, **(left["was"] if left is not None and _mine(left) else {}))
    if set(now.values()) == {name} and left is None:
        return _answer(True, now, None)
    for path in now:
        offered = system.text(os.path.join(os.path.dirname(path), "scaling_available_governors")).split()
        if offered and name not in offered:
            return _answer(False, was, "the kernel has %s" % ", ".join(offered)[:200])
    try:
        _write(record, {"boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid()), "set": name, "was": was})
    except OSError as error:
        return _answer(False, was, "what it was could not be noted: %s" % error.strerror)
    why = None
    for path in now:
        try:
            if system.text(path) != name:
                system.put(path, name)
        except OSError as error:
            why = error.strerror or str(error)
        if system.text(path) != name:
            why = why or "the kernel did not take it"
            break
    if why is not None:
        give_back(record)
        return _answer(False, was, why)
    return _answer(True, was, None)


def give_back(record: Optional[str] = None, *, of: Optional[int] = None, only_left: bool = False) -> bool:
    """Restore what a record says, and remove it; whether there was one.

    of: only where the runner with this process number made it.  only_left: only where the one that made it is dead.
    """
    record = record or record_path()
    left = _read(record)
    if left is None:
        return False
    if (of is not None and left["pid"] != of) or (only_left and _lives(left)):
        return False
    if left.get("boot") == _boot():  # after a start of the machine nothing of it is left
        for path, said in left["was"].items():
            with contextlib.suppress(OSError):
                if system.text(path) == left["set"]:
                    system.put(path, said)
    with contextlib.suppress(OSError):
        os.unlink(record)
    return True


def _answer(done: bool, was: Dict[str, str], why: Optional[str]) -> Dict[str, Any]:
    by_name: Dict[str, List[int]] = {}
    for path, said in was.items():
        by_name.setdefault(said, []).append(int(path.split("/")[4][3:]))
    return {"set": done, "was": {said: sorted(cpus) for said, cpus in by_name.items()}, "why": why}


def _read(record: str) -> Optional[Dict[str, Any]]:
    try:
        with open(record, encoding="ascii") as stream:
            left = json.loads(stream.read(1 << 20))
        known = {_FILE % cpu for cpu in range(4096)}
        # It lies where only we may write; still no other file is ever written for it.
        if isinstance(left["set"], str) and isinstance(left["pid"], int) and set(left["was"]) <= known:
            return dict(left, was={path: str(said)[:100] for path, said in left["was"].items()})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(record: str, left: Dict[str, Any]) -> None:
    beside = "%s.%d" % (record, os.getpid())
    with open(beside, "w", encoding="ascii") as stream:
        json.dump(left, stream)
    os.replace(beside, record)


def _mine(left: Dict[str, Any]) -> bool:
    return bool(left["pid"] == os.getpid() and left.get("started") == _started(os.getpid()))


def _lives(left: Dict[str, Any]) -> bool:
    """Whether the process that made a record is still there; another one may have got its number."""
    return left.get("boot") == _boot() and left.get("started") == _started(left["pid"]) is not None


def _started(pid: int) -> Optional[str]:
    """When a process was started, in ticks since the start of the machine: of this machine, whatever root is read."""
    words = system.text("proc/%d/stat" % pid, "/").rpartition(")")[2].split()
    return words[19] if len(words) > 19 and words[0] not in "ZX" else None


def _boot() -> str:
    return system.text("proc/sys/kernel/random/boot_id", "/")
