"""`verify`, and where it FAILs and that was asked for, a diagnosis of each variant on each device that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgequant.archive.folder import RunFolder, device_capture
from edgequant.archive.manifest import amended
from edgequant.archive.open import open_run
from edgequant.errors import EdgequantError
from edgequant.jobs import verify as plain
from edgequant.judge.verdict import Verdict
from edgequant.plan.request import Request
from edgequant.progress import Progress

if TYPE_CHECKING:  # what judging takes is loaded when all that can be started has been
    from edgequant.report.model import Report


def verify(
    request: Request, progress: Progress | None = None, *, meanwhile: Callable[[], object] = lambda: None
) -> tuple[Report, RunFolder]:
    """As `jobs.verify.verify`; with `request.diagnose` each run of the report that FAILs has its `diagnosis`.

    A diagnosis that cannot be made says so in its place: the verdict, and what it was made of, stand.
    """
    report, folder = plain.verify(request, progress, meanwhile=meanwhile)
    return _explained(report, folder, progress or Progress()) if request.diagnose else report, folder


def resume(run_dir: Path, progress: Progress | None = None) -> tuple[Report, RunFolder]:
    """As `jobs.verify.resume`, and as `verify` where the run was asked to be diagnosed."""
    report, folder = plain.resume(run_dir, progress)
    asked = open_run(folder.path).plan.diagnose
    return _explained(report, folder, progress or Progress()) if asked else report, folder


def _explained(report: Report, folder: RunFolder, progress: Progress) -> Report:
    from edgequant.jobs.reporting import Reporter

    with amended(folder.path):
        _explain(report, folder, progress)
        return Reporter(folder).report()


def _explain(report: Report, folder: RunFolder, progress: Progress) -> None:
    from edgequant.jobs.diagnose import diagnose_run  # takes long to load, and most runs pass
    from edgequant.jobs.reporting import Reporter
    from edgequant.report.diagnosis import DiagnosisReport

    for run in report.runs:
        if run.verdict is not Verdict.FAIL or not run.outputs or run.diagnosis is not None:
            continue
        uri, variant = run.device.uri, run.variant
        progress.say(f"diagnosing {variant} on {uri}")
        try:
            told = diagnose_run(folder.path, device=uri, variant=variant, progress=progress).report
        except KeyboardInterrupt:
            raise plain.InterruptedRun(Reporter(folder).report(), folder.report) from None
        except EdgequantError as error:
            told = DiagnosisReport(
                verdict=run.verdict, model=report.model.path, device=uri, variant=variant,
                why=f"It could not be looked into: {error.code}: {error}.",
            )  # fmt: skip
            folder.save_diagnosis(device_capture(uri, variant), told)
        if told.stage == "conversion":
            break  # the same float MNN is behind all of them
