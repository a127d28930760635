"""Meeting the devices: all of them side by side, while this host does its own part."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from edgequant.archive.folder import RunFolder, safe_name
from edgequant.clock import Clock
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.progress import Progress
from edgequant.spec import RunOptions

T = TypeVar("T")


class Background(Generic[T]):
    """One call in a thread of its own, whose result, or exception, is asked for later.

    The thread does not keep the process alive: after ctrl-C nobody waits for a device that does not answer.
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

    def result(self) -> T:
        """Wait for it.  Raises what the call raised."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # the call has returned, so it is there


class Devices:
    """Connects to every device and starts its runner, or learns why not.  Use as a context manager.

    Raises InputError at once where the only device's URI cannot be used.
    """

    def __init__(
        self,
        uris: Sequence[str],
        reach: DeviceOptions,
        options: RunOptions,
        folder: RunFolder,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._clocks: list[Clock] = []
        self._opened: list[Session] = []
        self._lock = threading.Lock()
        self._closed = False
        self._met: dict[str, Session | EdgequantError] = {}
        self._meeting: dict[str, Background[Session]] = {}
        for uri in dict.fromkeys(uris):
            progress.say(f"device: {uri}")
            self._meeting[uri] = Background(self._opening(uri, reach, options, folder))

    def _opening(self, uri: str, reach: DeviceOptions, options: RunOptions, folder: RunFolder) -> Callable[[], Session]:
        clock = Clock()
        self._clocks.append(clock)

        def call() -> Session:
            log = folder.log(f"runner-{safe_name(uri)}")
            session = open_session(uri, reach, options, log=log, progress=self._progress, clock=clock)
            with self._lock:
                late = self._closed
                self._opened.append(session)
            if late:
                session.close()
                raise ToolError("INTERRUPTED", "the run ended before the device was there", where=uri)
            session.runner()
            return session

        return call

    def unusable(self) -> bool:
        """Whether it is known by now that none of them can be used."""
        return all(each.done for each in self._meeting.values()) and not any(
            isinstance(each, Session) for each in self.met().values()
        )

    def met(self) -> dict[str, Session | EdgequantError]:
        """Each device, ready or with what is wrong with it; waits for those that are not there yet.

        Raises InputError where the only device's URI or configuration cannot be used; ToolError where this host lacks
        something that every device needs.
        """
        for uri, meeting in self._meeting.items():
            if uri in self._met:
                continue
            try:
                with self._clock.phase("device open"):
                    self._met[uri] = meeting.result()
            except EdgequantError as error:
                if isinstance(error, InputError) and len(self._meeting) == 1:
                    raise
                if isinstance(error, ToolError) and error.where != uri:
                    raise  # this host lacks something, whatever the device
                self._progress.say(f"{error.code}: {error}")
                self._met[uri] = error
        for clock in self._clocks:
            for name, seconds in clock.seconds.items():
                self._clock.seconds[name] = self._clock.seconds.get(name, 0.0) + seconds
            clock.seconds.clear()
        return self._met

    def close(self) -> None:
        """Let go of all of them; of those that are not there yet, as soon as they are."""
        with self._lock:
            self._closed = True
            opened = list(self._opened)
        for session in opened:
            session.close()

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
