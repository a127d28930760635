"""Work that goes on beside the caller's."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """One call in a thread of its own, whose result, or exception, is asked for later.

    The thread does not keep the process alive: after ctrl-C nobody waits for what does not answer.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: T | None = None
        self._error: BaseException | None = None
        # Not the thread itself: a join that ctrl-C interrupts makes Python take the thread for ended.
        self._ended = threading.Event()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001  (it is raised where the result is asked for)
            self._error = error
        finally:
            self._ended.set()

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    def wait(self) -> None:
        """Until it has returned or raised."""
        self._ended.wait()

    def result(self) -> T:
        """Wait for it.  Raises what the call raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # the call has returned, so it is there
