"""What ctrl-C and its like do, at every moment of a command.

While a command works, it is a KeyboardInterrupt, so that what is finished can be written and what was started is
ended.  Before and after that nothing is left to tidy, and an exception would only become a traceback, or a death by
the signal, which a shell does not see as 130.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from edgequant.errors import EXIT_INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A CI job that is cancelled, or a terminal that is closed, gets the same orderly end as ctrl-C."""
_AGAIN_S = 0.02


def watch() -> None:
    """From here on the signals end this process with 130.  One that whoever started it ignores stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stopped)
    sys.unraisablehook = _unraisable


def working(work: Callable[[], int]) -> int:
    """Call `work`: the one place where the signals raise KeyboardInterrupt."""
    return work()


def ignore() -> None:
    """The exit code is known: what comes now changes nothing.  Python itself keeps to this until its last moment."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _stopped(number: int, frame: FrameType | None) -> None:
    del number
    # A flag would have to be set and cleared, and there would be a moment between that and whoever catches.
    while frame is not None:
        if frame.f_code is working.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back
    os.write(2, b"edgequant: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def _unraisable(found: Any) -> None:
    """A KeyboardInterrupt in a destructor is lost to whoever pressed: it is raised again a little later."""
    if not isinstance(found.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(found)
        return
    # To the process: one to the timer's own thread would not wake the main one.
    again = threading.Timer(_AGAIN_S, os.kill, [os.getpid(), signal.SIGINT])
    again.daemon = True
    again.start()
