"""Options of what is written on this host; as options.py, it imports nothing but Typer."""

from typing import Annotated

import typer

from edgequant.cli.groups import Group
from edgequant.cli.measuring import Csv

RunDir = Annotated[str | None, typer.Option("--run-dir", metavar="DIR", help="New folder for everything of this run.")]
History = Annotated[
    str | None,
    typer.Option(
        "--history", metavar="FILE", envvar="EDGEQUANT_HISTORY", show_envvar=True, help="Note the run in this history."
    ),
]


class Files(Group):
    """Files that a report is written into."""

    csv: Csv = None
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="One page with tables and figures, too.")
    ] = None
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="JUnit XML, a test case per rule and run, too.")
    ] = None
    summary: Annotated[
        str | None,
        typer.Option("--summary", metavar="FILE.md", help="Markdown for a CI's summary, too: $GITHUB_STEP_SUMMARY."),
    ] = None
    openmetrics: Annotated[
        str | None,
        typer.Option("--openmetrics", metavar="FILE.txt", help="Numbers for GitLab's metrics report, too."),
    ] = None


class Kept(Files):
    """What is written on this host."""

    run_dir: RunDir = None
    history: History = None
