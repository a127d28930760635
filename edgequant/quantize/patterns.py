"""Regular expressions somebody else wrote, matched where one that never ends can be stopped."""

from __future__ import annotations

import json
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
