"""`edgequant quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Kept, Ui
from edgequant.cli.report import note_run, refuse_files, write_files
from edgequant.cli.request import make_request
from edgequant.cli.verify import exit_code
from edgequant.errors import InputError
from edgequant.judge.verdict import Verdict


def run(model: str, typed: Mapping[str, Any], *, output: str, kept: Kept, ui: Ui) -> None:
    """Make the file, check it, show what came out; exits with the verdict's code, or as interrupted."""
    from edgequant.jobs.quantize import quantize
    from edgequant.plain import printable
    from edgequant.report.console import render
    from edgequant.report.write import to_json

    if (count := len(typed.get("variants", ()))) > 1:
        raise InputError(
            "USAGE",
            f"--variant is given {count} times, and quantize makes one file",
            hint="Quantize once for each, with an -o of its own; edgequant verify compares several.",
        )
    request = make_request(model, {**typed, "devices": ["local:"]}, run_dir=kept.run_dir)
    refuse_files(kept, request, output)
    report, run_dir, written, elsewhere = quantize(request, Path(output), CliProgress(ui))
    console = out(ui)
    render(report, console, path=run_dir / "report.json", verbose=ui.verbose, quiet=ui.quiet)
    if written:
        size, before = Path(output).stat().st_size, report.model.bytes or 0
        text = f"{printable(output)}: {size / 1e6:.2f} MB, the source has {before / 1e6:.2f} MB"
        console.print(text, markup=False, soft_wrap=True)
    elif elsewhere is not None:
        console.print(
            f"{printable(output)} was kept as it was: the verdict of the new model is {report.verdict}, and a file "
            f"that is there already is replaced only by one that passes.  The new one is {printable(str(elsewhere))}.",
            markup=False,
            soft_wrap=True,
        )
    elif (failed := report.runs[0].error) is not None:
        console.print(f"{printable(output)} was not written: {failed.code}.", markup=False, soft_wrap=True)
    else:
        console.print(
            f"{printable(output)} was not written: the model does not run, or does not compute what the source "
            f"computes.  What was made is in {printable(str(run_dir / 'models'))}.",
            markup=False,
            soft_wrap=True,
        )
    write_files(report, kept, run_dir)
    note_run(run_dir, kept.history)
    if ui.json:
        print_json(to_json(report))
    code = exit_code(report)
    if not written and code == 0:
        code = Verdict.FAIL.exit_code
    raise typer.Exit(code)
