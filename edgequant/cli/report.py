"""`edgequant report`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgequant.archive.manifest import amended
from edgequant.cli.console import out, print_json
from edgequant.cli.options import Files, Ui
from edgequant.cli.writing import write_each, write_text_file
from edgequant.errors import InputError

if TYPE_CHECKING:
    from edgequant.plan.request import Request
    from edgequant.report.against import Against
    from edgequant.report.diagnosis import DiagnosisReport
    from edgequant.report.model import Report


def run(*, run_dir: str | None, schema: bool, against: str | None = None, files: Files, by_case: bool, ui: Ui) -> None:
    """Show a report again, or the schema of all of them.  against: an earlier one that it is held against."""
    from edgequant.report.console import render
    from edgequant.report.difference import render_against
    from edgequant.report.read import load
    from edgequant.report.write import json_schema, to_json

    if schema:
        print_json(json.dumps(json_schema(), indent=2))
        return
    if by_case and files.csv is None:
        raise InputError("OPTION_INVALID", "--by-case is for a table", hint="Name its file with --csv.")
    if run_dir is None:
        raise InputError("OPTION_INVALID", "which run?", hint="Give its folder: edgequant report RUN_DIR")
    path = Path(run_dir)
    path = path / "report.json" if path.is_dir() else path
    refuse_beside(files, [path], path)
    report = load(path)
    held = None if against is None else _against(report, Path(against))
    console = out(ui)
    render(report, console, path=path, verbose=ui.verbose, quiet=ui.quiet)
    if held is not None:
        render_against(held, console, verbose=ui.verbose)
    write_files(report, files, path, by_case=by_case, against=held)
    if ui.json:
        print_json(to_json(report) if held is None else _with(report, held))
    raise typer.Exit(report.verdict.exit_code)


def _against(report: Report, path: Path) -> Against:
    from edgequant.report.against import compare_reports
    from edgequant.report.read import load

    return compare_reports(load(path / "report.json" if path.is_dir() else path), report)


def _with(report: Report, held: Against) -> str:
    """The report with one key more."""
    from edgequant.report.write import as_plain

    document = as_plain(report) | {"against": as_plain(held.as_dict())}
    return json.dumps(document, indent=2, allow_nan=False)


def asked_for(files: Files) -> dict[str, Path]:
    """Option -> the file it names, of those that were given.  Raises InputError (OUTPUT_INVALID) for no name."""
    from edgequant.jobs.overwriting import named_files

    return named_files(files, [option.name for option in Files.options()])


def refuse_files(files: Files, request: Request, output: str | None = None, spec: str | None = None) -> None:
    """Before anything runs: table and page must not replace what was given or is to be made, nor each other, and must
    have a folder.

    Raises InputError (OUTPUT_INVALID), and what `read_model` raises where such a file is there already.
    """
    from edgequant.jobs.overwriting import given_paths
    from edgequant.models import read_model

    if not (asked := asked_for(files)):
        return
    needed = [request.model, *given_paths(request), *(Path(each) for each in (output, spec) if each is not None)]
    if any(map(os.path.lexists, asked.values())):
        needed += read_model(request.model).external_files
    refuse_beside(files, needed, request.run_dir)


def refuse_beside(files: Files, needed: Sequence[Path], run_dir: Path | None) -> None:
    """The same of a run that is there already.  run_dir: or a file in it."""
    from edgequant.jobs.overwriting import refuse_table

    before: list[Path] = []
    for option, path in asked_for(files).items():
        refuse_table(path, [*needed, *before], run_dir=run_dir, option=option)
        before.append(path)


def write_files(
    report: Report, files: Files, where: Path, *, by_case: bool = False, against: Against | None = None
) -> None:
    """Write the table, the page and what a CI reads where wanted.  where: the folder of the run, or a file in it.

    Raises EdgequantError (OUTPUT_UNWRITABLE).
    """
    with kept_with(where, asked_for(files).values()):
        _write_files(report, files, where, by_case, against)


def kept_with(where: Path | None, paths: Iterable[Path]) -> AbstractContextManager[None]:
    """Of files that are written into a run's folder its manifest knows afterwards.  where: it, or a file in it."""
    folder = None if where is None else where if where.is_dir() else where.parent
    if folder is None or not any(path.resolve().is_relative_to(folder.resolve()) for path in paths):
        return contextlib.nullcontext()
    return amended(folder)


def _write_files(report: Report, files: Files, where: Path, by_case: bool, against: Against | None) -> None:
    if not (asked := asked_for(files)):
        return
    from edgequant.jobs.html import page_of
    from edgequant.report.csv import to_csv
    from edgequant.report.junit import to_junit
    from edgequant.report.openmetrics import to_openmetrics
    from edgequant.report.summary import to_summary

    write_each(
        asked,
        {
            "--csv": lambda: to_csv(report, by_case=by_case),
            "--html": lambda: page_of(report, where, against=against),
            "--junit": lambda: to_junit(report),
            "--openmetrics": lambda: to_openmetrics(report),
            "--summary": lambda: to_summary(report),
        },
    )


def note_run(run_dir: Path, history: str | None) -> None:
    """Note a run that has ended in the history where that is wanted; what keeps it from that is only said."""
    if history is None:
        return
    from edgequant.jobs.remember import note
    from edgequant.plain import printable

    if (error := note(run_dir, Path(history))) is not None:
        print(f"edgequant: the run is not in the history: {error.code}: {printable(str(error))}", file=sys.stderr)


def write_page(report: Report, path: str | Path, where: Path, *, diagnoses: Sequence[DiagnosisReport]) -> None:
    """Write the page.  The rest: see `jobs.html.page_of`.  Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    from edgequant.jobs.html import page_of

    write_text_file(page_of(report, where, diagnoses=diagnoses), str(path), "--html", "page")


def write_csv(report: Report, path: str | None, *, by_case: bool = False) -> None:
    """Write the table where one is wanted.  Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    if path is not None:
        from edgequant.report.csv import to_csv

        write_text_file(to_csv(report, by_case=by_case), path, "--csv", "table")
