"""`edgequant history`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.cli.which import Which
from edgequant.cli.writing import write_text_file
from edgequant.errors import EXIT_USAGE, InputError
from edgequant.history.adapt import read_folder
from edgequant.history.entry import Entry, Trial
from edgequant.history.place import history_path
from edgequant.history.plot import Trend, to_html, to_svg, trend
from edgequant.history.store import History, Wanted
from edgequant.jobs import remember
from edgequant.jobs.overwriting import refuse_table
from edgequant.judge.verdict import Verdict, severity
from edgequant.plain import name, printable
from edgequant.report.against import Change, between, rank, shown_value
from edgequant.report.difference import said
from edgequant.report.numbers import Number

_SCREEN, _MOST_CHANGES = 20, 3
_ELSEWHERE = "Name another file."
_FOR_ALL = ("sqnr_db", "latency_p50_ms", "memory_model_file_mb")


def add(folders: Sequence[str], db: str | None, *, anew: bool, ui: Ui) -> None:
    """Read them; exits with 2 where some could not be read."""
    history = History(history_path(db))
    work = remember.rebuild if anew else remember.add
    found = work(history, [Path(each) for each in folders])
    console, progress = out(ui), CliProgress(ui)
    for error in found.skipped.values():
        progress.say(f"left out: {error.code}: {error}")
    already = found.found - found.new - len(found.skipped)
    told = f"{found.new} run{'' if found.new == 1 else 's'} added, {already} were known, {len(found.skipped)} left out"
    _line(console, f"{told}: {history.path}")
    if ui.json:
        skipped = {folder: error.as_dict() for folder, error in found.skipped.items()}
        _json({"schema": "edgequant.history.added/1", "db": str(history.path), "found": found.found,
               "new": found.new, "skipped": skipped})  # fmt: skip
    if found.skipped:
        raise typer.Exit(EXIT_USAGE)


def list_runs(which: Which, most: int, db: str | None, ui: Ui) -> None:
    """A line for each run."""
    history, wanted = History(history_path(db)), _wanted(which)
    found, count = history.find(wanted, most), history.count(wanted)
    console = out(ui)
    table = Table(box=None, pad_edge=False)
    for head in ("run", "when", "kind", "verdict", "model", "variants", "devices"):
        table.add_column(head, no_wrap=head not in ("model", "variants", "devices"), overflow="fold")
    for each in found:
        table.add_row(
            each.short, f"{each.created:%Y-%m-%d %H:%M}", each.kind, each.verdict, Text(name(each.model)),
            Text(_several([trial.variant for trial in each.trials], 1)),
            Text(_several([trial.device for trial in each.trials], 1)),
        )  # fmt: skip
    if found:
        console.print(table)
    _line(console, f"{len(found)} of {count} runs: {history.path}" if found else f"no such run: {history.path}")
    if ui.json:
        _json({"schema": "edgequant.history.list/1", "db": str(history.path), "count": count,
               "runs": [_as_dict(each) for each in found]})  # fmt: skip


def show(run: str, db: str | None, ui: Ui) -> None:
    """One run: a line for each trial; with --verbose every number."""
    found = _known(run, db)
    console = out(ui)
    _line(
        console,
        f"{found.verdict}  {found.kind} of {name(found.model)}  ({found.short}, {found.created:%Y-%m-%d %H:%M})",
    )
    _line(console, f"edgequant {found.edgequant}, MNN {found.mnn or 'unknown'}, model {found.model_sha256[:12]}")
    _line(console, f"folder: {found.folder}")
    trials = sorted(found.trials, key=lambda each: -_severity(each.verdict))
    for trial in trials if ui.verbose else trials[:_SCREEN]:
        told = f"  ({', '.join(each for each in (trial.cpu, trial.os) if each)})" if trial.cpu or trial.os else ""
        _line(console, f"{trial.verdict}  {name(trial.variant)} on {name(trial.device)}{told}")
        _line(console, f"  {'; '.join(_numbers(trial, all_of_them=ui.verbose)) or 'no numbers'}")
        counts = Counter(f"{level} {code}" for level, code in trial.findings)
        if counts:
            _line(console, f"  {', '.join(counts)}"[:400])
    if len(trials) > _SCREEN and not ui.verbose:
        _line(console, f"and {len(trials) - _SCREEN} more: --verbose shows them")
    if ui.json:
        _json({"schema": "edgequant.history.run/1", **_as_dict(found, numbers=True)})


def plot(
    metric: str, which: Which, output: str | None, *, html: str | None, svg: str | None, db: str | None, ui: Ui
) -> None:
    """The last values, the changes, and what was asked for as a file."""
    if which.model is None or which.device is None:
        raise InputError(
            "OPTION_INVALID", "plot needs --model and --device",
            hint="edgequant history list shows both: numbers of others have nothing to do with each other.",
        )  # fmt: skip
    history = History(history_path(db))
    for option, path in (("--html", html), ("--svg", svg)):
        if path is not None:
            refuse_table(Path(path), [history.path, *([Path(html)] if html and path is svg else [])], option=option)
    found = trend(history, metric, _wanted(which), output)
    console = out(ui)
    _line(console, found.title + (f", output {name(found.output)}" if found.output else ""))
    _values(found, console, verbose=ui.verbose)
    lines = _changes(found)
    if len(lines) > _MOST_CHANGES and not ui.verbose:
        _line(console, f"the last {_MOST_CHANGES} of {len(lines)} changes; --verbose shows all")
        lines = lines[-_MOST_CHANGES:]
    for line in lines:
        _line(console, line)
    if html is not None:
        write_text_file(to_html(found), html, "--html", "page", _ELSEWHERE)
    if svg is not None:
        from edgequant.charts import standalone

        write_text_file(standalone(to_svg(found)), svg, "--svg", "plot", _ELSEWHERE)
    if ui.json:
        _json(found.as_dict())


def compare(before: str, after: str, db: str | None, ui: Ui) -> None:
    """Trials of the same variant on the same device, number by number."""
    one, two = _known(before, db), _known(after, db)
    changes, compared = _compared(one, two)
    if not {_where(each) for each in one.trials} & {_where(each) for each in two.trials}:
        raise InputError(
            "RUNS_NOT_COMPARABLE",
            f"{one.short} and {two.short} have no variant and device in common",
            hint=f"The first has {_several([_where(each) for each in one.trials])}; "
            f"the second {_several([_where(each) for each in two.trials])}.",
        )
    console = out(ui)
    for each, word in ((one, "before"), (two, "after")):
        _line(
            console, f"{word:<6}  {each.verdict:<12}  {each.short}  {each.created:%Y-%m-%d %H:%M}  {name(each.model)}"
        )
    if one.model_sha256 != two.model_sha256:
        _line(console, "the models are not the same file")
    shown = changes if ui.verbose else changes[:_SCREEN]
    for change in shown:
        _line(console, f"  {change.says:<9} {said(change)}")
    if len(changes) > len(shown):
        _line(console, f"  and {len(changes) - len(shown)} more: --verbose shows them")
    counts = ", ".join(f"{count} {says}" for says, count in Counter(each.says for each in changes).items())
    _line(console, f"{compared} numbers were compared: {counts or 'nothing is different'}")
    if ui.json:
        _json({"schema": "edgequant.history.compare/1", "before": _as_dict(one), "after": _as_dict(two),
               "compared": compared, "changes": [each.as_dict() for each in changes]})  # fmt: skip


def mlflow(run_dir: str, uri: str | None, experiment: str, ui: Ui) -> None:
    """Log one run."""
    from edgequant.jobs.mlflow_log import log_run

    found = log_run(Path(run_dir), uri, experiment)
    told = f"logged, with {found.trials} trials" if found.new else "it was there already"
    _line(out(ui), f"{told}: run {found.run} of experiment {experiment}")
    if ui.json:
        _json({"schema": "edgequant.history.mlflow/1", "run": found.run, "trials": found.trials, "new": found.new})


def _compared(one: Entry, two: Entry) -> tuple[list[Change], int]:
    old = {_where(each): each for each in one.trials}
    changes: list[Change] = []
    compared = 0
    for trial in two.trials:
        if (was := old.get(_where(trial))) is None:
            continue
        found, count = between(_where(trial), _as_numbers(was), _as_numbers(trial))
        compared += count
        if was.verdict != trial.verdict:
            worse = _severity(trial.verdict) > _severity(was.verdict)
            says: Any = "worse" if worse else "better"
            changes.append(Change(_where(trial), "", "verdict", was.verdict, trial.verdict, says))
            compared += 1
        changes += found
    return sorted(changes, key=rank), compared


def _as_numbers(trial: Trial) -> list[Number]:
    return [Number(each.output, each.metric, each.value, each.why) for each in trial.values]


def _where(trial: Trial) -> str:
    return f"{trial.variant} on {trial.device}"


def _severity(verdict: str) -> int:
    """What only another command says lies between what passes and what does not."""
    return severity(Verdict(verdict)) if verdict in set(Verdict) else 2


def _known(run: str, db: str | None) -> Entry:
    """A run of the history, or the folder of one."""
    if Path(run).exists():
        return read_folder(Path(run))
    return History(history_path(db)).get(run)


def _wanted(which: Which) -> Wanted:
    if which.verdict is not None and not re.fullmatch("[A-Za-z]{1,20}", which.verdict):
        raise InputError("OPTION_INVALID", f"--verdict {which.verdict}: no verdict", hint="PASS, FAIL, ...")
    return Wanted(which.model, which.variant, which.device, which.verdict, since=_since(which.since))


def _since(text: str | None) -> str | None:
    if text is None:
        return None
    if (days := re.fullmatch("([0-9]{1,4})d", text)) is not None:
        when = datetime.now(timezone.utc) - timedelta(days=int(days[1]))
    else:
        try:
            when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            hint = "Write --since 2026-11-30, --since 2026-11-30T12:00:00Z or --since 30d."
            raise InputError("OPTION_INVALID", f"--since {text}: not a time", hint=hint) from None
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _numbers(trial: Trial, *, all_of_them: bool) -> list[str]:
    """The worst output's SQNR, p50 and the file; or all."""
    told = []
    if all_of_them:
        for each in trial.values:
            mark = f" (not valid: {each.why})" if each.why else ""
            of = f"{name(each.output)} " if each.output else ""
            told.append(f"{of}{each.metric} {shown_value(each.metric, each.value)}{mark}")
        return told
    for metric in _FOR_ALL:
        values = [each for each in trial.values if each.metric == metric]
        if values:
            worst = min(values, key=lambda each: each.value)
            of = f" ({name(worst.output)})" if worst.output else ""
            told.append(f"{metric} {shown_value(metric, worst.value)}{of}{' not valid' if worst.why else ''}")
    return told


