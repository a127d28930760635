"""Measure as in a laboratory: settings in turn, each block in a process of its own, until numbers may be believed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.bench import BASELINE, PLAN, REPORT, Bench, open_bench
from edgequant.archive.folder import RunFolder
from edgequant.archive.manifest import close
from edgequant.archive.types import Closing, Failure
from edgequant.devices.registry import make_device
from edgequant.errors import DeviceError, InputError
from edgequant.files import disk_error
from edgequant.jobs.bench_device import Measuring
from edgequant.jobs.bench_files import MeasuredFile, files_of
from edgequant.judge.bench_run import BenchRules, baseline_of, judge_folder
from edgequant.judge.verdict import Verdict
from edgequant.mnn_version import host_mnn_version, require_supported
from edgequant.models import ModelGraph, read_model
from edgequant.plan.bench import BenchRequest as BenchRequest
from edgequant.plan.bench import plan_of_bench
from edgequant.progress import Progress
from edgequant.report.bench import BenchReport, rounded, write
from edgequant.report.bench_build import build_bench


@dataclass(frozen=True)
class BenchResult:
    """The report, and the folder it was made of."""

    report: BenchReport
    folder: Path

    @property
    def verdict(self) -> Verdict:
        return self.report.verdict


def bench(asked: BenchRequest, progress: Progress | None = None) -> BenchResult:
    """Measure every setting on every device, one device after the other; everything is in the folder, and what is said
    of it is made of the folder alone.

    Raises InputError, ToolError, DeviceError (a device that cannot be used).
    """
    progress = progress or Progress()
    request = asked.request
    version = host_mnn_version()
    require_supported(version, "this host")
    BenchRules(asked.within, asked.tell, asked.allowed)
    for uri in request.devices:
        if make_device(uri).emulated is not None:
            raise InputError(
                "OPTION_INVALID",
                f"{uri} is emulated: how long it takes there says nothing about the CPU",
                hint="Measure on a device; `verify` checks accuracy on emulated CPUs.",
            )
    baseline = None if asked.baseline is None else baseline_of(open_bench(asked.baseline))
    folder = RunFolder.create(request.run_dir, str(request.model))
    start = time.monotonic()
    with folder.alone():
        try:
            source = read_model(request.model)
            files = files_of(asked, source, folder, progress)
        except InputError:
            folder.discard()
            raise
        folder.save_record(PLAN, plan_of_bench(asked, source.sha256, [each.facts for each in files], version))
        if baseline is not None:
            folder.save_record(BASELINE, baseline)
        ended = False
        try:
            _measure(asked, files, source, folder, progress)
            ended = True
        except DeviceError:
            ended = True  # it is in the device's record
            raise
        finally:
            seconds = {"bench": round(time.monotonic() - start, 3)}
            folder.save_closing(Closing(seconds=seconds, ended=ended))
        kept = Bench(folder.path)
        report = rounded(build_bench(kept, judge_folder(kept)))
        try:
            write(report, folder.path / REPORT)
        except OSError as error:
            raise disk_error(folder.path / REPORT, error) from None
        close(folder.path)
    return BenchResult(report, folder.path)


def _measure(
    asked: BenchRequest, files: Sequence[MeasuredFile], source: ModelGraph, folder: RunFolder, progress: Progress
) -> None:
    for uri in asked.request.devices:
        measuring = Measuring(asked, uri, files, source, folder, progress)
        try:
            measuring.measure()
        except KeyboardInterrupt:
            progress.say(f"the blocks that were finished are in {folder.path}: `edgequant judge` shows them")
            raise
        except DeviceError as error:
            measuring.keep(failure=Failure.of(error))
            if len(asked.request.devices) == 1:
                raise  # the files that were made, and logs, stay
            progress.say(f"{error.code}: {error}")
