"""A device made ready: connected, its store prepared, its runner started (again, where it died)."""

from __future__ import annotations

import getpass
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edgequant.archive.witness import Library
from edgequant.clock import Clock
from edgequant.deadline import Deadline
from edgequant.devices.facts import READ_SECONDS, facts_or_why
from edgequant.devices.facts_model import DeviceFacts
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, ToolError
from edgequant.files import sha256_of
from edgequant.lab.runtime import Chosen, Runtime, choose, pack_not_started
from edgequant.pack import WantedPack
from edgequant.progress import Progress
from edgequant.runner.bundle import runner_file
from edgequant.runner.client import MnnRunner
from edgequant.runner.session import RunnerSession
from edgequant.spec import RunOptions

OPEN_SECONDS = 60.0
_NO_PYTHON = ("PYTHON_MISSING", "PYTHON_NOT_EXECUTABLE")
_NO_RUNTIME = (*_NO_PYTHON, "PYTHON_TOO_OLD", "MNN_MISSING", "NUMPY_MISSING")
_IF_CLEANED = ("WORK_DIR_CLEANED", "RUNNER_NOT_STARTED", "PACK_NOT_STARTED", "PACK_NOT_UNPACKED")
_TRIES_IF_CLEANED = 3  # cleaning that has begun may still go on when the place is prepared again
_SAME_BOOT_SECONDS = 5.0
PUSH_FLOOR = 20_000
"""Bytes per second a link has to carry at least; slower than that, a push counts as stuck."""


@dataclass(frozen=True)
class DeviceOptions:
    """How to reach and use a device, apart from how a model is run on it.

    work_dir: directory on the device; None for its default.  python: command there; None for the driver's default.
    runtime: whose Python runs the runner: the device's own, or that of the pack; see `lab.runtime`.
    wanted: which pack, where it is a pack.
    wait: seconds to wait where another edgequant is using the device.
    """

    work_dir: str | None = None
    python: str | None = None
    accept_new_host_key: bool = False
    runtime: Runtime = "auto"
    wanted: WantedPack = field(default_factory=WantedPack)
    wait: float = 600.0


