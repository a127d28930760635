"""What a long job tells while it runs.  The pipeline speaks to this; the command line decides how it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Says nothing: what the library uses when nobody listens.  Override both methods."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    @contextmanager
    def transfer(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A transfer of `total` bytes; the yielded function takes the bytes sent since its last call."""
        del label, total
        yield lambda _sent: None
