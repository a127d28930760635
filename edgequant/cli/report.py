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
from edgequant.report.model import Report

if TYPE_CHECKING:
    from edgequant.pipeline.request import Request


def run(*, run_dir: str | None, schema: bool, csv: str | None, ui: Ui) -> None:
    """Show a report again, or the schema of all of them."""
    from edgequant.report.console import render
    from edgequant.report.read import load
    from edgequant.report.write import json_schema, to_json

    if schema:
        print_json(json.dumps(json_schema(), indent=2))
        return
    if run_dir is None:
        raise InputError("OPTION_INVALID", "which run?", hint="Give its folder: edgequant report RUN_DIR")
    path = Path(run_dir)
    path = path / "report.json" if path.is_dir() else path
    _refuse_table(csv, path)
    report = load(path)
    render(report, out(ui), path=path, verbose=ui.verbose, quiet=ui.quiet)
    write_csv(report, csv)
    if ui.json:
        print_json(to_json(report))
    raise typer.Exit(report.verdict.exit_code)


def refuse_csv(csv: str | None, request: Request, output: str | None = None) -> None:
    """Before anything runs: the table must not replace what was given, nor the model that is to be made, and must have
    a folder to go into.

    Raises InputError (OUTPUT_INVALID).
    """
    made = None if output is None else Path(output)
    _refuse_table(csv, request.model, request.inputs, request.reference, made, run_dir=request.run_dir)


def _refuse_table(csv: str | None, *needed: Path | None, run_dir: Path | None = None) -> None:
    if csv is None:
        return
    table = Path(csv).resolve()
    if table.is_dir() or any(other is not None and table == other.resolve() for other in needed):
        raise InputError(
            "OUTPUT_INVALID",
            f"{csv}: is a folder" if table.is_dir() else f"{csv}: --csv names a file that this command needs itself",
            hint="Name a file of its own.",
        )
    folder = Path(csv).parent
    if not folder.is_dir():
        # The run's own folder is made before the table is.
        if run_dir is None or table.parent != run_dir.resolve():
            raise InputError("OUTPUT_INVALID", f"{csv}: there is no folder {folder}")
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            "OUTPUT_INVALID", f"{csv}: you may not write into the folder {folder}", hint="Choose another for --csv."
        )


def write_csv(report: Report, path: str | None) -> None:
    """Write the table where one is wanted.  Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    from edgequant.report.csv import to_csv
    from edgequant.report.write import write_text

    if path is None:
        return
    try:
        write_text(to_csv(report), Path(path))
    except OSError as error:
        raise EdgequantError(
            "OUTPUT_UNWRITABLE",
            f"{path} cannot be written: {error.strerror or error}",
            hint="The report itself is whole: `edgequant report RUN_DIR --csv FILE` makes the table from it.",
        ) from None
