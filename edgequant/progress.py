"""What a long job tells while it runs.  Jobs speak to this; the command line decides how it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Show = Callable[[int], None]


class Progress:
    """Says nothing: what the library uses when nobody listens.  Override its methods."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    @contextmanager
    def transfer(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A transfer of `total` bytes; the yielded function takes the bytes sent since its last call."""
        del label, total
        yield lambda _sent: None

    @contextmanager
    def counting(self, label: str, total: int | None) -> Iterator[Show]:
        """Work on `total` things, None where that is not known; the yielded function takes how many are done."""
        del label, total
        yield lambda _done: None


_LISTENER: ContextVar[Progress] = ContextVar("edgequant_progress", default=Progress())  # noqa: B039  (it has no state)


@contextmanager
def listening(progress: Progress) -> Iterator[None]:
    """What is counted below, however deep, is told to `progress`."""
    token = _LISTENER.set(progress)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def counting(label: str, total: int | None) -> AbstractContextManager[Show]:
    """`Progress.counting` of whoever listens."""
    return _LISTENER.get().counting(label, total)


def counted(label: str, items: Sequence[T]) -> Iterator[T]:
    """The items, with those that are done counted."""
    with counting(label, len(items)) as show:
        for number, item in enumerate(items):
            show(number)
            yield item
        show(len(items))
