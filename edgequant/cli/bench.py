"""`edgequant bench`, and `judge` and `report` of a folder that it left."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgequant.archive.bench import REPORT, folder_of_bench, open_bench
from edgequant.cli import laboratory
from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Files, Kept, Rejudging, Ui
from edgequant.cli.report import asked_for, kept_with, note_run, refuse_beside, refuse_files
from edgequant.cli.request import make_request
from edgequant.cli.writing import write_each
from edgequant.errors import InputError
from edgequant.plain import printable

if TYPE_CHECKING:
    from edgequant.report.bench import BenchReport

_MEMORY = ("low", "normal", "high")


def run(
    model: str,
    typed: Mapping[str, Any],
    *,
    against: Sequence[str] | None,
    baseline: str | None,
    threads: str | None,
    memory: str | None,
    blocks: int,
    runs: int,
    seconds: float,
    warm_up: float,
    within: float,
    tell: float,
    allow: Sequence[str] | None,
    governor: str | None,
    cool_below: float | None,
    sustain: str | None,
    per_op: bool,
    kept: Kept,
    ui: Ui,
) -> None:
    """Measure, show; exits with 4 where the numbers may not be believed."""
    from edgequant.jobs.bench import BenchRequest, bench

    request = make_request(model, {"latency": True, **typed}, run_dir=kept.run_dir)
    refuse_files(kept, request)
    asked = BenchRequest(
        request,
        against=tuple(Path(each) for each in against or ()),
        baseline=None if baseline is None else Path(baseline),
        threads=_numbers(threads),
        memory=_modes(memory),
        blocks=blocks,
        runs=runs,
        seconds=seconds,
        warm_seconds=warm_up,
        within=within / 100,
        tell=tell / 100,
        allowed=tuple(allow or ()),
        laboratory=laboratory.request(governor, cool_below, sustain, per_op),
    )
    found = bench(asked, CliProgress(ui))
    note_run(found.folder, kept.history)
    show(found.report, found.folder, kept, ui)


def show(report: BenchReport, folder: Path | None, files: Files, ui: Ui, *told: str) -> None:
    """Print it, write the files that are wanted, and exit with the verdict's code.  folder: that it was made of.
    told: lines behind it."""
    from edgequant.report.bench import to_json
    from edgequant.report.bench_console import render

    console = out(ui)
    render(report, console, folder=folder, verbose=ui.verbose)
    for line in told:
        console.print(printable(line), markup=False, soft_wrap=True)
    with kept_with(folder, asked_for(files).values()):
        write_files(report, folder, files)
    if ui.json:
        print_json(to_json(report))
    raise typer.Exit(report.verdict.exit_code)


def write_files(report: BenchReport, folder: Path | None, files: Files) -> None:
    """Write the table, the page and what a CI reads where wanted.  Raises EdgequantError (OUTPUT_UNWRITABLE)."""
    from edgequant.report.bench_csv import to_csv
    from edgequant.report.bench_junit import to_junit
    from edgequant.report.bench_summary import to_summary
    from edgequant.report.html.bench import page
    from edgequant.report.openmetrics import bench_openmetrics

    def made_page() -> str:
        return page(report, None if folder is None or folder_of_bench(folder) is None else open_bench(folder))

    write_each(
        asked_for(files),
        {
            "--csv": lambda: to_csv(report),
            "--html": made_page,
            "--junit": lambda: to_junit(report),
            "--openmetrics": lambda: bench_openmetrics(report),
            "--summary": lambda: to_summary(report),
        },
    )


def report_again(run_dir: str, *, schema: bool, files: Files, by_case: bool, ui: Ui) -> None:
    """`report` of a bench: its folder, or a bench.json by itself."""
    from edgequant.report.bench import json_schema, load

    if schema:
        print_json(json.dumps(json_schema(), indent=2))
        return
    if by_case:
        raise InputError("OPTION_INVALID", "--by-case: a bench times one case")
    path, folder = Path(run_dir), folder_of_bench(run_dir)
    path = path / REPORT if path.is_dir() else path
    if folder is not None and not path.exists():
        raise InputError(
            "REPORT_INVALID", f"{folder}: it ended before there was a {REPORT}",
            hint=f"edgequant judge {shlex.quote(str(folder))} shows what there is.",
        )  # fmt: skip
    refuse_beside(files, [path], folder or path)
    show(load(path), folder, files, ui)


def judge_again(run_dir: str, rules: Rejudging, ui: Ui) -> None:
    """`judge` of a bench's folder: shows it as it would be today, and what has changed."""
    from edgequant.jobs.rejudge_bench import judge_bench_again, keep

    files = Files(csv=rules.csv)
    if rules.csv is not None:
        refuse_beside(files, [], Path(run_dir))
    found = judge_bench_again(
        run_dir,
        within=None if rules.within is None else rules.within / 100,
        tell=None if rules.tell is None else rules.tell / 100,
        allowed=tuple(rules.allow or ()),
        baseline=rules.baseline,
    )
    bench = open_bench(run_dir)
    told = [f"kept as {keep(bench, found.report)}"] if rules.write else [
        "This judgement is not kept; --write keeps it beside the old one."
    ]  # fmt: skip
    head = f"Changed against {REPORT}:" if found.changes else f"Nothing changed against {REPORT}."
    told.append("There is no report to hold it against:" if found.stored is None else head)
    show(found.report, bench.path, files, ui, *told, *(f"  {line}" for line in found.changes))


def is_bench(path: str) -> bool:
    """Whether it is the folder of a bench, or its report."""
    return folder_of_bench(path) is not None or _says_bench(Path(path))


def _says_bench(path: Path) -> bool:
    """A bench.json that lies in no folder of its own, or in one of an older version."""
    from edgequant.report.bench import load

    path = path / REPORT if path.is_dir() else path
    if not path.is_file():
        return False
    try:
        load(path)
    except InputError:
        return False
    return True


def _numbers(text: str | None) -> tuple[int, ...]:
    """ "1,2,4"."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:9]) <= 256 for part in parts):
        raise InputError(
            "OPTION_INVALID", f"--threads {text}: not numbers from 1 to 256", hint="Write --threads 1,2,4."
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def _modes(text: str | None) -> tuple[Any, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= set(_MEMORY):
        raise InputError("OPTION_INVALID", f"--memory {text}: not of {', '.join(_MEMORY)}")
    return tuple(dict.fromkeys(parts))
