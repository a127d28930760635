"""python -m tests.mutants: how many of mutmut's mutants the tests kill, by file; 1 where that is less than wanted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

WANTED = 0.95
SURVIVED = (0, 5, 33)
"""Exit codes of mutmut's for a mutant that no test notices, or that no test runs."""


def main() -> int:
    lived = asked = 0
    for file in sorted(Path("mutants").rglob("*.meta")):
        codes = {
            name: code for name, code in json.loads(file.read_text())["exit_code_by_key"].items() if code is not None
        }
        alive = [name for name, code in codes.items() if code in SURVIVED]
        if codes:
            print(
                f"{1 - len(alive) / len(codes):6.1%} of {len(codes):4}  {file.relative_to('mutants').with_suffix('')}"
            )
            print(*(f"    alive: {name}" for name in alive), sep="\n", end="\n" if alive else "")
        asked, lived = asked + len(codes), lived + len(alive)
    killed = 1 - lived / asked if asked else 0.0
    print(f"{killed:6.1%} of {asked} in all; wanted {WANTED:.0%}.  `mutmut show NAME` shows one.")
    return 0 if killed >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
