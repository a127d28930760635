"""Options of `edgequant accept`; as options.py, it imports nothing but Typer."""

from pathlib import Path
from typing import Annotated

import typer

from edgequant.cli.groups import Group

EXAMPLE_GATE = Path(__file__).parents[1] / "configs" / "gate.yaml"


def _print_schema(wanted: bool) -> None:
    if wanted:
        import json

        from edgequant.spec.accept_file import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        raise typer.Exit


def _print_example(wanted: bool) -> None:
    if wanted:
        typer.echo(EXAMPLE_GATE.read_text("utf-8"), nl=False)
        raise typer.Exit


class GateFiles(Group):
    """Files that a judgement is written into."""

    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="One page with all of it, too.")] = None
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="JUnit XML, a test case per rule and trial, too.")
    ] = None
    openmetrics: Annotated[
        str | None, typer.Option("--openmetrics", metavar="FILE", help="For GitLab's metrics report, too.")
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
