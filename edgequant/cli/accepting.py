"""The command `edgequant accept`; as commands.py, it imports nothing but Typer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgequant.cli.groups import Commands

if TYPE_CHECKING:
    from edgequant.cli import options as opt


def accept(
    *,
    spec: Annotated[
        str | None,
        typer.Argument(metavar="SPEC.yaml", help="The release check; none with --resume.", show_default=False),
    ] = None,
    gate: opt.Gate,
    files: opt.GateFiles,
    run_dir: opt.RunDir = None,
    history: opt.History = None,
    ui: opt.Ui,
) -> None:
    """Check a release: every model in every variant on every device of SPEC.yaml, by its rules.

    Everything is kept in the run directory; --resume goes on with one that was
    interrupted, `edgequant judge` judges it again by other rules, `edgequant
    report` shows it again.  The exit code is 1 where a rule is broken, 3 where
    something could not be run, 4 where a rule could not be evaluated or a trial
    failed once and passed once.
    """
    from edgequant.cli import accept as command

    command.run(spec, gate=gate, files=files, run_dir=run_dir, history=history, ui=ui)


def declare(app: Commands) -> None:
    """Make it one of the app's commands."""
    app.command("accept", short_help="The release gate: models x variants x devices x rules.")(accept)
