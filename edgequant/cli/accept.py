"""`edgequant accept`, and `judge` and `report` of what it has left."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from edgequant.archive.manifest import amended
from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Gate, Rejudging, Ui
from edgequant.cli.report import kept_with, note_run
from edgequant.cli.writing import write_each
from edgequant.errors import EXIT_INTERRUPTED, InputError
from edgequant.plain import printable

if TYPE_CHECKING:
    from edgequant.jobs.accept_plan import Planned
    from edgequant.report.acceptance import Acceptance

_FILES = ("html", "junit", "openmetrics", "summary")


def run(spec: str | None, *, gate: Gate, files: Any, run_dir: str | None, history: str | None, ui: Ui) -> None:
    """Check a release, show it; exits with its state's code, or as interrupted."""
    resume, baseline = gate.resume, gate.baseline
    if (spec is None) == (resume is None):
        raise InputError(
            "USAGE", "Missing argument 'SPEC.yaml'" if spec is None else "--resume goes on with the spec of its folder",
            hint="edgequant accept SPEC.yaml, or edgequant accept --resume RUN_DIR; --example prints a spec.",
        )  # fmt: skip
    if resume is not None and (baseline is not None or run_dir is not None):
        raise InputError("OPTION_INVALID", "--resume goes on with the baseline and in the folder it was begun with")
    refuse_files(files, [Path(each) for each in (spec, resume) if each is not None], run_dir or resume)
    if gate.plan:
        from edgequant.history.place import history_path
        from edgequant.jobs.accept_plan import as_json, left, planned

        known = history_path(history)
        found = left(Path(resume), known) if resume is not None else planned(Path(spec or ""), _path(baseline), known)
        _show_plan(found, ui)
        if ui.json:
            print_json(as_json(found))
        return
    raise typer.Exit(_accept(spec, gate, files, run_dir, history, ui))


def _accept(spec: str | None, gate: Gate, files: Any, run_dir: str | None, history: str | None, ui: Ui) -> int:
    from edgequant.jobs import accept as job

    progress = CliProgress(ui)
    try:
        if gate.resume is not None:
            found, folder = job.resume(Path(gate.resume), progress)
        else:
            found, folder = job.accept(
                Path(spec or ""), run_dir=_path(run_dir), baseline=_path(gate.baseline), progress=progress
            )
    except job.InterruptedAccept as stop:
        show(stop.found, files, stop.folder, ui)
        progress.say(f"interrupted; the rest: edgequant accept --resume {shlex.quote(str(stop.folder))}")
        return EXIT_INTERRUPTED
    note_run(folder.path, history)
    show(found, files, folder.path, ui)
    return found.state.exit_code


def show(found: Acceptance, files: Any, folder: Path, ui: Ui, *, path: Path | None = None) -> None:
    """On the console, into the files that were asked for, and as JSON."""
    from edgequant.report.acceptance import to_json
    from edgequant.report.acceptance_console import render

    render(found, out(ui), path=path or folder / "acceptance.json", verbose=ui.verbose, quiet=ui.quiet)
    write_files(found, files, folder)
    if ui.json:
        print_json(to_json(found))


def write_files(found: Acceptance, files: Any, folder: Path) -> None:
    """Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    if not (asked := _asked(files)):
        return
    from edgequant.report.acceptance_junit import to_junit
    from edgequant.report.acceptance_openmetrics import to_openmetrics
    from edgequant.report.acceptance_summary import to_summary
    from edgequant.report.html.acceptance import to_html

    made = {
        "--html": lambda: to_html(found, str(folder)),
        "--junit": lambda: to_junit(found, str(folder)),
        "--openmetrics": lambda: to_openmetrics(found),
        "--summary": lambda: to_summary(found, str(folder)),
    }
    with kept_with(folder, asked.values()):
        write_each(asked, made)


def _asked(files: Any) -> dict[str, Path]:
    from edgequant.jobs.overwriting import named_files

    return named_files(files, _FILES)


def refuse_files(files: Any, needed: Sequence[Path], run_dir: str | Path | None) -> None:
    """Before anything runs.  Raises InputError (OUTPUT_INVALID)."""
    from edgequant.archive.acceptance import is_acceptance
    from edgequant.jobs.overwriting import refuse_table

    if getattr(files, "csv", None) is not None:
        raise InputError("OPTION_INVALID", "--csv is of verify's reports: give it one of the folders in trials/")
    before: list[Path] = []
    for option, path in _asked(files).items():
        # A record of an earlier acceptance is not to be replaced either.
        there = path.parent if is_acceptance(path.parent) else _path(run_dir)
        refuse_table(path, [*needed, *before], run_dir=there, option=option)
        before.append(path)


def _path(text: str | Path | None) -> Path | None:
    return None if text is None else Path(text)


# ---- what is there already


def report(run_dir: str, *, schema: bool, files: Any, by_case: bool, ui: Ui) -> None:
    """Show the judgement of a folder again, or the schema of all of them; exits with its state's code."""
    from edgequant.archive.acceptance import folder_of
    from edgequant.report.acceptance import load_acceptance
    from edgequant.report.acceptance_model import json_schema

    if schema:
        print_json(json.dumps(json_schema(), indent=2))
        return
    if by_case:
        raise InputError("OPTION_INVALID", "--by-case is of verify's reports: give it one of the folders in trials/")
    path = Path(run_dir)
    path = path / "acceptance.json" if path.is_dir() or path.name == "accept.json" else path
    refuse_files(files, [path], path.parent)
    found = load_acceptance(path)
    show(found, files, folder_of(path), ui, path=path)
    raise typer.Exit(found.state.exit_code)


