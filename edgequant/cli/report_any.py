"""`edgequant report`, of whatever was run."""

from __future__ import annotations

from edgequant.cli import bench, report
from edgequant.cli.options import Files, Ui


def run(*, run_dir: str | None, schema: bool, files: Files, by_case: bool, ui: Ui) -> None:
    """Show a report again, or the schema of all of its kind."""
    if run_dir is not None and bench.is_bench(run_dir):
        bench.report_again(run_dir, schema=schema, files=files, by_case=by_case, ui=ui)
        return
    report.run(run_dir=run_dir, schema=schema, files=files, by_case=by_case, ui=ui)
