"""The whole job: every variant on every device, captured, judged, with a report at the end whatever happens."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgequant.archive.folder import RunFolder, device_capture, host_capture
from edgequant.archive.manifest import Ahead, begin_anew, close
from edgequant.archive.open import Run, open_run
from edgequant.archive.types import Artifact, Capture, Closing, DeviceCapture, Failure, Making
from edgequant.background import Background
from edgequant.clock import Clock
from edgequant.errors import DeviceError, EdgequantError, InputError, ToolError
from edgequant.files import sha256_of
from edgequant.jobs.bugs import bug
from edgequant.jobs.devices import Devices, begin_host, end_host, is_arm
from edgequant.jobs.look import Looked, look
from edgequant.jobs.probes import device_probes
from edgequant.jobs.rounding import with_rounding
from edgequant.jobs.same_place import host_mnn, require_same_device
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Probe, device_capture_of, take
from edgequant.models import read_model
from edgequant.plan.request import Request
from edgequant.plan.stored import plan_of, request_of, trial_id
from edgequant.progress import Progress
from edgequant.quantize.maker import Maker
from edgequant.quantize.work import HOPELESS, remove_stale
from edgequant.spec import Variant

if TYPE_CHECKING:  # loaded while others work, see `_Verify.run`
    from edgequant.jobs.prepare import Prepared
    from edgequant.jobs.reporting import Reporter
    from edgequant.report.model import Report


class InterruptedRun(KeyboardInterrupt):
    """The user stopped the run; `report` holds what was finished, and has been written to `path`."""

    def __init__(self, report: Report | None, path: Path) -> None:
        super().__init__()
        self.report = report
        self.path = path


def verify(
    request: Request,
    progress: Progress | None = None,
    *,
    job: Literal["verify", "quantize"] = "verify",
    meanwhile: Callable[[], object] = lambda: None,
    reporter: Callable[[RunFolder], Reporter] | None = None,
) -> tuple[Report, RunFolder]:
    """Quantize, push, run, compare and judge; returns the report, which is also written, and the run folder.

    Raises InputError for what the user gave, ToolError or DeviceError where nothing could be run at all because this
    host lacks something.  A device that cannot be used is not an exception: its runs have the verdict ERROR; nor is a
    tool that fails to make a variant.  `meanwhile` is called when all that can be started has been: there is time
    to load what showing the report takes.  `reporter` makes what judges it, for those who judge it again.
    Raises InterruptedRun on ctrl-C, after the partial report has been written.
    """
    version = host_mnn()
    folder = RunFolder.create(request.run_dir, str(request.model))
    with folder.alone():
        asked = _Verify(request, folder, progress or Progress(), job, version, meanwhile=meanwhile, reporter=reporter)
        return _verify(asked)


def resume(run_dir: Path, progress: Progress | None = None) -> tuple[Report, RunFolder]:
    """Go on with a run that was interrupted: only what is missing is made and run, what failed is tried again.

    run_dir: its folder, or a file in it.  Raises as `verify`; InputError (RUN_NOT_FOUND, RUN_INVALID, MODEL_CHANGED,
    MNN_CHANGED).  A device that is another one now (DEVICE_CHANGED) cannot be used.
    """
    run = open_run(run_dir)
    version = host_mnn(run)
    request, folder = request_of(run.plan, run.path), RunFolder(run.path)
    with folder.alone():
        folder.reopen()
        return _verify(_Verify(request, folder, progress or Progress(), run.plan.job, version, run))


def _verify(job: _Verify) -> tuple[Report, RunFolder]:
    try:
        report = job.run()
    except KeyboardInterrupt:
        raise InterruptedRun(job.finish() if job.begun else None, job.folder.report) from None
    except InputError as error:
        # The converter's log is worth keeping; a mistyped option is not worth a folder.
        if not job.begun and "log" not in error.evidence:
            job.folder.discard()
        raise
    except Exception:
        if job.begun:
            with contextlib.suppress(EdgequantError):  # the first error is the one to tell
                job.finish()
        raise
    close(job.folder.path, job.ahead)
    return report, job.folder


class _Verify:
    """One run, with what it has so far in its folder."""

    def __init__(
        self,
        request: Request,
        folder: RunFolder,
        progress: Progress,
        job: Literal["verify", "quantize"],
        mnn: str,
        earlier: Run | None = None,
        *,
        meanwhile: Callable[[], object] = lambda: None,
        reporter: Callable[[RunFolder], Reporter] | None = None,
    ) -> None:
        self.request = request
        self.folder = folder
        self.progress, self.clock = progress, Clock()
        self.begun = False
        """There is something to report."""
        self.ahead: Ahead | None = None
        self._meanwhile, self._make_reporter = meanwhile, reporter
        self._earlier = earlier
        self._kept: dict[Variant, Artifact | None] = {}
        self._archive = Run(folder.path)
        self._runtime_told: dict[str, int] = {}
        self._taken: tuple[str, str] | None = None
        for models in folder.path.parent.glob("*/models"):
            remove_stale(models)  # what runs beside this one left when they were killed
        if earlier is not None:
            with contextlib.suppress(InputError):  # a damaged one is written anew
                self.clock.seconds.update(earlier.closing.seconds)
        else:
            folder.save_plan(plan_of(request, mnn, job))

    def run(self) -> Report:
        request, folder, progress = self.request, self.folder, self.progress
        looked = look(request, progress, self.clock)
        self._refuse_other_source(looked)
        begin_anew(folder.path)
        starting = begin_host(request.options, folder, progress)
        with (
            contextlib.ExitStack() as stack,
            Devices(request.devices, request.access, request.options, folder, progress, self.clock) as devices,
        ):
            stack.callback(end_host, starting)
            if devices.unusable():
                return self._unusable(looked, devices)
            from edgequant.jobs.making import open_maker
            from edgequant.jobs.prepare import FLOAT

            maker = open_maker(looked.graph, request, folder, progress, self.clock)
            stack.callback(maker.stop)
            self._kept = {variant: self._kept_artifact(variant) for variant in request.variants}
            maker.begin([FLOAT, *(variant for variant, artifact in self._kept.items() if artifact is None)])
            prepared = self._prepare(looked, starting, maker)
            met = devices.met()
            if devices.unusable():
                return self._unusable(looked, devices)
            self._archive = Run(folder.path)
            # Before anything is pushed: a limit that names no output is the user's mistake, not the device's.
            self._reporter.begin(self._archive, now=maker.busy)
            self.begun = True
            host = starting.result()
            made = self._make_all(prepared, maker, host, met)
            for uri in request.devices:
                self._device(uri, met[uri], made, prepared, host)
        return self._told(self.finish(ended=True))

    def _prepare(self, looked: Looked, starting: Background[Session], maker: Maker) -> Prepared:
        from edgequant.jobs.prepare import prepare, prepared_again

        if self._earlier is not None and self._earlier.prepared:
            return prepared_again(self._earlier, looked, self.folder, maker, self.clock)
        return prepare(
            self.request, looked, self.folder, starting.result, maker, self.progress, self.clock,
            meanwhile=lambda: (self._reporter, self._meanwhile()),  # loading what judging takes takes a while
        )  # fmt: skip

    def _refuse_other_source(self, looked: Looked) -> None:
        """Raise InputError where the source is no longer that of the run that is gone on with."""
        if self._earlier is None or not (self.folder.path / "source.json").exists():
            return
        if looked.graph.sha256 != self._earlier.source.sha256:
            raise InputError(
                "MODEL_CHANGED",
                f"{self.request.model}: it is not the file this run was begun with",
                hint="Begin a new run.",
                evidence={"sha256": self._earlier.source.sha256, "now": looked.graph.sha256},
            )

    def _unusable(self, looked: Looked, devices: Devices) -> Report:
        """No device can be used: nothing is made, nothing is run."""
        from edgequant.jobs.prepare import source_of

        if not self._archive.prepared:
            self.folder.save_source(source_of(looked.graph, self.request))
        for uri, error in devices.met().items():
            assert isinstance(error, EdgequantError)
            self._failed_device(uri, error)
        self._archive = Run(self.folder.path)
        return self.finish(ended=True)

    # ---- making

    def _make_all(
        self, prepared: Prepared, maker: Maker, host: Session, met: dict[str, Session | EdgequantError]
    ) -> dict[Variant, Artifact]:
        if any(variant.searched for variant in self.request.variants):
            from edgequant.jobs.making import on_host

            usable = [session for session in met.values() if isinstance(session, Session)]
            arm = any(is_arm(session) for session in usable if not session.device.is_host)
            maker = maker.knowing(on_host(prepared, self.request, host, device=next(iter(usable), None), arm=arm))
        found: dict[Variant, Artifact] = {}
        for variant in self.request.variants:
            artifact = self._kept[variant] or self._make(variant, maker, prepared.float_model)
            if artifact is not None:
                found[variant] = artifact
        return found

    def _kept_artifact(self, variant: Variant) -> Artifact | None:
        """What an interrupted run has made already."""
        making = None if self._earlier is None else self._earlier.making(variant)
        if making is None or making.artifact is None:
            return None
        path = self.folder.path / making.artifact.path
        if not path.is_file() or sha256_of(path) != making.artifact.sha256:
            return None
        return making.artifact.model_copy(update={"path": path})

    def _make(self, variant: Variant, maker: Maker, float_model: Artifact) -> Artifact | None:
        if not maker.has(variant):
            self.progress.say(f"quantizing {variant}")
        alone = len(self.request.variants) == 1
        try:
            with self.clock.phase("convert"):
                artifact = with_rounding(maker.make(variant), float_model.path)
        except EdgequantError as error:
            # Calibration data that cannot be read is no one variant's; an option that does not fit fails only its own.
            of_all = error is maker.unreadable
            # Of a tool that failed the report tells; what this host lacks keeps it from being written as well.
            if (alone and (not isinstance(error, ToolError) or error.code in HOPELESS)) or of_all:
                raise
            self.progress.say(f"{variant}: {error.code}: {error}")
            failure = Failure.of(error)
        except Exception as error:
            if alone:
                raise
            failure = bug(error, "making", variant, self.folder)
        else:
            self.folder.save_making(Making(variant=variant, artifact=artifact))
            return artifact
        self.folder.save_making(Making(variant=variant, failure=failure))
        return None

    # ---- taking

    def _device(
        self,
        uri: str,
        met: Session | EdgequantError,
        made: dict[Variant, Artifact],
        prepared: Prepared,
        host: Session,
    ) -> None:
        if isinstance(met, EdgequantError):
            self._failed_device(uri, met)
            return
        left = [variant for variant in made if not self._captured(uri, made[variant])]
        with met as session:
            try:
                with self.clock.phase("device wait"):
                    session.own()
                require_same_device(self._earlier, session)
            except DeviceError as error:
                self._failed_device(uri, error)
                return
            for variant in left:
                self._take(session, made[variant], prepared, host)
                self._taken = (uri, str(variant))
                # What is finished survives whatever comes, a kill -9 too.  Of the last one the report is about to be.
                if (uri, variant) != (self.request.devices[-1], left[-1]):
                    self._told(self.finish())

    def _told(self, report: Report) -> Report:
        """Say what became of the run that was just finished, if there was one."""
        for run in report.runs:
            if (run.device.uri, run.variant) == self._taken:
                self.progress.say(f"{run.verdict}: {run.variant} on {run.device.uri}")
        self._taken = None
        return report

    def _captured(self, uri: str, artifact: Artifact) -> bool:
        """Whether an interrupted run has brought it back whole."""
        kept = None if self._earlier is None else self._earlier.on_device(uri, artifact.asked)
        return kept is not None and kept.failure is None and kept.artifact_sha256 == artifact.sha256

    def _take(self, session: Session, artifact: Artifact, prepared: Prepared, host: Session) -> None:
        from edgequant.jobs.beside import CompareBeside, HostBeside

        variant, uri = artifact.asked, session.uri
        several = "s" if len(prepared.cases) > 1 else ""
        self.progress.say(f"running {variant} on {uri} ({len(prepared.cases)} case{several})")
        # Times of an emulator would only be mistaken for something.
        timed = self.request.latency and session.device.emulated is None
        options, subgraphs = self.request.options, artifact.facts.has_subgraphs
        probes = device_probes(options, timed=timed, subgraphs=subgraphs, rollout=prepared.rollout)
        model = ModelFile(artifact.path, options.memory_for(artifact.run_as), artifact.sha256)
        trial = trial_id(artifact, uri, self._archive.source.cases, options, [probe.name for probe in probes])
        self._reporter.wait()  # nothing of ours is at work where it is timed
        compare, is_host = functools.partial(self._reporter.compare_meanwhile, self._archive), session.device.is_host
        probes[timed:timed] = [CompareBeside(functools.partial(compare, here=is_host))]
        with contextlib.ExitStack() as beside:
            if not is_host:
                here = HostBeside(artifact, self.request, prepared, host, self.folder, self._archive, self.progress,
                              functools.partial(compare, here=True))  # fmt: skip
                # A device that shares this host's cores is timed while they are its own.
                later = timed and session.shares_cores
                probes[1:1] = [here] if later else []
                beside.enter_context(here.meanwhile(now=not later))
            capture = self._capture(session, model, prepared, probes, trial, variant)
        self._runtime_told[uri] = session.runtime_bytes
        self.folder.save_capture(device_capture(uri, variant), capture)
        if is_host and self._archive.on_host(variant) is None and capture.failure is None:
            # What the file computes on this host; before another device it is taken anew, with what rounding does.
            copy = capture.model_copy(update={"role": "variant-host", "timings": ()})
            self.folder.save_capture(host_capture(variant), copy)

    def _capture(
        self,
        session: Session,
        model: ModelFile,
        prepared: Prepared,
        probes: list[Probe],
        trial: str,
        variant: Variant,
    ) -> Capture:
        try:
            with self.clock.phase("device"):
                return take(
                    session, model, prepared.cases, probes, self.folder.array_folder,
                    trial=trial, role="device", variant=str(variant), clock=self.clock,
                    runtime_told=self._runtime_told.get(session.uri, 0),
                )  # fmt: skip
        except EdgequantError:
            raise
        except Exception as error:  # noqa: BLE001  (told in full; one run must not take the others with it)
            session.drop_runner()
            return Capture(
                trial=trial,
                role="device",
                variant=str(variant),
                device=device_capture_of(session),
                failure=bug(error, session.uri, variant, self.folder),
            )

    def _failed_device(self, uri: str, error: EdgequantError) -> None:
        for variant in self.request.variants:
            kept = self._archive.on_device(uri, variant)
            if kept is None or kept.failure is not None:  # what an interrupted run has finished stays
                self.folder.save_capture(
                    device_capture(uri, variant),
                    Capture(
                        trial=device_capture(uri, variant),
                        role="device",
                        variant=str(variant),
                        device=DeviceCapture(uri=uri),
                        failure=Failure.of(error),
                    ),
                )

    # ---- ending

    def finish(self, *, ended: bool = False) -> Report:
        """Judge what is there so far, and write the report."""
        self.ahead = Ahead(self.folder.path) if ended else None
        now = self._source_now() if ended else None
        self.folder.save_closing(Closing(seconds=dict(self.clock.seconds), ended=ended, source_now=now))
        return self._reporter.report()

    @cached_property
    def _reporter(self) -> Reporter:
        from edgequant.jobs.reporting import Reporter

        return (self._make_reporter or Reporter)(self.folder)

    def _source_now(self) -> str:
        try:
            return read_model(self.request.model).sha256
        except InputError as error:
            return error.code
