"""One deadline, passed down, instead of a timeout per call that add up to nobody knows what."""

from __future__ import annotations

import time

from edgequant.errors import DeadlineExceeded


class Deadline:
    """A point on the monotonic clock by which a piece of work has to be finished.

    Args:
        seconds: time left from now, in seconds; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.seconds = None if seconds is None else round(seconds, 3)  # for messages: 2 and not 1.99999

    @property
    def remaining(self) -> float | None:
        """Seconds left (never negative), or None where there is no limit: fits every ``timeout=`` parameter."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def shorter(self, seconds: float) -> Deadline:
        """A deadline for a part of the work: at most `seconds` away, never later than this one."""
        left = self.remaining
        return Deadline(seconds if left is None else min(seconds, left))

    def check(self, doing: str, where: str | None = None) -> None:
        """Raise DeadlineExceeded when the time is up.  `doing` names the work, such as "pushing model.mnn"."""
        if self.expired:
            raise DeadlineExceeded(f"{doing} did not finish within {self.seconds:g} s", where=where)