def judge(run_dir: str, *, spec: str | None, others: Sequence[str], rules: Rejudging, ui: Ui) -> NoReturn:
    """Judge a folder again, say what has changed, show; exits with the new state's code."""
    from edgequant.archive.acceptance import folder_of
    from edgequant.jobs.accept_judge import keep, rejudge
    from edgequant.report.acceptance import to_json
    from edgequant.report.acceptance_console import render

    if others or rules.csv is not None:
        raise InputError(
            "OPTION_INVALID", "of an acceptance, rules decide: --spec and --write are all that judging it again takes",
            hint="Change the rules in a copy of its spec.yaml: edgequant judge RUN_DIR --spec FILE",
        )  # fmt: skip
    found = rejudge(run_dir, _path(spec))
    path = None
    if rules.write:
        with amended(folder_of(run_dir)):
            path = keep(folder_of(run_dir), found.found)
    console = out(ui)
    render(found.found, console, path=path, folder=folder_of(run_dir), verbose=ui.verbose, quiet=ui.quiet)
    if path is None:
        console.print("This judgement is not kept; --write keeps it beside the old one.", markup=False)
    head = "Changed against acceptance.json:" if found.changes else "Nothing changed against acceptance.json."
    console.print("There is no judgement to hold it against:" if found.stored is None else head, markup=False)
    for line in found.changes:
        console.print(f"  {printable(line)}", markup=False, soft_wrap=True)
    if ui.json:
        print_json(to_json(found.found))
    raise typer.Exit(found.found.state.exit_code)


# ---- what would be run


def _show_plan(found: Planned, ui: Ui) -> None:
    from edgequant.report.acceptance_console import has_width

    console = out(ui)
    if not has_width(console):
        console.width = 10_000  # nothing of the table is folded
    trials = found.expanded.trials
    beside = sum(key in found.expanded.informative for key in trials)
    head = f"{found.spec.name}: {_counted(len(trials) - beside, 'trial')}"
    head += f" and {beside} of float beside them" if beside else ""
    console.print(
        Text(printable(f"{head}, {_counted(len(found.parts), 'part')}, {_counted(len(found.spec.rules), 'rule')}")),
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("part", "model", "variants", "devices", "limits", "time"):
        table.add_column(name)
    for part in found.parts:
        variants, devices = (dict.fromkeys(names) for names in zip(*[key[1:] for key in part.trials], strict=True))
        table.add_row(
            part.kind, printable(part.trials[0].model), printable(", ".join(variants)), printable(", ".join(devices)),
            printable(", ".join(part.limits)), "done" if part.done else duration(part.seconds, guessed=not part.from_),
        )  # fmt: skip
    console.print(table)
    for key, names in found.expanded.tasks.items():
        console.print(Text(printable(f"task    {key}: {', '.join(names)}")), soft_wrap=True)
    if ui.verbose:
        for key in trials:
            for rule in found.spec.rules_of(key) if key not in found.expanded.informative else ():
                console.print(Text(printable(f"rule    {key}: {rule}")), soft_wrap=True)
    for warning in found.warnings:
        console.print(Text(printable(f"warn    {warning}")), soft_wrap=True)
    told = f"in all: about {_time(found.seconds)}, {found.told}" if found.left else "nothing is left to do"
    console.print(Text(printable(f"{told}; no device was touched")), soft_wrap=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float, *, guessed: bool) -> str:
    """For people."""
    return f"{'a guess: ' if guessed else 'about '}{_time(seconds)}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
