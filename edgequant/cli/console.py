"""Where output goes: results to stdout, what happens meanwhile to stderr; bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from edgequant.cli.document import print_json as print_json
from edgequant.cli.options import Ui
from edgequant.plain import printable
from edgequant.progress import Progress
from edgequant.text import shortened

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

BAR_BYTES = 4 << 20
"""Smaller transfers are over before a bar could be read."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would exit with 1, which is FAIL.
        raise BrokenPipeError


def out(ui: Ui) -> Console:
    """Console for results: stdout, or stderr where stdout is for one JSON document."""
    return _Console(stderr=ui.json, highlight=False)


class CliProgress(Progress):
    """Lines on stderr; bars of transfers, and of what is counted, where stderr is a terminal."""

    def __init__(self, ui: Ui) -> None:
        self._quiet = ui.quiet
        self._counts = not (ui.quiet or ui.json) and sys.stderr.isatty()
        self._bars: Bars | None = None
        self._one_bar = threading.Lock()
        """Devices are met side by side, and a terminal shows one set of bars at a time."""
        self._console = _Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(Text(printable(shortened(text)), style="dim"), soft_wrap=True)

    @contextmanager
    def counting(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        if not self._counts:
            yield lambda _done: None
        elif self._bars is not None:  # within something that is counted itself: a bar below its bar
            yield from self._counted(self._bars, label, total)
        else:
            from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            if not self._one_bar.acquire(blocking=False):
                yield lambda _done: None
                return
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            try:
                with Bars(*columns, console=self._console, transient=True) as bars:
                    self._bars = bars
                    yield from self._counted(bars, label, total)
            finally:
                self._bars = None
                self._one_bar.release()

    def _counted(self, bars: Bars, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        task = bars.add_task(escape(printable(label)[:60]), total=total)
        try:
            yield lambda done: bars.update(task, completed=done)
        finally:
            bars.remove_task(task)

    @contextmanager
    def transfer(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        shown = not self._quiet and total >= BAR_BYTES and sys.stderr.isatty()
        if not shown or not self._one_bar.acquire(blocking=False):
            start, sent = time.monotonic(), 0

            def count(size: int) -> None:
                nonlocal sent
                sent += size

            yield count
            seconds = time.monotonic() - start
            if sent:
                self.say(f"{label}: {sent / 1e6:.1f} MB in {seconds:.1f} s")
            return
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        try:
            with Bars(*columns, console=self._console, transient=True) as bars:
                task = bars.add_task(label, total=total)
                yield lambda size: bars.advance(task, size)
        finally:
            self._one_bar.release()
