"""edgequant's command line, where something suspends itself half-way: python halting_cli.py MOMENT ARGUMENTS...

So that a test can stop edgequant in the middle of its work, however fast the machine.  MOMENT is one of

    converting  every run of MNN's converter is suspended before it begins
    running     the runners are suspended when three cases have been run with memory low
    pushing     edgequant itself is suspended when it has sent 4 MB
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import psutil

from edgequant.archive.types import CaseCapture
from edgequant.cases.case import Case
from edgequant.cli.app import main
from edgequant.cli.console import CliProgress
from edgequant.lab.take import Taking
from edgequant.quantize import convert
from edgequant.runner.client import RunResult


def halt_converters() -> None:
    os.environ["EDGEQUANT_NO_CACHE"] = "1"
    tools = convert.tools_argv

    def halting(*calls: tuple[str, Sequence[str]]) -> list[str]:
        return ["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *tools(*calls)]

    convert.tools_argv = halting


def halt_runners() -> None:
    keep = Taking.keep

    def halting(self: Taking, case: Case, result: RunResult) -> CaseCapture:
        found = keep(self, case, result)
        if self.on_device and self.place.model.memory == "low" and len(self.cases) == 2:
            for child in psutil.Process().children():
                child.suspend()
        return found

    Taking.keep = halting  # type: ignore[method-assign]


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
    moment = sys.argv.pop(1)
    if moment == "converting":
        halt_converters()
    elif moment == "running":
        halt_runners()
    else:
        halt_pushes()
    sys.argv[0] = "edgequant"
    main()
