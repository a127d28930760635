"""The commands below `history`; as commands.py, it imports nothing but Typer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgequant.cli.groups import Commands
from edgequant.cli.which import Which

if TYPE_CHECKING:
    from edgequant.cli import options as opt

Db = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="FILE", envvar="EDGEQUANT_HISTORY", help="(default: history.sqlite in ~/.local/share/edgequant)"
    ),
]
Folders = Annotated[list[str], typer.Argument(metavar="DIR...", help="Folders of runs, or folders with such in them.")]
Known = Annotated[str, typer.Argument(metavar="RUN", help="The beginning of its id, or the folder of a run.")]


def declare(history: Commands) -> None:
    """Add them."""
    history.command("add", short_help="Add runs by their folders.")(add)
    history.command("rebuild", short_help="Make it anew from the folders of runs.")(rebuild)
    history.command("list", short_help="Which runs there are.")(list_runs)
    history.command("show", short_help="All that is known of one run.")(show)
    history.command("plot", short_help="One number over all runs, and where it changed.")(plot)
    history.command("compare", short_help="Two runs, number by number.")(compare)
    history.command("mlflow", short_help="Log a run into MLflow.")(mlflow)


def add(folders: Folders, *, db: Db = None, ui: opt.Ui) -> None:
    """Add runs (verify, quantize, bench, accept) by their folders; what is known already stays as it is.

    Folders that cannot be read are named and left out; then the exit code is 2.
    """
    from edgequant.cli import history as command

    command.add(folders, db, anew=False, ui=ui)


def rebuild(folders: Folders, *, db: Db = None, ui: opt.Ui) -> None:
    """Make the history anew: afterwards it has the runs in these folders, and no others."""
    from edgequant.cli import history as command

    command.add(folders, db, anew=True, ui=ui)


def list_runs(
    *,
    which: Which,
    most: Annotated[int, typer.Option("--most", min=1, max=100_000, help="So many, the newest.")] = 20,
    db: Db = None,
    ui: opt.Ui,
) -> None:
    """List runs, the newest first."""
    from edgequant.cli import history as command

    command.list_runs(which, most, db, ui)


def show(run: Known, *, db: Db = None, ui: opt.Ui) -> None:
    """Show all that is known of one run."""
    from edgequant.cli import history as command

    command.show(run, db, ui)


def plot(
    metric: Annotated[
        str, typer.Argument(metavar="METRIC", help="Such as sqnr_db, latency_p50_ms, memory_model_file_mb.")
    ],
    *,
    which: Which,
    output: Annotated[
        str | None, typer.Option("--output", metavar="NAME", help="Of this output.  (default: of the worst)")
    ] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="A page with plot and tables.")] = None,
    svg: Annotated[str | None, typer.Option("--svg", metavar="FILE", help="The plot alone.")] = None,
    db: Db = None,
    ui: opt.Ui,
) -> None:
    """One number of a model on a device over all runs, the oldest first, and the runs from which on it is another.

    --model and --device are needed.  What is not valid is marked and takes no part.
    A change is said where a rank test with its error rate by permutation finds one:
    of series without a change, 1 in 100 is said to have one.
    """
    from edgequant.cli import history as command

    command.plot(metric, which, output, html=html, svg=svg, db=db, ui=ui)


def compare(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The beginning of its id, or the folder of a run.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The same.")],
    *,
    db: Db = None,
    ui: opt.Ui,
) -> None:
    """Two runs number by number, and which way each went.  The exit code is 0 whatever is different."""
    from edgequant.cli import history as command

    command.compare(before, after, db, ui)


def mlflow(
    run_dir: Annotated[str, typer.Argument(metavar="RUN_DIR", help="Folder of a run.")],
    *,
    uri: Annotated[
        str | None,
        typer.Option("--uri", metavar="URI", envvar="MLFLOW_TRACKING_URI", help="(default: MLflow's own)"),
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="It is made where needed.")
    ] = "edgequant",
    ui: opt.Ui,
) -> None:
    """Log a run into MLflow: one run there with the report, and one below it for each variant on each device.

    Numbers that are not valid are left out.  The same report twice changes nothing.
    Needs `pip install edgequant[mlflow]`.
    """
    from edgequant.cli import history as command

    command.mlflow(run_dir, uri, experiment, ui)