class Session:
    """One device with a store and, once asked for, a runner.  Use as a context manager."""

    def __init__(
        self,
        device: Device,
        options: DeviceOptions,
        run_options: RunOptions,
        *,
        log: Path | None,
        progress: Progress,
        clock: Clock | None = None,
    ) -> None:
        self.device = device
        self._clock = clock or Clock()
        self._options = options
        self.chosen: Chosen | None = None
        """Whose Python it runs; None before a runner was started."""
        self._mine = False
        self._runtime_bytes = 0
        self._run_options = run_options
        self._log = log
        self._progress = progress
        self._runner: MnnRunner | None = None
        self.known_runner: MnnRunner | None = None
        """The last runner that said hello, alive or not: what it told of its device still holds."""
        self.facts: DeviceFacts | None = None
        """Of the device; read when a runner is there, once."""
        self._apart: float | None = None
        self.store = Store(device, options.work_dir)
        self._cache = _cache_folder()
        self.runner_path = ""
        """Of the runner's program on the device, once it was started."""
        self.libraries: dict[str, Library] = {}
        """What a witness has seen of MNN's files there, by what tells one file from another."""

    @property
    def uri(self) -> str:
        return self.device.uri

    def open(self) -> None:
        """Connect and prepare the work directory.  Raises DeviceError with what to do about it."""
        self.device.open(Deadline(OPEN_SECONDS))
        self.store.prepare(Deadline(OPEN_SECONDS))

    def runner(self) -> MnnRunner:
        """The running runner, started if there is none.  Raises DeviceError."""
        tries = _TRIES_IF_CLEANED
        while self._runner is None:
            try:
                self._runner = self._start()
            except DeviceError as error:
                tries -= 1
                if not tries or error.code not in _IF_CLEANED or not self._was_cleaned():
                    raise
                self.store.prepare(Deadline(OPEN_SECONDS))
        return self._runner

    def _was_cleaned(self) -> bool:
        """Whether another edgequant cleaned the place, as it may while nobody knows that we are here."""
        self.store.forget()
        script = self._script()[1]
        return not self.store.is_there() or script not in self.store.have([script], Deadline(OPEN_SECONDS))

    def _start(self) -> MnnRunner:
        self.device.open(Deadline(OPEN_SECONDS))  # again, where the link was lost; nothing while it is there
        before = self.store.sent_bytes
        # First the pack: whether it has room, and programs may be started, is known before anything is sent.
        chosen = self.chosen = choose(
            self.device,
            self.store,
            self._progress,
            runtime=self._options.runtime,
            python=self._options.python,
            wanted=self._options.wanted,
            clock=self._clock,
        )
        script, digest = self._script()
        stored = self.store.put(script, digest, self._push_deadline(script.stat().st_size))
        self._runtime_bytes += self.store.sent_bytes - before
        self.runner_path = stored.path
        # -u also unbuffers C's stdout: MNN's last words must be out before it crashes.
        session = RunnerSession(self.device, [*chosen.python, "-u", stored.path], log=self._log)
        found: DeviceFacts | None = None

        def read_facts() -> None:
            nonlocal found
            if self.facts is None:
                found = facts_or_why(self.device, Deadline(READ_SECONDS), work_dir=self.store.root)
                self._apart = _apart(found)

        try:
            try:
                with self._clock.phase("runner start"):
                    session.start(Deadline(OPEN_SECONDS), meanwhile=read_facts)
                    runner = MnnRunner(session, self._run_options, uri=self.uri)
            except DeviceError as error:
                if chosen.runtime == "pack" and error.code in _NO_PYTHON:
                    said = error.evidence["stderr"][-1:] or ["it printed nothing"]
                    raise pack_not_started(self.uri, " ".join(chosen.python)[:300], said[0]) from error
                if chosen.instead is None or error.code not in _NO_RUNTIME:
                    raise
                # Neither: what is wrong with the pack is nearer to being mended than what is not installed.
                chosen.instead.evidence["instead"] = f"{error.code}: {error}"
                chosen.instead.where = self.uri
                raise chosen.instead from error
            if self._mine:
                self._lock(runner)
            if found is not None:
                self.facts = found.known(**runner.facts.of_device)
            self.known_runner = runner
        except BaseException:
            session.close()
            raise
        return runner

    def _script(self) -> tuple[Path, str]:
        try:
            return runner_file(self._cache)
        except OSError as error:
            raise ToolError(
                "CACHE_UNWRITABLE",
                f"{self._cache} cannot be written: {error.strerror or error}",
                hint="Free some space on this host, or set XDG_CACHE_HOME to a folder you may write to.",
            ) from None

    def living_runner(self) -> MnnRunner:
        """As `runner`, after making sure that one which has waited is still there: its death while it did nothing is
        no model's doing.  Raises DeviceError."""
        if self._runner is not None and not self._runner.alive():
            self.drop_runner()
        return self.runner()

    def fresh(self) -> MnnRunner:
        """A runner whose process has loaded no model yet, so that its memory tells of the next one alone.

        Where we own the device, the process of the last one starts itself anew and keeps the lock: nobody else gets
        the device in between.  Where it cannot, there is a new process, which has to take the lock again.

        Raises DeviceError (LINK_LOST, DEVICE_BUSY and those of `runner`).
        """
        runner = self._runner
        if runner is None or not runner.used:
            return self.living_runner()
        if self._mine:
            try:
                with self._clock.phase("runner start"):
                    self._runner = self.known_runner = runner.restarted()
                self._lock(self._runner)
                return self._runner
            except DeviceError as error:
                if error.code in ("LINK_LOST", "DEVICE_BUSY"):
                    self.drop_runner()
                    raise
                self._progress.say(f"{self.uri}: the runner did not start anew ({error.code}): another one is started")
        self.drop_runner()
        return self.runner()

    @property
    def shares_cores(self) -> bool:
        """Whether it is this machine under another name (sshd on loopback, a container): booted in the same moment."""
        return self._apart is not None and self._apart < _SAME_BOOT_SECONDS

    @property
    def runtime_bytes(self) -> int:
        """What was sent of runner and pack so far."""
        return self._runtime_bytes

    def own(self) -> None:
        """Have the device for this process alone from now on, waiting where another has it: two at once would measure
        each other.  It is let go with the runner's end, however that comes.

        Take one device at a time, or two processes may wait for each other.

        Raises DeviceError (DEVICE_BUSY).
        """
        if not self._mine and self.device.exclusive:
            self._lock(self.living_runner())
            self._mine = True
            # Until now nobody knew that we are here: the place may have been cleaned under us.
            self.store.forget()
            script = self._script()[1]
            if script not in self.store.have([script], Deadline(OPEN_SECONDS)):
                self.drop_runner()
                self.store.prepare(Deadline(OPEN_SECONDS))
                self.runner()

    def _lock(self, runner: MnnRunner) -> None:
        def waiting(holder: str) -> None:
            self._progress.say(f"{self.uri} is being used by {holder}; waiting for it up to {self._options.wait:g} s")

        runner.lock(_who(), self._options.wait, waiting)

    def drop_runner(self) -> None:
        """End the runner; the next `runner()` starts a new one."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def push(self, model: Path, sha256: str | None = None) -> tuple[str, int]:
        """Make sure the device has the model; returns its path there and the bytes that were sent."""
        digest = sha256 or sha256_of(model)
        size = model.stat().st_size
        deadline = self._push_deadline(size)
        with self._progress.transfer(f"push {model.name}", size) as sent:
            stored = self.store.put(model, digest, deadline, size=size, progress=sent)
        return stored.path, stored.sent

    def close(self) -> None:
        self.drop_runner()
        self.device.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @staticmethod
    def _push_deadline(size: int) -> Deadline:
        return Deadline(OPEN_SECONDS + size / PUSH_FLOOR)


def open_session(
    uri: str,
    options: DeviceOptions,
    run_options: RunOptions,
    *,
    log: Path | None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Session:
    """A ready Session for a device URI.  `clock` gets the phases of starting its runner.

    Raises InputError (bad URI), DeviceError.
    """
    from edgequant.devices.registry import make_device

    device = make_device(
        uri,
        accept_new_host_key=options.accept_new_host_key,
        python=options.python,
        wanted=options.wanted,
        listener=progress,
    )
    session = Session(device, options, run_options, log=log, progress=progress or Progress(), clock=clock)
    try:
        session.open()
    except BaseException:
        session.close()
        raise
    return session


def _apart(facts: DeviceFacts) -> float | None:
    """Seconds between the moments in which the device and this host were started; None where nobody tells."""
    if facts.uptime_s is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return abs(facts.uptime_s - time.clock_gettime(time.CLOCK_BOOTTIME))


def _who() -> str:
    """This process, for whoever waits for it; the device's clock may be wrong, so it is this host's."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (edgequant, process {os.getpid()}, since {datetime.now():%H:%M:%S})"


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgequant")) / "runner"
