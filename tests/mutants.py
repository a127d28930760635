"""python -m tests.mutants: how many of mutmut's mutants the tests kill, by file; 1 where that is less than wanted.

`--sample N` asks one in N mutants of each file (but never fewer than FEWEST), the same ones each time: chosen by the
hash of their names, so that a change elsewhere does not choose others.  The rest is put aside, the tests are run, and
of the whole only an interval can be told.  `--again` asks those anew that lived.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

WANTED = 0.95
FEWEST = 5
SURVIVED = (0, 5, 33)
"""Exit codes of mutmut's for a mutant that no test notices, or that no test runs."""
ASIDE = 34
"""The one for a mutant that was not asked, and is not to be."""
UNTOLD = (None, 2, ASIDE)
"""Those for a mutant of which nothing is known: not asked yet, interrupted, put aside."""
MUTMUT = Path(sys.executable).with_name("mutmut")
A_FEW = "edgequant.compare.decibel*"
"""Mutants to ask where there are none yet: mutmut makes them all first."""


def metas() -> list[Path]:
    return sorted(Path("mutants").rglob("*.meta"))


def mark(change: Callable[[dict[str, int | None]], dict[str, int | None]]) -> None:
    for file in metas():
        meta = json.loads(file.read_text())
        file.write_text(json.dumps(meta | {"exit_code_by_key": change(meta["exit_code_by_key"])}))


def sampled(codes: dict[str, int | None], one_in: int) -> dict[str, int | None]:
    by_chance = sorted(codes, key=lambda name: hashlib.sha256(name.encode()).digest())
    asked = set(by_chance[: max(FEWEST, math.ceil(len(codes) / one_in))])
    return {name: None if name in asked else ASIDE for name in codes}


def clopper_pearson(hits: float, of: float, rate: float = 0.05) -> tuple[float, float]:
    """The two-sided interval of a share (Clopper & Pearson 1934), of numbers that need not be whole."""

    def tail(share: float) -> float:
        """P(X >= hits): the incomplete beta function, by the midpoint rule in the angle, where it has no poles."""
        a, b, steps = hits, of - hits + 1, 20_000
        end = math.asin(math.sqrt(share))
        log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        angles = ((step + 0.5) * end / steps for step in range(steps))
        return sum(
            2 * math.exp(log + (2 * a - 1) * math.log(math.sin(at)) + (2 * b - 1) * math.log(math.cos(at)))
            for at in angles
        ) * (end / steps)

    def where(wanted: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle) < wanted else (low, middle)
        return low

    lower = where(rate / 2) if hits else 0.0
    if hits >= of:
        return lower, 1.0
    hits += 1  # P(X <= hits) is one less P(X >= hits + 1)
    return lower, where(1 - rate / 2)


def count() -> int:
    """Of the whole, each file counts by its size, as if all its mutants were like those asked; the interval is the one
    of as many mutants as would say as much in a sample without files (Kish's effective size)."""
    whole = killed = squared = 0.0
    asked = there = 0
    unseen = []
    for file in metas():
        codes = json.loads(file.read_text())["exit_code_by_key"]
        told = {name: code for name, code in codes.items() if code not in UNTOLD}
        alive = [name for name, code in told.items() if code in SURVIVED]
        there += len(codes)
        if not told:
            unseen += [file.stem] if codes else []
            continue
        share, weight = 1 - len(alive) / len(told), len(codes) / len(told)
        print(f"{share:6.1%} of {len(told):4}  {file.relative_to('mutants').with_suffix('')}")
        print(*(f"    alive: {name}" for name in alive), sep="\n", end="\n" if alive else "")
        asked, whole, killed = asked + len(told), whole + len(codes), killed + share * len(codes)
        squared += weight**2 * len(told)
    share = killed / whole if whole else 0.0
    print(f"{share:6.1%} of {asked} in all; wanted {WANTED:.0%}.  `mutmut show NAME` shows one.")
    if 0 < asked < there:
        size = whole**2 / squared
        low, high = clopper_pearson(share * size, size)
        print(
            f"They stand for {whole:.0f} of {there}, of which between {low:.1%} and {high:.1%} are killed (95 % sure)."
        )
        print(f"No mutant was asked in {', '.join(unseen)}." if unseen else "Mutants of every file were asked.")
    return 0 if share >= WANTED else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="ask one in N mutants of each file")
    parser.add_argument("--again", action="store_true", help="ask those anew that lived")
    options = parser.parse_args()
    if options.sample:
        subprocess.run([MUTMUT, "run", A_FEW], check=True)
        mark(lambda codes: sampled(codes, options.sample))
    if options.again:
        mark(lambda codes: {name: None if code in SURVIVED else code for name, code in codes.items()})
    if options.sample or options.again:
        subprocess.run([MUTMUT, "run"], check=True)
    return count()


if __name__ == "__main__":
    sys.exit(main())
