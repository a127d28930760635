"""The whole job: every variant on every device, judged, with one report at the end whatever happens on the way."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import edgequant
from edgequant.archive.folder import RunDirectory, disk_error, safe_name
from edgequant.archive.outputs import OutputStore
from edgequant.clock import Clock
from edgequant.errors import DeviceError, EdgequantError, InputError, RunnerError, ToolError
from edgequant.findings import Finding
from edgequant.jobs import build
from edgequant.jobs.made import VariantMaker
from edgequant.jobs.made_variant import MadeVariant
from edgequant.jobs.prepare import FLOAT, Prepared, feed, look, prepare
from edgequant.judge.advice import with_hints
from edgequant.judge.kernel_faults import ARM64
from edgequant.judge.limits import defaults_for, resolve_limits
from edgequant.judge.verdict import Verdict, worst
from edgequant.lab.measure import capture_folder, measure, memory_mode
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.mnn_version import host_mnn_version, require_supported
from edgequant.models import read_model
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.work import HOPELESS
from edgequant.report.model import Report, Run
from edgequant.report.write import write
from edgequant.spec import Limit, RunOptions, Variant


class InterruptedRun(KeyboardInterrupt):
    """The user stopped the run; `report` holds what was finished, and has been written to `path`."""

    def __init__(self, report: Report | None, path: Path) -> None:
        super().__init__()
        self.report = report
        self.path = path


@dataclass
class HostRun:
    """What a variant computes on this host: the middle between quantization error and device error.

    why: why there is nothing; failed: cases MNN refused here.
    """

    outputs: OutputStore
    why: str | None = None
    failed: dict[str, str] = field(default_factory=dict)


def verify(request: Request, progress: Progress | None = None) -> tuple[Report, RunDirectory]:
    """Quantize, push, run, compare and judge; returns the report, which is also written, and the run directory.

    Raises InputError for what the user gave, ToolError or DeviceError where nothing could be run at all because this
    host lacks something.  A device that cannot be used is not an exception: its runs have the verdict ERROR; nor is a
    tool that fails to make a variant.
    Raises InterruptedRun on ctrl-C, after the partial report has been written.
    """
    progress = progress or Progress()
    version = host_mnn_version()
    require_supported(version, "this host")
    run_dir = RunDirectory(request.run_dir, str(request.model))
    clock = Clock()
    # Pinning is for the device under test; this host may not even have those cores.
    host_options = request.options.model_copy(update={"cores": None})
    host = open_session("local:", DeviceOptions(), host_options, log=run_dir.log("runner-host"), progress=progress)
    job: _Job | None = None
    try:
        with host, contextlib.ExitStack() as opened:
            looked = look(request, progress, clock)
            met = _meet(request, run_dir, progress, clock, opened)
            errors = {uri: target for uri, target in met.items() if isinstance(target, EdgequantError)}
            if len(errors) == len(met):
                # Nothing can come of it: say so now, not after minutes of work on this host.
                unused = build.build_unused(request, looked, errors, clock, edgequant.__version__, version)
                _write(unused, run_dir)
                return unused, run_dir
            prepared = prepare(request, looked, run_dir, host, progress, clock)
            job = _Job(request, run_dir, host, prepared, progress, version, met)
            job.run()
    except KeyboardInterrupt:
        report = None if job is None else job.finish(interrupted=True)
        raise InterruptedRun(report, run_dir.report) from None
    except InputError as error:
        # The converter's log is worth keeping; a mistyped option is not worth a folder.
        if job is None and "log" not in error.evidence:
            run_dir.discard()
        raise
    except Exception:
        if job and job.runs:
            with contextlib.suppress(EdgequantError):  # the first error is the one to tell
                job.finish(interrupted=True)
        raise
    return job.finish(), run_dir


def _meet(
    request: Request, run_dir: RunDirectory, progress: Progress, clock: Clock, opened: contextlib.ExitStack
) -> dict[str, Session | EdgequantError]:
    """Connect to every device and start its runner, or learn why not.

    Raises InputError where the only device's URI or configuration cannot be used.
    """
    met: dict[str, Session | EdgequantError] = {}
    for uri in request.devices:
        progress.say(f"device: {uri}")
        log = run_dir.log(f"runner-{safe_name(uri)}")
        try:
            with clock.phase("device open"):
                target = open_session(uri, request.target, request.options, log=log, progress=progress, clock=clock)
                opened.callback(target.close)
                target.runner()
        except EdgequantError as error:
            if isinstance(error, InputError) and len(request.devices) == 1:
                raise
            if isinstance(error, ToolError) and error.where != uri:
                raise  # this host lacks something, whatever the device
            progress.say(f"{error.code}: {error}")
            met[uri] = error
        else:
            met[uri] = target
    return met


def _write(report: Report, run_dir: RunDirectory) -> None:
    try:
        write(report, run_dir.report)
    except OSError as error:
        raise disk_error(run_dir.report, error) from None


class _Job:
    """The devices' part, with what it has so far."""

    def __init__(
        self,
        request: Request,
        run_dir: RunDirectory,
        host: Session,
        prepared: Prepared,
        progress: Progress,
        mnn: str,
        met: dict[str, Session | EdgequantError],
    ) -> None:
        self.request = request
        self.run_dir = run_dir
        self.host = host
        self.prepared = prepared
        self.progress = progress
        self.mnn = mnn
        self.met = met
        self.runs: list[Run] = []
        self._host_runs: dict[str, HostRun] = {}
        self._runtime_told: dict[str, int] = {}
        usable = [target for target in met.values() if isinstance(target, Session)]
        arm = any(_is_arm(target) for target in usable if not target.device.is_host)
        first = next(iter(usable), None)
        self._maker = VariantMaker(prepared, request, run_dir, host, progress, first, arm)
        # Before anything is pushed: a limit that names no output is the user's mistake, not the device's.
        self.limits: dict[str, dict[str, tuple[Limit, ...]]] = {
            variant.method: resolve_limits(
                prepared.kinds,
                defaults_for(variant.method),
                [*request.limits, *(request.goals if variant.method == "auto" else ())],
            )
            for variant in request.variants
        }

    def run(self) -> None:
        models: dict[Variant, MadeVariant | EdgequantError] = {}
        for variant in self.request.variants:
            models[variant] = self._model(variant)
        for uri in self.request.devices:
            self._device(uri, models)

    def _model(self, variant: Variant) -> MadeVariant | EdgequantError:
        if variant.searched or variant.file_key not in self.prepared.converted:
            self.progress.say(f"quantizing {variant}")
        try:
            with self.prepared.clock.phase("convert"):
                return self._maker.make(variant)
        except EdgequantError as error:
            # Calibration data that cannot be read is no one variant's; an option that does not fit fails only its own.
            of_all = error is self._maker.unreadable
            # Of a tool that failed the report tells; what this host lacks keeps it from being written as well.
            alone = len(self.request.variants) == 1 and (not isinstance(error, ToolError) or error.code in HOPELESS)
            if alone or of_all:
                raise
            self.progress.say(f"{variant}: {error.code}: {error}")
            return error
        except Exception as error:
            if len(self.request.variants) == 1:
                raise
            return self._bug(error, "making", variant)

    def _device(self, uri: str, models: dict[Variant, MadeVariant | EdgequantError]) -> None:
        target = self.met[uri]
        if isinstance(target, EdgequantError):
            self.runs += [build.failed_run(uri, variant, target) for variant in models]
            return
        with target:
            try:
                with self.prepared.clock.phase("device wait"):
                    target.own()
            except DeviceError as error:
                self.runs += [build.failed_run(uri, variant, error) for variant in models]
                return
            for variant, made in models.items():
                if isinstance(made, EdgequantError):
                    self.runs.append(build.failed_run(uri, variant, made))
                    continue
                self.runs.append(self._guarded(target, made))
                # What is finished survives whatever comes, a kill -9 too.
                self.finish(interrupted=True)

    def _guarded(self, target: Session, made: MadeVariant) -> Run:
        try:
            return self._one(target, made)
        except EdgequantError:
            raise
        except Exception as error:  # noqa: BLE001  (told in full; one run must not take the others with it)
            bug = self._bug(error, target.uri, made.asked)
            target.drop_runner()
            return build.failed_run(target.uri, made.asked, bug)

    def _bug(self, error: Exception, where: str, variant: Variant) -> EdgequantError:
        trace = traceback.format_exc()
        log = self.run_dir.log(f"bug-{safe_name(where)}-{safe_name(str(variant))}")
        log.write_text(trace, "utf-8", "backslashreplace")
        return EdgequantError(
            "INTERNAL_ERROR",
            f"{type(error).__name__}: {error}",
            where=where,
            hint="This is a bug in edgequant, or nonsense from the device.",
            evidence={"trace": trace.splitlines()[-10:], "log": str(log)},
        )

    def _one(self, target: Session, made: MadeVariant) -> Run:
        uri, clock = target.uri, self.prepared.clock
        on_host = None if target.device.is_host else self._host_run(made)
        outputs = OutputStore(self.run_dir, capture_folder(uri, made.asked))
        count = len(self.prepared.cases)
        self.progress.say(f"running {made.asked} on {uri} ({count} case{'s' if count > 1 else ''})")
        known_bad = None if on_host is None else {*on_host.failed, *self.prepared.float_failed}
        with clock.phase("device"):
            capture = measure(
                target,
                made,
                self.prepared,
                outputs,
                self.request.options,
                self.run_dir,
                # Times of an emulator would only be mistaken for something.
                latency=self.request.latency and target.device.emulated is None,
                known_bad=known_bad,
            )
        # On this host the device's outputs are the host's outputs: there is no device error to tell apart.
        middle = HostRun(outputs, failed=capture.missing) if on_host is None else on_host
        if on_host is None:
            self._host_runs.setdefault(_host_key(made, self.request.options), middle)
        sent = target.runtime_bytes - self._runtime_told.get(uri, 0)
        self._runtime_told[uri] = target.runtime_bytes
        run = build.build_run(
            self.prepared, self.request, target, made, capture, outputs, middle, self.limits[made.asked.method],
            host_mnn=self.mnn, runtime_bytes=sent,
        )  # fmt: skip
        self.progress.say(f"{run.verdict}: {made.asked} on {uri}")
        return run

    def _host_run(self, made: MadeVariant) -> HostRun:
        variant, key = made.run_as, _host_key(made, self.request.options)
        if key not in self._host_runs:
            options = self.request.options
            if variant == FLOAT and memory_mode(options, variant) == "normal" and options.precision == "normal":
                found = HostRun(self.prepared.float_outputs, failed=dict(self.prepared.float_failed))
            else:
                with self.prepared.clock.phase("host"):
                    found = self._run_on_host(made)
            self._host_runs[key] = found
        return self._host_runs[key]

    def _run_on_host(self, made: MadeVariant) -> HostRun:
        variant, model = made.asked, made.model
        self.progress.say(f"running {variant} on this host (the quantization error)")
        found = HostRun(OutputStore(self.run_dir, f"host/{safe_name(str(variant))}"))
        try:
            runner = self.host.runner()
            loaded = runner.load(str(model.path.resolve()), memory_mode(self.request.options, made.run_as))
            for case in self.prepared.cases:
                try:
                    found.outputs.put(case.name, runner.run(loaded, feed(loaded, case)).outputs)
                except RunnerError as error:
                    if error.code != "INFERENCE_FAILED":
                        raise
                    found.failed[case.name] = error.message
            runner.unload(loaded)
        except DeviceError as error:
            # The device can still be judged; only the split of the error into its stages is lost.
            self.host.drop_runner()
            found.why = f"it could not be run on this host ({error.code}: {error.message})"
        return found

    def finish(self, *, interrupted: bool = False) -> Report:
        """Build the report of all runs so far and write it."""
        findings: list[Finding] = list(self.prepared.findings)
        verdict = worst(run.verdict for run in self.runs)
        if not interrupted and (changed := self._changed()) is not None:
            findings.append(changed)
            verdict = worst([verdict, Verdict.ERROR])
        if interrupted:
            expected = len(self.request.devices) * len(self.request.variants)
            findings.append(
                Finding(
                    code="INTERRUPTED",
                    severity="error",
                    message=f"interrupted: {len(self.runs)} of {expected} runs are in this report",
                )
            )
            verdict = worst([verdict, Verdict.ERROR])
        report = build.build_report(
            self.request, self.prepared, with_hints(self.runs), findings, verdict, edgequant.__version__, self.mnn
        )
        _write(report, self.run_dir)
        return report

    def _changed(self) -> Finding | None:
        """A finding where the source is no longer the file that was read: then nobody knows what was judged."""
        graph = self.prepared.graph
        try:
            now = read_model(self.request.model).sha256
        except InputError as error:
            now = error.code
        if now == graph.sha256:
            return None
        return Finding(
            code="MODEL_CHANGED",
            severity="error",
            message="the model file was changed while it was being verified",
            evidence={"sha256": graph.sha256, "now": now},
            remedy="Run again when nothing writes to it.",
        )


def _is_arm(target: Session) -> bool:
    return target.facts is not None and target.facts.arch in ARM64


def _host_key(made: MadeVariant, options: RunOptions) -> str:
    return f"{made.model.sha256}/{memory_mode(options, made.run_as)}"