def _values(found: Trend, console: Console, *, verbose: bool) -> None:
    rows = [(point, series.variant) for series in found.series for point in series.points]
    rows.sort(key=lambda row: (row[0].created, row[0].document))
    table = Table(box=None, pad_edge=False)
    for head in ("when", "run", "variant", "value", "edgequant", "MNN", "verdict", ""):
        table.add_column(head, justify="right" if head == "value" else "left", overflow="fold")
    shown = rows if verbose else rows[-(_SCREEN - _MOST_CHANGES) :]
    for point, variant in shown:
        table.add_row(
            point.created[:16].replace("T", " "), point.document[:12], Text(name(variant)),
            shown_value(found.metric, point.value), Text(printable(point.edgequant)), Text(printable(point.mnn)),
            Text(printable(point.verdict)), Text("not valid" if point.why else ""),
        )  # fmt: skip
    if len(rows) > len(shown):
        _line(console, f"the last {len(shown)} of {len(rows)} values; --verbose shows all")
    console.print(table)


def _changes(found: Trend) -> list[str]:
    lines = []
    for series in found.series:
        for _, point, change in series.changed():
            levels = f"{shown_value(found.metric, change.before)} -> {shown_value(found.metric, change.after)}"
            ratio = (
                f" ({change.after / change.before:.3f} times)" if change.before and found.metric[-2:] != "db" else ""
            )
            since = (
                f"since {point.created[:10]}, run {point.document[:12]}, edgequant {point.edgequant}, MNN {point.mnn}"
            )
            lines.append(f"change  {name(series.variant)}: {levels}{ratio} {since}, p {change.p:.4f}")
    few = all(len(series.valid) < 10 for series in found.series)
    return lines or ["no change of level" + (": at least 10 valid runs are needed to tell one" if few else "")]


