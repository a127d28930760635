"""`edgequant verify`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Kept, Ui
from edgequant.cli.report import note_run, refuse_beside, refuse_files, write_files
from edgequant.cli.request import make_request
from edgequant.errors import EXIT_INTERRUPTED, InputError
from edgequant.plan.request import Request

if TYPE_CHECKING:
    from edgequant.archive.folder import RunFolder
    from edgequant.report.model import Report


def run(
    model: str | None, typed: Mapping[str, Any], *, spec: str | None, kept: Kept, resume: str | None, ui: Ui
) -> None:
    """Parse, verify, show; exits with the verdict's code, or as interrupted."""
    if resume is not None:
        if model is not None or typed or spec is not None or kept.run_dir is not None:
            raise InputError(
                "OPTION_INVALID",
                "--resume goes on with what the run was asked for, and takes nothing of it anew",
                hint="Give --resume RUN_DIR alone; `edgequant judge RUN_DIR --limit ...` judges it by other limits.",
            )
        raise typer.Exit(exit_code(resume_run(resume, ui, kept)))
    if model is None:
        raise InputError("USAGE", "Missing argument 'MODEL'", hint="`edgequant verify --help` shows what can be given.")
    request = make_request(model, typed, spec=spec, run_dir=kept.run_dir)
    refuse_files(kept, request, spec=spec)
    raise typer.Exit(exit_code(run_request(request, ui, kept)[0]))


def exit_code(report: Report) -> int:
    """The verdict's, but for a search that was ended early: whoever stopped a command is never told that it passed."""
    found = {finding.code for run in report.runs for finding in run.findings}
    if "AUTO_INCOMPLETE" not in found:
        return report.verdict.exit_code
    print("edgequant: interrupted: the search ended early, with the best model it had found", file=sys.stderr)
    return EXIT_INTERRUPTED


def run_request(request: Request, ui: Ui, kept: Kept) -> tuple[Report, RunFolder]:
    """Verify and show the report, a partial one after ctrl-C too; it is returned with the folder of the run."""
    from edgequant.jobs.explain import verify

    return _shown(lambda progress: verify(request, progress, meanwhile=_load), ui, kept)


def _load() -> None:
    import edgequant.report.console  # noqa: F401  (it is what `_shown` ends with)


def resume_run(run_dir: str, ui: Ui, kept: Kept) -> Report:
    """Go on with a run and show its report."""
    from edgequant.jobs.explain import resume

    refuse_beside(kept, [], Path(run_dir))
    return _shown(lambda progress: resume(Path(run_dir), progress), ui, kept)[0]


def _shown(work: Callable[[CliProgress], tuple[Report, RunFolder]], ui: Ui, kept: Kept) -> tuple[Report, RunFolder]:
    from edgequant.jobs.verify import InterruptedRun

    console = out(ui)
    try:
        report, run_dir = work(CliProgress(ui))
    except InterruptedRun as stop:
        if stop.report is None:
            raise  # nothing was finished: run_main says so
        from edgequant.report.console import render
        from edgequant.report.write import to_json

        render(stop.report, console, path=stop.path, verbose=ui.verbose, quiet=ui.quiet)
        write_files(stop.report, kept, stop.path)
        if ui.json:
            print_json(to_json(stop.report))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    from edgequant.report.console import render
    from edgequant.report.write import to_json

    render(report, console, path=run_dir.report, verbose=ui.verbose, quiet=ui.quiet)
    write_files(report, kept, run_dir.path)
    note_run(run_dir.path, kept.history)
    if ui.json:
        print_json(to_json(report))
    return report, run_dir
