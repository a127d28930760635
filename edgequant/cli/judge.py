"""`edgequant judge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from edgequant.cli.console import out, print_json
from edgequant.cli.options import Files, Rejudging, Ui
from edgequant.cli.report import asked_for, kept_with, write_csv


def run(
    run_dir: str,
    *,
    spec: str | None,
    limits: Sequence[str],
    decides: Sequence[str],
    rules: Rejudging,
    ui: Ui,
) -> None:
    """Judge again, say what has changed, show; exits with the verdict's code."""
    from edgequant.archive.acceptance import is_acceptance
    from edgequant.archive.bench import folder_of_bench
    from edgequant.cli.bench import judge_again
    from edgequant.errors import InputError
    from edgequant.jobs.overwriting import refuse_table
    from edgequant.jobs.rejudge import judge, keep
    from edgequant.plain import printable
    from edgequant.report.console import render
    from edgequant.report.write import to_json
    from edgequant.spec import parse_decides
    from edgequant.spec.file import load_spec

    if is_acceptance(run_dir):
        from edgequant.cli import accept

        accept.judge(run_dir, spec=spec, others=[*limits, *decides, *rules.of_bench], rules=rules, ui=ui)
    of_verify, of_bench = bool(spec or limits or decides), rules.of_bench
    if folder_of_bench(run_dir) is not None:
        if of_verify:
            raise InputError("OPTION_INVALID", f"{run_dir}: a bench has no limits, --within and --tell only")
        judge_again(run_dir, rules, ui)
    if of_bench:
        raise InputError("OPTION_INVALID", f"{of_bench[0]} is for the folder of a bench, {run_dir} is none")
    csv, write = rules.csv, rules.write
    if csv is not None:
        refuse_table(Path(csv), [], run_dir=Path(run_dir))
    found = judge(run_dir, limits, None if spec is None else load_spec(Path(spec)), parse_decides(decides))
    path = keep(run_dir, found.report) if write else None
    console = out(ui)
    render(found.report, console, path=path, verbose=ui.verbose, quiet=ui.quiet)
    if path is None:
        console.print("This judgement is not kept; --write keeps it beside the old one.", markup=False)
    head = "Changed against report.json:" if found.changes else "Nothing changed against report.json."
    console.print("There is no report to hold it against:" if found.stored is None else head, markup=False)
    for line in found.changes:
        console.print(f"  {printable(line)}", markup=False, soft_wrap=True)
    with kept_with(Path(run_dir), asked_for(Files(csv=csv)).values()):
        write_csv(found.report, csv)
    if ui.json:
        print_json(to_json(found.report))
    raise typer.Exit(found.report.verdict.exit_code)
