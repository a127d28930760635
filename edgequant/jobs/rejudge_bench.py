"""Judge a bench again: without its device, MNN or the model, perhaps by other rules or against another baseline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.bench import REPORT, Bench, open_bench
from edgequant.errors import InputError
from edgequant.jobs.rejudge import write_beside
from edgequant.judge.bench_run import BenchRules, baseline_of, judge_folder
from edgequant.report.bench import BenchDeviceReport, BenchReport, SettingReport, load, rounded, write
from edgequant.report.bench_build import build_bench


@dataclass(frozen=True)
class RejudgedBench:
    """As `rejudge.Rejudged`."""

    report: BenchReport
    stored: BenchReport | None
    changes: tuple[str, ...]


def judge_bench_again(
    run_dir: str | Path,
    *,
    within: float | None = None,
    tell: float | None = None,
    allowed: Sequence[str] = (),
    baseline: str | Path | None = None,
) -> RejudgedBench:
    """Judge what a bench has captured.

    Args:
        within, tell: shares, in place of those it was measured by.  allowed: codes that are borne as well.
        baseline: the folder of an earlier bench, in place of the one it was measured against.

    Raises InputError (RUN_NOT_FOUND, RUN_INVALID, OPTION_INVALID).
    """
    bench = open_bench(run_dir)
    against = None if baseline is None else baseline_of(open_bench(baseline))
    judged = judge_folder(bench, BenchRules.of(bench.plan, within, tell, allowed), against)
    report = rounded(build_bench(bench, judged, against))
    path = bench.path / REPORT
    try:
        stored = load(path)
    except InputError as error:
        return RejudgedBench(report, None, (str(error) if os.path.lexists(path) else f"{path}: there is none",))
    return RejudgedBench(report, stored, tuple(_changes(stored, report)))


def keep(bench: Bench, report: BenchReport) -> Path:
    """Write a judgement beside those that are there: bench-2.json, bench-3.json, ...; returns the path.

    Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE).
    """
    return write_beside(bench.path, "bench", lambda path: write(report, path))


def _changes(before: BenchReport, after: BenchReport) -> Iterator[str]:
    for key in ("verdict", "within", "tell", "allowed", "interrupted"):
        was, is_ = getattr(before, key), getattr(after, key)
        if was != is_:
            yield f"{key}: {_plain(was)} -> {_plain(is_)}"
    known = {each.uri: each for each in before.devices}
    for device in after.devices:
        old = known.pop(device.uri, None)
        if old is None:
            yield f"{device.uri}, new: {device.verdict}"
            continue
        yield from (f"{device.uri}, {line}" for line in _of_device(old, device))
    yield from (f"{uri}, no longer there" for uri in known)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _of_device(before: BenchDeviceReport, after: BenchDeviceReport) -> Iterator[str]:
    known = {each.id or each.name: each for each in before.settings}
    for setting in after.settings:
        was = known.pop(setting.id or setting.name, None)
        if was is None:
            yield f"{setting.name}: new, {setting.verdict}"
        else:
            yield from (f"{setting.name}: {line}" for line in _of_setting(was, setting))
    yield from (f"{name}: no longer there" for name in known)
    for was_said, said, word in (
        ({each.name: each.says for each in before.compared}, {each.name: each.says for each in after.compared}, ""),
        (_since(before), _since(after), " than the baseline"),
    ):
        for name in dict.fromkeys((*was_said, *said)):
            if was_said.get(name) != said.get(name):
                yield f"{name}{word}: {was_said.get(name, 'not compared')} -> {said.get(name, 'not compared')}"


def _since(device: BenchDeviceReport) -> dict[str, str]:
    return {} if device.baseline is None else {each.name: each.says for each in device.baseline.settings}


def _of_setting(before: SettingReport, after: SettingReport) -> Iterator[str]:
    if before.verdict is not after.verdict:
        yield f"{before.verdict} -> {after.verdict}"
    codes, now = ({each.code for each in setting.why_invalid} for setting in (before, after))
    yield from (f"no longer: {code}" for code in sorted(codes - now))
    yield from (f"new: {code}" for code in sorted(now - codes))
    was, is_ = before.ms.get("p50"), after.ms.get("p50")
    if was is not None and is_ is not None and was.value != is_.value:
        yield f"p50: {was.value:.6g} -> {is_.value:.6g} ms, of other blocks"
