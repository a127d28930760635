"""Waiting for what a test is about: never for a time that is long enough on one machine and too short on another."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from edgequant.deadline import Deadline

LONG = 60.0
"""Seconds after which something that has to come counts as missing.  Only a test that fails waits so long."""


def eventually(what: Callable[[], bool], seconds: float = LONG) -> bool:
    """For what nothing announces."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def ended(pid: int, seconds: float = LONG) -> bool:
    """Wait for the end of a process that need not be a child of ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


class OnceReady(Deadline):
    """A limit that begins to run when `ready()` holds, so that what it is to cut short has begun on any machine.

    Only for what asks anew after each piece of output: the command under test has to print something when it is ready.
    """

    def __init__(self, seconds: float, ready: Callable[[], bool]) -> None:
        super().__init__(seconds)
        self._ready = ready
        self._whole = seconds
        self._end = time.monotonic() + LONG

    @property
    def remaining(self) -> float:
        if self._ready is not None and self._ready():
            self._end, self._ready = time.monotonic() + self._whole, None
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining <= 0
