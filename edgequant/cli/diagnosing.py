"""Options of diagnoses; see options.py: annotations have to be objects here, too."""

from typing import Annotated

import typer

from edgequant.cli.groups import Group


class Explaining(Group):
    """What is said of a FAIL."""

    section = ""
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Look at once into what FAILs: stage, layer, cause, proof, next command.")
    ] = False


class Showing(Group):
    """What a diagnosis leaves for others."""

    export_case: Annotated[
        str | None,
        typer.Option("--export-case", metavar="DIR", help="New folder with the blamed layer, to report it."),
    ] = None
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="One page: the graph's error, the worst layers' numbers."),
    ] = None
    model_explorer: Annotated[
        str | None,
        typer.Option("--model-explorer", metavar="FILE", help="Errors by node, for Model Explorer."),
    ] = None
