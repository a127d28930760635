"""Options of `edgequant history` that choose runs; as options.py, it imports nothing but Typer."""

from typing import Annotated

import typer

from edgequant.cli.groups import Group


class Which(Group):
    """Of which runs."""

    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="File name, or the beginning of its SHA-256.")
    ] = None
    variant: Annotated[str | None, typer.Option("--variant", metavar="V", help="As it was asked for.")] = None
    device: Annotated[str | None, typer.Option("--device", metavar="URI", help="As it was given.")] = None
    verdict: Annotated[str | None, typer.Option("--verdict", metavar="PASS", help="Of the whole run.")] = None
    since: Annotated[
        str | None, typer.Option("--since", metavar="2026-11-30", help="A day, a time, or 30d for thirty days.")
    ] = None
