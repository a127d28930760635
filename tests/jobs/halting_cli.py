"""edgequant's command line, where something suspends itself half-way: python halting_cli.py MOMENT ARGUMENTS...

So that a test can stop edgequant in the middle of its work, however fast the machine.  MOMENT is one of

    converting      every run of MNN's converter is suspended before it begins
    running:FOLDER  the runners are suspended when three cases are kept in captures/FOLDER
    pushing         edgequant itself is suspended when it has sent 4 MB
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil

from edgequant.archive.folder import RunDirectory
from edgequant.cli.app import main
from edgequant.cli.console import CliProgress
from edgequant.quantize import convert


def halt_converters() -> None:
    os.environ["EDGEQUANT_NO_CACHE"] = "1"
    tools = convert.tools_argv

    def halting(*calls: tuple[str, Sequence[str]]) -> list[str]:
        return ["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *tools(*calls)]

    convert.tools_argv = halting


def halt_runners(folder: str) -> None:
    keep = RunDirectory.save_arrays

    def halting(self: RunDirectory, where: str, name: str, arrays: Mapping[str, np.ndarray]) -> Path:
        path = keep(self, where, name, arrays)
        if where == f"captures/{folder}" and len(list(path.parent.glob("*.npz"))) == 3:
            for child in psutil.Process().children():
                child.suspend()
        return path

    RunDirectory.save_arrays = halting  # type: ignore[method-assign]


def halt_pushes() -> None:
    transfer = CliProgress.transfer

    @contextlib.contextmanager
    def halting(self: CliProgress, label: str, total: int) -> Iterator[Callable[[int], None]]:
        sent = 0
        with transfer(self, label, total) as count:

            def counting(size: int) -> None:
                nonlocal sent
                count(size)
                if sent < 4_000_000 <= sent + size:
                    os.kill(os.getpid(), signal.SIGSTOP)
                sent += size

            yield counting

    CliProgress.transfer = halting  # type: ignore[method-assign]


if __name__ == "__main__":
    moment, _, where = sys.argv.pop(1).partition(":")
    if moment == "converting":
        halt_converters()
    elif moment == "running":
        halt_runners(where)
    else:
        halt_pushes()
    sys.argv[0] = "edgequant"
    main()
