"""Patterns somebody else wrote: globs matched in linear time, and what can take for ever where it can be stopped."""

from __future__ import annotations

import fnmatch
import functools
import json
import re
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 10
# Its own clock ends it, so that it does so without us as well.  A line for each, so that the one it hangs in is known.
_CHILD = """
import json, re, resource, sys, warnings
asked = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"]))
warnings.simplefilter("ignore")
for regex in asked["regexes"]:
    found = re.compile(regex)
    print(json.dumps([at for at, name in enumerate(asked["names"]) if found.fullmatch(name)]), flush=True)
"""


_PLAIN = re.compile(r"\[([*?\[])\]|([^*?\[])|(\*)")


def fits_glob(pattern: str, name: str) -> bool | None:
    """As fnmatch has it, in time that grows with both lengths; None where a star stands beside ? or a class, which may
    take the product of them: `full_matches` takes what `fnmatch.translate` makes of it."""
    parts = literal_parts(pattern)
    if parts is None:
        return None if "*" in pattern else fnmatch.fnmatchcase(name, pattern)
    if len(parts) == 1:
        return parts[0] == name
    first, *middle, last = parts
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


@functools.lru_cache(maxsize=100_000)
def literal_parts(pattern: str) -> list[str] | None:
    """What stands between the stars of a glob that has only those, and escaped characters; None for any other."""
    parts, at = [""], 0
    piece: list[str] = []
    while at < len(pattern):
        found = _PLAIN.match(pattern, at)
        if found is None:
            return None
        if found[3]:
            parts[-1] = "".join(piece)
            parts.append("")
            piece = []
        else:
            piece.append(found[1] or found[2])
        at = found.end()
    parts[-1] = "".join(piece)
    return parts


class TooSlowError(Exception):
    """Matching was stopped at `regex`, after `seconds` of CPU time for all there were."""

    def __init__(self, regex: str, seconds: int) -> None:
        super().__init__(regex)
        self.regex, self.seconds = regex, seconds


def full_matches(regexes: Sequence[str], names: Sequence[str], *, seconds: int | None = None) -> dict[str, set[str]]:
    """For each regex, the names all of which it matches.

    Args:
        regexes: each of which can be compiled.
        seconds: of CPU time for all of them together; None for `SECONDS`.

    Raises:
        TooSlowError: naming the one at which time, or memory, was over.
    """
    if not regexes:
        return {}
    seconds = SECONDS if seconds is None else seconds
    asked = json.dumps({"regexes": list(regexes), "names": list(names), "seconds": seconds})
    # Not run_child: this is Python alone, and takes a tenth of its time.
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CHILD], input=asked.encode(), capture_output=True, check=False
    )
    lines = ended.stdout.splitlines()
    if ended.returncode or len(lines) != len(regexes):
        raise TooSlowError(regexes[min(len(lines), len(regexes) - 1)], seconds)
    return {regex: {names[at] for at in json.loads(line)} for regex, line in zip(regexes, lines, strict=True)}
