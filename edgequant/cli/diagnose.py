"""`edgequant diagnose`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.cli.request import make_request
from edgequant.errors import EXIT_INTERRUPTED


def run(model: str, typed: Mapping[str, Any], *, spec: str | None, run_dir: str | None, ui: Ui) -> None:
    """Verify, look inside, show; exits with the verdict's code."""
    from edgequant.jobs.diagnose import diagnose
    from edgequant.jobs.verify import InterruptedRun
    from edgequant.report.diagnosis import render, to_json

    request = make_request(model, typed, spec=spec, run_dir=run_dir)
    try:
        found = diagnose(request, CliProgress(ui))
    except InterruptedRun:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    render(found.report, out(ui), verbose=ui.verbose, quiet=ui.quiet)
    if ui.json:
        print_json(to_json(found.report))
    raise typer.Exit(found.report.verdict.exit_code)
