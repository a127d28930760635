"""Options of `edgequant bench`; as options.py, it imports nothing but Typer."""

from typing import Annotated

import typer

from edgequant.cli.groups import Group

Csv = Annotated[str | None, typer.Option("--csv", metavar="FILE", help="A table with a line per output, too.")]


class Measuring(Group):
    """What is measured, and how long."""

    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="FILE.mnn", help="Measured beside it; may be given several times."),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="RUN_DIR", help="Held against it: the folder of an earlier bench."),
    ] = None
    threads: Annotated[
        str | None,
        typer.Option("--threads", metavar="1,2,4", help="Each of them.  (default: 4 or fewer)"),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="low,normal", help="MNN's memory modes, each.  (default: as verify has it)"),
    ] = None
    blocks: Annotated[int, typer.Option("--blocks", min=3, max=1000, help="Processes for each setting.")] = 7
    runs: Annotated[int, typer.Option("--runs", min=1, max=1_000_000, help="Inferences in each, at least.")] = 30
    seconds: Annotated[float, typer.Option("--seconds", min=0, max=86_400, help="Of timing in each, at least.")] = 1.0
    warm_up: Annotated[
        float,
        typer.Option("--warm-up", metavar="S", min=0, max=3600, help="Before it, until times are at rest, at most."),
    ] = 8.0
    within: Annotated[
        float, typer.Option("--within", metavar="PERCENT", min=0.01, max=100, help="How well p50 has to be known.")
    ] = 2.5
    tell: Annotated[
        float, typer.Option("--tell", metavar="PERCENT", min=0.01, max=100, help="The difference that counts as none.")
    ] = 3.0
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CODE",
            help="A condition that is borne, such as GOVERNOR_SLOW; it stays in the name of the result.",
        ),
    ] = None
    governor: Annotated[
        str | None,
        typer.Option(
            "--governor",
            metavar="NAME",
            help="CPU frequency governor meanwhile, such as performance; given back however it ends.",
        ),
    ] = None
    cool_below: Annotated[
        float | None,
        typer.Option(
            "--cool-below",
            metavar="C",
            min=1,
            max=150,
            help="Wait before each block until the device is cooler, for at most 5 minutes.",
        ),
    ] = None
    sustain: Annotated[
        str | None,
        typer.Option("--sustain", metavar="10m", help="Then run without a pause for so long: minute by minute."),
    ] = None
    per_op: Annotated[bool, typer.Option("--per-op", help="Then time each operator, in a pass of its own.")] = False


class Rejudging(Group):
    """What judging again takes; all but the first two are for a bench's folder alone."""

    write: Annotated[bool, typer.Option("--write", help="Keep it in RUN_DIR as report-2.json, report-3.json, ...")] = (
        False
    )
    csv: Csv = None
    within: Annotated[
        float | None, typer.Option("--within", metavar="PERCENT", min=0.01, max=100, help="As bench has it.")
    ] = None
    tell: Annotated[
        float | None, typer.Option("--tell", metavar="PERCENT", min=0.01, max=100, help="As bench has it.")
    ] = None
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="CODE", help="Of a bench: a condition that is borne as well.")
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="RUN_DIR", help="Of a bench: the earlier one to hold it against."),
    ] = None

    @property
    def of_bench(self) -> list[str]:
        """Options that were given and are for a bench."""
        return [f"--{name}" for name in ("within", "tell", "allow", "baseline") if getattr(self, name)]