def _several(names: Sequence[str], most: int = 2) -> str:
    """The first, and how many more."""
    different = list(dict.fromkeys(names))
    shown = ", ".join(name(each) for each in different[:most])
    return shown if len(different) <= most else f"{shown} +{len(different) - most}"


def _as_dict(entry: Entry, *, numbers: bool = False) -> dict[str, Any]:
    return {
        "id": entry.id, "kind": entry.kind, "created": entry.when, "edgequant": entry.edgequant, "mnn": entry.mnn,
        "model": entry.model, "model_sha256": entry.model_sha256, "verdict": entry.verdict, "folder": entry.folder,
        "findings": [{"severity": level, "code": code} for level, code in entry.findings],
        "trials": [_trial(each, numbers=numbers) for each in entry.trials],
    }  # fmt: skip


def _trial(trial: Trial, *, numbers: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "variant": trial.variant, "device": trial.device, "verdict": trial.verdict, "cpu": trial.cpu, "os": trial.os,
        "emulated": trial.emulated, "sha256": trial.sha256,
        "findings": [{"severity": level, "code": code} for level, code in trial.findings],
    }  # fmt: skip
    if numbers:
        found["numbers"] = [
            {"output": each.output, "metric": each.metric, "value": each.value, "valid": not each.why, "why": each.why}
            for each in trial.values
        ]
    return found


def _line(console: Console, text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)


def _json(document: dict[str, Any]) -> None:
    print_json(json.dumps(document, indent=1, allow_nan=False))
