"""The commands on runs that are there; as commands.py, it imports nothing but Typer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgequant.cli import history_commands
from edgequant.cli.groups import Commands

if TYPE_CHECKING:
    from edgequant.cli import options as opt


def declare(app: Commands) -> None:
    """Add them."""
    app.command("report", short_help="Show the report of an earlier run again.")(report)
    app.command("judge", short_help="Judge an earlier run again, with other limits.")(judge)
    history_commands.declare(app.below("history", help="Runs one after the other: what got better, what got worse."))


def report(
    *,
    run_dir: Annotated[str | None, typer.Argument(metavar="RUN_DIR", help="Folder of an earlier run.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print its JSON Schema.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only see whether the folder is still what it was when it was finished.")
    ] = False,
    against: Annotated[
        str | None, typer.Option("--against", metavar="RUN_DIR", help="What is different from this earlier run, too.")
    ] = None,
    files: opt.Files,
    by_case: Annotated[bool, typer.Option("--by-case", help="In that table, a line per output and case.")] = False,
    ui: opt.Ui,
) -> None:
    """Show the report of an earlier run again; the exit code is its verdict's.

    With --verify nothing is shown again: every file's SHA-256 is computed anew, and
    the run is judged anew.  The exit code is 0 where all is as it was, else 2
    (RUN_ALTERED), and each file that is missing, changed or too many is named.
    """
    if verify:
        from edgequant.cli import integrity

        integrity.run(run_dir, files=files, against=against, ui=ui)
        return
    from edgequant.cli import report_any as command

    command.run(run_dir=run_dir, schema=schema, against=against, files=files, by_case=by_case, ui=ui)


def judge(
    run_dir: Annotated[str, typer.Argument(metavar="RUN_DIR", help="Folder of an earlier run.")],
    *,
    spec: Annotated[
        str | None,
        typer.Option("--spec", metavar="FILE", help="Limits, goals and decides of this file instead of the run's."),
    ] = None,
    limits: opt.Limits,
    rules: opt.Rejudging,
    ui: opt.Ui,
) -> None:
    """Judge what a run has captured again: without its device, MNN or the source model.

    Says what is different from the judgement that is kept there.  Limits given here
    take the place of the run's own of the same output and metric.  The exit code is
    the new verdict's.  RUN_DIR may be the folder of a bench.
    """
    from edgequant.cli import judge as command

    given = {"limits": limits.limit or (), "decides": limits.decides or ()}
    command.run(run_dir, spec=spec, **given, rules=rules, ui=ui)
