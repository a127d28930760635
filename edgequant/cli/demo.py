"""`edgequant demo`."""

from __future__ import annotations

from pathlib import Path

import typer

from edgequant.cli.console import CliProgress
from edgequant.cli.options import Kept, Ui
from edgequant.cli.report import write_files
from edgequant.cli.verify import run_request
from edgequant.judge.verdict import Verdict
from edgequant.plan.request import Request

VARIANTS = ("dynamic:8", "dynamic:8,hqq")


def run(*, device: str, run_dir: str | None, ui: Ui) -> None:
    """Fetch the model and verify it; a verdict of FAIL is a result of the demo, not a failure of it."""
    from edgequant.zoo import fetch

    progress = CliProgress(ui)
    progress.say("fetching DeepFilterNet3's encoder (kept for the next time)")
    model = fetch("enc")
    request = Request(
        model,
        devices=(device,),
        variants=VARIANTS,  # type: ignore[arg-type]  # Request parses them
        run_dir=None if run_dir is None else Path(run_dir),
    )
    report, folder = run_request(request, ui, Kept())
    page = folder.path / "report.html"
    write_files(report, Kept(html=str(page)), folder.path)
    if report.verdict in (Verdict.ERROR, Verdict.INCONCLUSIVE):
        raise typer.Exit(report.verdict.exit_code)
    progress.say(f"To look at in a browser: {page}")
    progress.say(f"The same on your own model:  edgequant verify MODEL --device {device}")
