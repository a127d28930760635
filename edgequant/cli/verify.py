"""`edgequant verify`."""

from __future__ import annotations

from typing import Any

import typer

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.cli.request import make_request
from edgequant.errors import EXIT_INTERRUPTED
from edgequant.pipeline.request import Request
from edgequant.report.model import Report


def run(*, ui: Ui, **given: Any) -> None:
    """Parse, verify, show; exits with the verdict's code."""
    raise typer.Exit(run_request(make_request(**given), ui).verdict.exit_code)


def run_request(request: Request, ui: Ui) -> Report:
    """Verify and show the report, a partial one after ctrl-C too."""
    from edgequant.pipeline.verify import InterruptedRun, verify
    from edgequant.report.console import render
    from edgequant.report.write import to_json

    console = out(ui)
    try:
        report, run_dir = verify(request, CliProgress(ui))
    except InterruptedRun as stop:
        if stop.report is None:
            raise  # nothing was finished: run_main says so
        render(stop.report, console, path=stop.path, verbose=ui.verbose, quiet=ui.quiet)
        if ui.json:
            print_json(to_json(stop.report))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    render(report, console, path=run_dir.report, verbose=ui.verbose, quiet=ui.quiet)
    if ui.json:
        print_json(to_json(report))
    return report
