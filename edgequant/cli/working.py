"""Declares `edgequant work`; as commands.py, it imports nothing but Typer until the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgequant.cli.groups import Commands

if TYPE_CHECKING:
    from edgequant.cli import options as opt


def declare(app: Commands) -> None:
    """Add it to the commands."""

    @app.command("work", short_help="Instructions of an inference on an emulated CPU.")
    def work(
        *,
        model: Annotated[str, typer.Argument(metavar="MODEL.mnn", help="What is counted.")],
        device: Annotated[str, typer.Option("--device", metavar="URI", help="Such as emulated:cortex-a76.")],
        against: Annotated[
            str | None, typer.Option("--against", metavar="OTHER.mnn", help="Another variant, or the release before.")
        ] = None,
        most: Annotated[
            float | None,
            typer.Option("--most", metavar="PERCENT", help="Exit with 1 where MODEL takes so much more than OTHER."),
        ] = None,
        inputs: Annotated[
            str | None, typer.Option("--inputs", metavar="PATH", help="The first case in it.  (default: a random one)")
        ] = None,
        memory: Annotated[str, typer.Option("--memory", metavar="low|normal|high")] = "low",
        precision: Annotated[str, typer.Option("--precision", metavar="low|normal|high")] = "normal",
        seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random case.")] = 0,
        qemu: Annotated[
            str | None, typer.Option("--qemu", metavar="PATH", help="One with plugins.  (default: qemu-aarch64)")
        ] = None,
        ui: opt.Ui,
    ) -> None:
        """Count the instructions that an inference of MODEL takes on an emulated CPU, whole and by operator.

        This is work, and no time: nothing of caches, memory or clock is in it, but it
        repeats, so that one run shows a difference of 1 %.  Needs Debian's qemu-user and
        a C compiler.
        """
        from edgequant.cli import work as command

        command.run(
            model, device, against=against, most=most, inputs=inputs, memory=memory, precision=precision, seed=seed,
            qemu=qemu, ui=ui,
        )  # fmt: skip
