"""`edgequant verify`."""

from __future__ import annotations

from typing import Any

import typer

from edgequant.cli.console import CliProgress, out
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
        if stop.report is not None:
            render(stop.report, console, path=stop.path, verbose=ui.verbose)
            if ui.json:
                print(to_json(stop.report), end="")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    render(report, console, path=run_dir.report, verbose=ui.verbose)
    if ui.json:
        print(to_json(report), end="")
    return report
