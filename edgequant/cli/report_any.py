"""`edgequant report`, of whatever was run."""

from __future__ import annotations

from edgequant.cli import bench, report
from edgequant.cli.options import Files, Ui
from edgequant.errors import InputError


def run(*, run_dir: str | None, schema: bool, against: str | None, files: Files, by_case: bool, ui: Ui) -> None:
    """Show a report again, or the schema of all of its kind.  against: an earlier run that it is held against."""
    from edgequant.archive.acceptance import is_acceptance

    if run_dir is not None and is_acceptance(run_dir):
        from edgequant.cli import accept

        if against is not None:
            hint = "Rules with `baseline` hold releases against each other: edgequant accept SPEC --baseline EARLIER."
            raise InputError("OPTION_INVALID", "--against is for runs of verify", hint=hint)
        accept.report(run_dir, schema=schema, files=files, by_case=by_case, ui=ui)
        return
    if run_dir is not None and bench.is_bench(run_dir):
        if against is not None:
            hint = "edgequant judge RUN_DIR --baseline EARLIER compares benches."
            raise InputError("OPTION_INVALID", "--against is for runs of verify", hint=hint)
        bench.report_again(run_dir, schema=schema, files=files, by_case=by_case, ui=ui)
        return
    report.run(run_dir=run_dir, schema=schema, against=against, files=files, by_case=by_case, ui=ui)
