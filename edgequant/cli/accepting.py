"""Options of `edgequant accept`; as options.py, it imports nothing but Typer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgequant.cli.groups import Commands, Group

if TYPE_CHECKING:
    from edgequant.cli import options as opt


def _print_schema(wanted: bool) -> None:
    if wanted:
        import json

        from edgequant.spec.accept_file import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        raise typer.Exit


def _print_example(wanted: bool) -> None:
    if wanted:
        from pathlib import Path

        typer.echo((Path(__file__).parents[1] / "configs" / "gate.yaml").read_text("utf-8"), nl=False)
        raise typer.Exit


class GateFiles(Group):
    """Files that a judgement is written into."""

    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="One page with all of it, too.")] = None
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="JUnit XML, a test case per rule and trial, too.")
    ] = None
    summary: Annotated[
        str | None,
        typer.Option("--summary", metavar="FILE.md", help="Markdown for a CI's summary, too: $GITHUB_STEP_SUMMARY."),
    ] = None


class Gate(Group):
    """What is done with a spec."""

    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would run, and how long it may take; touch no device.")
    ] = False
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN_DIR", help="Go on with an interrupted one: only what is missing."),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="RUN_DIR", help="An earlier release's folder, in place of the spec's."),
    ] = None
    schema: Annotated[
        bool,
        typer.Option("--schema", callback=_print_schema, is_eager=True, help="Print the spec's JSON Schema, and exit."),
    ] = False
    example: Annotated[
        bool,
        typer.Option(
            "--example", callback=_print_example, is_eager=True, help="Print a spec with every key, and exit."
        ),
    ] = False


def accept(
    *,
    spec: Annotated[
        str | None,
        typer.Argument(metavar="SPEC.yaml", help="The release check; none with --resume.", show_default=False),
    ] = None,
    gate: Gate,
    files: GateFiles,
    run_dir: opt.RunDir = None,
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

    command.run(spec, plan=gate.plan, resume=gate.resume, baseline=gate.baseline, files=files, run_dir=run_dir, ui=ui)


def register(app: Commands) -> None:
    """Make it one of the app's commands."""
    app.command("accept", short_help="The release gate: models x variants x devices x rules.")(accept)
