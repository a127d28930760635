"""`edgequant diagnose`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Showing, Ui
from edgequant.cli.report import kept_with, write_page
from edgequant.cli.request import make_request
from edgequant.errors import EXIT_INTERRUPTED, InputError

if TYPE_CHECKING:
    from edgequant.jobs.diagnose import Diagnosed
    from edgequant.jobs.wanted import Wanted


def run(
    model: str, typed: Mapping[str, Any], *, spec: str | None, run_dir: str | None, showing: Showing, ui: Ui
) -> None:
    """Verify, or take what `verify` has left in a folder; look inside, show; exits with the verdict's code."""
    from edgequant.jobs.diagnose import diagnose
    from edgequant.jobs.verify import InterruptedRun
    from edgequant.jobs.wanted import Wanted
    from edgequant.report.diagnosis import render, to_json

    case, overlay, page = (
        None if name is None else Path(name) for name in (showing.export_case, showing.model_explorer, showing.html)
    )
    wanted = Wanted(case, overlay, page)
    try:
        if not os.path.lexists(model):
            raise InputError(
                "MODEL_NOT_FOUND",
                f"{model}: there is neither a model file nor the folder of a run",
                hint="Check the path; it is taken relative to the current directory.",
            )
        if Path(model).is_dir():
            found = _of_run(model, typed, wanted, CliProgress(ui), more=spec is not None or run_dir is not None)
        else:
            request = make_request(model, typed, spec=spec, run_dir=run_dir)
            found = diagnose(request, CliProgress(ui), wanted=wanted)
    except InterruptedRun:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    render(found.report, out(ui), verbose=ui.verbose, quiet=ui.quiet)
    if ui.json:
        print_json(to_json(found.report))
    if page is not None:
        with kept_with(found.folder.path, [page]):
            write_page(found.whole, page, found.folder.path, diagnoses=[found.report])
    if found.problem is not None:
        raise found.problem
    if case is not None and found.report.case is None:
        CliProgress(ui).say("no case was written: nothing is blamed that one could show")
    raise typer.Exit(found.report.verdict.exit_code)


def _of_run(folder: str, typed: Mapping[str, Any], wanted: Wanted, progress: CliProgress, *, more: bool) -> Diagnosed:
    from edgequant.jobs.diagnose import diagnose_run

    device, variant = (list(typed.get(key) or ()) for key in ("devices", "variants"))
    if more or set(typed) - {"devices", "variants"} or max(len(device), len(variant)) > 1:
        raise InputError(
            "OPTION_UNUSED",
            f"{folder}: a run is looked into as it was asked for: of options it takes one --device and one --variant",
            hint="Give the model in its place to verify it by other options.",
        )
    one, other = next(iter(device), None), next(iter(variant), None)
    return diagnose_run(folder, device=one, variant=other, wanted=wanted, progress=progress)
