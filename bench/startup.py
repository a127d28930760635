"""`edgequant --help` against importing the library its command line is made with.

Timed: wall time of `python -c "from edgequant.cli.app import main; main()" --help`, which is what the console script
does, against `python -c "import typer"`: the same interpreter, both from warm files, in turn.  What is above 1 is
edgequant's own imports, and making and printing the help.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.harness import Pairs, Result, Settings, median

BOUND = 1.2


def _wall(*arguments: str) -> float:
    start = time.perf_counter()
    # Compiled files are what both have after their first start; only pip writes them where this variable is set.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # No timeout: with one, subprocess polls, at 64 ms and then at 114 ms, and that would be what is measured.
    subprocess.run(
        [sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    return (time.perf_counter() - start) * 1e3


def run(settings: Settings) -> list[Result]:
    def ours() -> float:
        return _wall("-c", "from edgequant.cli.app import main; main()", "--help")

    def peer() -> float:
        return _wall("-c", "import typer")

    ours(), peer()
    pairs = Pairs()
    pairs.take(ours, peer, settings.pairs(30, 5))
    notes = f"{median(pairs.ours):.0f} ms, import typer {median(pairs.peer):.0f} ms"
    return [Result("startup", pairs.ratios, BOUND, notes=notes, detail=pairs.detail())]
