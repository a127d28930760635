"""Judge a run again: without its device, MNN or the source model, perhaps with other limits."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.manifest import amended
from edgequant.archive.open import Run, open_run
from edgequant.archive.types import Plan
from edgequant.errors import EdgequantError, InputError
from edgequant.files import disk_error
from edgequant.judge.run import check_limits
from edgequant.judge.run import judge as judge_run
from edgequant.report.build import build_report
from edgequant.report.model import Report
from edgequant.report.model import Run as ReportRun
from edgequant.report.read import load, loads
from edgequant.report.write import to_json, write
from edgequant.spec import Decision, Limit, decision
from edgequant.spec.file import VerifySpec


@dataclass(frozen=True)
class Rejudged:
    """A run judged again.

    Attributes:
        report: what is said of it now.
        stored: what was said when it was made; None where its report is not there, or cannot be read.
        changes: what is different, a line each.
    """

    report: Report
    stored: Report | None
    changes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Rejudged {self.report.verdict}: {len(self.changes)} change(s)>"


def judge(
    run_dir: str | Path | Run,
    limits: Sequence[Limit | str] = (),
    spec: VerifySpec | None = None,
    decides: Mapping[str, Decision] | None = None,
) -> Rejudged:
    """Judge what a run has captured.

    Args:
        run_dir: the folder of the run, or what `open_run` made of it.
        limits: over those of the run; of the same output and metric they take the place of its own.
        spec: a file's limits, goals and decides, in place of those of the run.
        decides: what outputs decide, over what the run says of it.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, LIMIT_..., DECIDES_...), ToolError (CAPTURE_UNREADABLE).
    """
    run = run_dir if isinstance(run_dir, Run) else open_run(run_dir)
    plan = _plan(run, limits, spec, decides or {})
    if run.source.kinds:
        check_limits(run, plan)
    elif limits or decides or spec is not None:
        raise InputError("RUN_INVALID", f"{run.path}: it ended before there was anything to judge")
    report = build_report(run, judge_run(run, plan), plan)
    path = run.path / "report.json"
    try:
        stored = load(path)
    except InputError as error:
        return Rejudged(report, None, (str(error) if os.path.lexists(path) else f"{path}: there is none",))
    # Held against it as it would be written: numbers are rounded there.
    return Rejudged(report, stored, tuple(_changes(stored, loads(to_json(report)))))


def keep(run: str | Path, report: Report) -> Path:
    """Write a judgement beside those that are there: report-2.json, report-3.json, ...; returns the path.

    Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE).
    """
    return write_beside(open_run(run).path, "report", lambda path: write(report, path))


def write_beside(folder: Path, name: str, write_to: Callable[[Path], Path]) -> Path:
    """Write NAME-2.json, or with the next number that is free.  Raises as `keep`."""
    with amended(folder):
        return _write_beside(folder, name, write_to)


def _write_beside(folder: Path, name: str, write_to: Callable[[Path], Path]) -> Path:
    for number in itertools.count(2):
        path = folder / f"{name}-{number}.json"
        try:
            path.open("x").close()  # nobody else takes it
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            return write_to(path)
        except OSError as error:
            path.unlink()
            raise _unwritable(path, error) from None
    raise AssertionError("there is always one more number")


def _unwritable(path: Path, error: OSError) -> EdgequantError:
    found = disk_error(path, error)
    found.hint = "Free some space on this host, or copy the run to a folder that can be written."
    return found


def _plan(run: Run, limits: Sequence[Limit | str], spec: VerifySpec | None, decides: Mapping[str, Decision]) -> Plan:
    given = tuple(Limit.parse(each) if isinstance(each, str) else each for each in limits)
    plan = run.plan
    if spec is not None:
        plan = plan.model_copy(
            update={
                "limits": tuple(Limit.parse(each) for each in spec.limits),
                "goals": tuple(Limit.parse(each) for each in spec.goals),
                "decides": spec.decides,
            }
        )
    named = {name: decision(word) for name, word in decides.items()}
    return plan.model_copy(update={"limits": (*plan.limits, *given), "decides": {**plan.decides, **named}})


def _changes(before: Report, after: Report) -> list[str]:
    found = []
    if before.verdict is not after.verdict:
        found.append(f"verdict: {before.verdict} -> {after.verdict}")
    known = {(run.device.uri, run.variant): run for run in before.runs}
    for run in after.runs:
        was = known.pop((run.device.uri, run.variant), None)
        where = f"{run.variant} on {run.device.uri}"
        if was is None:
            found.append(f"{where}, new: {run.verdict}")
            continue
        if was.verdict is not run.verdict:
            found.append(f"{where}, verdict: {was.verdict} -> {run.verdict}")
        found += [f"{where}, {line}" for line in _of_run(was, run)]
    found += [f"{variant} on {uri}, no longer there" for uri, variant in known]
    return found


def _of_run(was: ReportRun, run: ReportRun) -> list[str]:
    lines = []
    for name, output in run.outputs.items():
        old = was.outputs.get(name)
        if old is None:
            lines.append(f"output {name}: new, {output.verdict}")
            continue
        if old.verdict is not output.verdict:
            lines.append(f"output {name}: {old.verdict} -> {output.verdict}")
        bounds = {limit.metric: limit.bound for limit in old.limits}
        lines += [
            f"output {name}: {limit.metric} {limit.op} {limit.bound:g}"
            + (f", was {bounds[limit.metric]:g}" if limit.metric in bounds else ", was not limited")
            for limit in output.limits
            if bounds.get(limit.metric) != limit.bound
        ]
    gone = sorted({each.code for each in was.findings} - {each.code for each in run.findings})
    come = sorted({each.code for each in run.findings} - {each.code for each in was.findings})
    return [*lines, *(f"no longer: {code}" for code in gone), *(f"new: {code}" for code in come)]
