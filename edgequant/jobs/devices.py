"""Meeting the devices: all of them side by side, while this host does its own part."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from edgequant.archive.folder import RunFolder, safe_name
from edgequant.background import Background
from edgequant.clock import Clock
from edgequant.errors import EdgequantError, InputError, RunnerError, ToolError
from edgequant.files import host_error
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.progress import Progress
from edgequant.spec import RunOptions


def begin_host(options: RunOptions, folder: RunFolder, progress: Progress) -> Background[Session]:
    """Start this host's own runner."""
    # Pinning is for the device under test; this host may not even have those cores.
    options = options.model_copy(update={"cores": None})

    def call() -> Session:
        session = open_session("local:", DeviceOptions(), options, log=folder.log("runner-host"), progress=progress)
        session.runner()
        return session

    return Background(call)


def end_host(starting: Background[Session]) -> None:
    """Let go of this host's runner, if it came to be."""
    with contextlib.suppress(EdgequantError):
        starting.result().close()


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
            except Exception as error:
                # Whatever a device brings about costs that device, never the others.
                if len(self._meeting) == 1:
                    raise
                self._met[uri] = host_error(error) or RunnerError(
                    "INTERNAL_ERROR", f"{type(error).__name__}: {error}", where=uri, hint="This is a bug in edgequant."
                )
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
