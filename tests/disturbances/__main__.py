"""python -m tests.disturbances [--only WORD]: plants each, and prints both rates; 1 where one is missed or blamed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.disturbances.corpus import Outcome, outcome, quiet_outcome
from tests.disturbances.plants import planted, quiet


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.disturbances", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="those with it in their name")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = [
            outcome(each, Path(folder) / str(number))
            for number, each in enumerate(planted())
            if asked.only in each.name
        ]
        twins = [
            quiet_outcome(name, plant, Path(folder) / f"quiet{number}")
            for number, (name, plant) in enumerate(quiet())
            if asked.only in name
        ]
    for each in [*found, *twins]:
        if not each.right or asked.only:
            print(f"{'' if each.right else 'WRONG '}{each.name}: {', '.join(each.said) or 'nothing'}")
    print(f"recognised by name: {_share(found)}; quiet ones not accused: {_share(twins)}")
    return int(not all(each.right for each in [*found, *twins]))


def _share(found: Sequence[Outcome]) -> str:
    return f"{sum(each.right for each in found)} of {len(found)}"


if __name__ == "__main__":
    sys.exit(main())
