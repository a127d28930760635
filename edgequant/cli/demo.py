"""`edgequant demo`."""

from __future__ import annotations

import typer

from edgequant.cli.console import CliProgress
from edgequant.cli.options import Ui
from edgequant.cli.request import make_request
from edgequant.cli.verify import run_request
from edgequant.judge.verdict import Verdict
from edgequant.spec import RunOptions

VARIANTS = ("dynamic:8", "dynamic:8,hqq")


def run(*, device: str, run_dir: str | None, ui: Ui) -> None:
    """Fetch the model and verify it; a verdict of FAIL is a result of the demo, not a failure of it."""
    from edgequant.zoo import fetch

    progress = CliProgress(ui)
    progress.say("fetching DeepFilterNet3's encoder (kept for the next time)")
    model = fetch("enc")
    request = make_request(
        model=str(model), devices=[device], variants=VARIANTS, run_options=RunOptions(), run_dir=run_dir
    )
    report = run_request(request, ui)
    if report.verdict in (Verdict.ERROR, Verdict.INCONCLUSIVE):
        raise typer.Exit(report.verdict.exit_code)
    progress.say(f"The same on your own model:  edgequant verify MODEL --device {device}")
