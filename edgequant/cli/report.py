"""`edgequant report`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgequant.cli.console import out, print_json
from edgequant.cli.options import Ui
from edgequant.errors import EdgequantError, InputError

if TYPE_CHECKING:
    from edgequant.plan.request import Request
    from edgequant.report.model import Report


def run(*, run_dir: str | None, schema: bool, csv: str | None, by_case: bool, ui: Ui) -> None:
    """Show a report again, or the schema of all of them."""
    from edgequant.jobs.overwriting import refuse_table
    from edgequant.report.console import render
    from edgequant.report.read import load
    from edgequant.report.write import json_schema, to_json

    if schema:
        print_json(json.dumps(json_schema(), indent=2))
        return
    if by_case and csv is None:
        raise InputError("OPTION_INVALID", "--by-case is for a table", hint="Name its file with --csv.")
    if run_dir is None:
        raise InputError("OPTION_INVALID", "which run?", hint="Give its folder: edgequant report RUN_DIR")
    path = Path(run_dir)
    path = path / "report.json" if path.is_dir() else path
    if csv is not None:
        refuse_table(Path(csv), [path], run_dir=path)
    report = load(path)
    render(report, out(ui), path=path, verbose=ui.verbose, quiet=ui.quiet)
    write_csv(report, csv, by_case=by_case)
    if ui.json:
        print_json(to_json(report))
    raise typer.Exit(report.verdict.exit_code)


def refuse_csv(path: str | None, request: Request, output: str | None = None, spec: str | None = None) -> None:
    """Before anything runs: the table must not replace what was given or is to be made, and must have a folder.

    Raises InputError (OUTPUT_INVALID), and what `read_model` raises where the file of the table is there already.
    """
    from edgequant.jobs.overwriting import given_paths, refuse_table
    from edgequant.models import read_model

    if path is None:
        return
    needed = [request.model, *given_paths(request), *(Path(each) for each in (output, spec) if each is not None)]
    if os.path.lexists(path):
        needed += read_model(request.model).external_files
    refuse_table(Path(path), needed, run_dir=request.run_dir)


def write_csv(report: Report, path: str | None, *, by_case: bool = False) -> None:
    """Write the table where one is wanted.  Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    from edgequant.report.csv import to_csv
    from edgequant.report.write import write_text

    if path is None:
        return
    try:
        write_text(to_csv(report, by_case=by_case), Path(path))
    except OSError as error:
        raise EdgequantError(
            "OUTPUT_UNWRITABLE",
            f"{path} cannot be written: {error.strerror or error}",
            hint="The report itself is whole: `edgequant report RUN_DIR --csv FILE` makes the table from it.",
        ) from None
