"""A device made ready: connected, its store prepared, its runner started (again, where it died)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store, sha256_of
from edgequant.errors import ToolError
from edgequant.pipeline.clock import Clock
from edgequant.pipeline.runtime import Runtime, deploy, wants_pack
from edgequant.progress import Progress
from edgequant.runner.bundle import runner_file
from edgequant.runner.client import MnnRunner
from edgequant.runner.session import RunnerSession
from edgequant.spec import RunOptions

OPEN_SECONDS = 60.0
PUSH_FLOOR = 20_000
"""Bytes per second a link has to carry at least; slower than that, a push counts as stuck."""


@dataclass(frozen=True)
class TargetOptions:
    """How to reach and use a device, apart from how a model is run on it.

    work_dir: directory on the device; None for its default.  python: command there; None for the driver's default.
    runtime: whose Python runs the runner: the device's own, or that of the pack; see `pipeline.runtime`.
    """

    work_dir: str | None = None
    python: str | None = None
    accept_new_host_key: bool = False
    runtime: Runtime = "auto"


class Target:
    """One device with a store and, once asked for, a runner.  Use as a context manager."""

    def __init__(
        self,
        device: Device,
        options: TargetOptions,
        run_options: RunOptions,
        *,
        log: Path | None,
        progress: Progress,
        clock: Clock | None = None,
    ) -> None:
        self.device = device
        self._clock = clock or Clock()
        self._options = options
        self.python: tuple[str, ...] = ()
        self._run_options = run_options
        self._log = log
        self._progress = progress
        self._runner: MnnRunner | None = None
        self.known_runner: MnnRunner | None = None
        """The last runner that said hello, alive or not: what it told of its device still holds."""
        self.store = Store(device, options.work_dir)
        self._cache = _cache_folder()

    @property
    def uri(self) -> str:
        return self.device.uri

    def open(self) -> None:
        """Connect and prepare the work directory.  Raises DeviceError with what to do about it."""
        self.device.open(Deadline(OPEN_SECONDS))
        self.store.prepare(Deadline(OPEN_SECONDS))

    def runner(self) -> MnnRunner:
        """The running runner, started if there is none.  Raises DeviceError."""
        if self._runner is None:
            self.device.open(Deadline(OPEN_SECONDS))  # again, where the link was lost; nothing while it is there
            script, digest = self._script()
            stored = self.store.put(script, digest, self._push_deadline(script.stat().st_size))
            if wants_pack(self.device, self._options.runtime, self._options.python):
                self.python = tuple(deploy(self.device, self.store, self._progress, self._clock))
            else:
                self.python = tuple(self.device.python)
            # -u also unbuffers C's stdout: MNN's last words must be out before it crashes.
            argv = [*self.python, "-u", stored.path]
            session = RunnerSession(self.device, argv, log=self._log)
            try:
                with self._clock.phase("runner start"):
                    session.start(Deadline(OPEN_SECONDS))
                    runner = MnnRunner(session, self._run_options, uri=self.uri)
                runner.facts = self.device.corrected(runner.facts)
                self._runner = self.known_runner = runner
            except BaseException:
                session.close()
                raise
        return self._runner

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

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @staticmethod
    def _push_deadline(size: int) -> Deadline:
        return Deadline(OPEN_SECONDS + size / PUSH_FLOOR)


def open_target(
    uri: str,
    options: TargetOptions,
    run_options: RunOptions,
    *,
    log: Path | None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Target:
    """A ready Target for a device URI.  `clock` gets the phases of starting its runner.

    Raises InputError (bad URI), DeviceError.
    """
    from edgequant.devices.factory import make_device

    device = make_device(uri, accept_new_host_key=options.accept_new_host_key, python=options.python, listener=progress)
    target = Target(device, options, run_options, log=log, progress=progress or Progress(), clock=clock)
    try:
        target.open()
    except BaseException:
        target.close()
        raise
    return target


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgequant")) / "runner"
