"""What the tests of the main job on a phone share: what goes to it, what is on it, and faults at a given moment."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgequant.report.model import Failure, Report, Run
from tests.beds.vm import Phone
from tests.jobs.support import Listener, do

ROOT = "/data/local/tmp"


class Sent(Listener):
    """Transfers by label -> bytes.  Each action is taken once.

    Args:
        start, on, after: `on` is called by the first line that starts with `start`, in another thread and `after`
            seconds later.
        push, at: `at` is called, in the thread that sends, when a third of the transfer whose label starts with
            `push` has gone.
    """

    def __init__(
        self,
        start: str = "\0",
        on: Callable[[], object] | None = None,
        after: float = 0,
        *,
        push: str = "\0",
        at: Callable[[], object] | None = None,
    ) -> None:
        self.bytes: dict[str, int] = {}
        self.timer = threading.Timer(after, on or (lambda: None))
        self.struck = False
        self._start, self._push, self._at = start, f"push {push}", at or (lambda: None)
        self._totals: dict[str, int] = {}
        super().__init__(self._hear, self._count)

    def transfer(self, label: str, total: int) -> Any:
        self._totals[label] = total
        return super().transfer(label, total)

    def _hear(self, text: str) -> None:
        if text.startswith(self._start) and self.timer.ident is None:
            self.timer.start()

    def _count(self, label: str, size: int) -> None:
        self.bytes[label] = self.bytes.get(label, 0) + size
        if label.startswith(self._push) and self.bytes[label] * 3 >= self._totals[label] and not self.struck:
            self.struck = True
            assert self.bytes[label] < self._totals[label], "it was sent in one piece"
            self._at()

    @property
    def packs(self) -> dict[str, int]:
        return {label: size for label, size in self.bytes.items() if label.startswith("push edgequant-pack")}


class Listening(Sent):
    """Calls `act` by the line that starts with `start`, and only then lets the job go on."""

    def __init__(self, start: str, act: Callable[[], object]) -> None:
        self._line, self._act = start, act
        super().__init__()

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith(self._line):
            self._act()


def verify(model: Path, run_dir: Path, phone: Phone, progress: Sent | None = None, **more: Any) -> Report:
    progress = progress or Sent()
    variant = more.pop("variant", "dynamic:8")
    report = do(model, run_dir, variant, devices=(phone.uri,), progress=progress, **more)
    if progress.timer.ident is not None:
        progress.timer.join()
    return report


def passed(report: Report) -> Run:
    (run,) = report.runs
    assert run.verdict == "PASS", run.error
    return run


def error_of(report: Report) -> Failure:
    (run,) = report.runs
    assert report.verdict == run.verdict == "ERROR", report.verdict
    assert run.error is not None
    return run.error


def listed(phone: Phone, pattern: str) -> list[str]:
    """Paths below the work directory, of whichever user, that match."""
    return sorted(phone.shell(f"ls -d {ROOT}/*/{pattern} 2>/dev/null || true").split())


def packs(phone: Phone) -> list[str]:
    return listed(phone, "packs/*")


@contextlib.contextmanager
def filled(phone: Phone, left_mb: int) -> Iterator[Callable[[int], None]]:
    """All but so many MB of the phone's disk are taken, until the end; call what this yields to change that."""
    files = f"{ROOT}/fill-*"

    def fill(left: int) -> None:
        free = int(phone.shell(f"rm -f {files}; df -Pk {ROOT} | tail -n 1").split()[3]) // 1024
        # What is being pushed meanwhile takes room as well, so the last of it is not counted on.
        phone.shell(f"busybox fallocate -l {max(free - left - (0 if left else 32), 1) << 20} {ROOT}/fill-1")
        if not left:  # to the last block
            phone.shell(f"dd if=/dev/zero of={ROOT}/fill-2 bs=4096 2>/dev/null; true")

    try:
        fill(left_mb)
        yield fill
    finally:
        phone.shell(f"rm -f {files}")
