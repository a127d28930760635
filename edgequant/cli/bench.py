"""`edgequant bench`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from edgequant.archive.manifest import close
from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.cli.report import note_run
from edgequant.cli.request import make_request
from edgequant.compare.blocks import Estimate
from edgequant.errors import InputError
from edgequant.files import disk_error
from edgequant.jobs.bench import BenchRequest, BenchResult, MeasuredDevice, bench
from edgequant.judge.bench import Compared, Measured
from edgequant.plain import milliseconds, printable
from edgequant.report.write import write_text

_MEMORY = ("low", "normal", "high")


def run(
    model: str,
    typed: Mapping[str, Any],
    *,
    against: Sequence[str] | None,
    threads: str | None,
    memory: str | None,
    blocks: int,
    runs: int,
    seconds: float,
    warm_up: float,
    within: float,
    tell: float,
    allow: Sequence[str] | None,
    run_dir: str | None,
    history: str | None = None,
    ui: Ui,
) -> None:
    """Measure, show; exits with 4 where the numbers may not be believed."""
    request = make_request(model, {"latency": True, **typed}, run_dir=run_dir)
    asked = BenchRequest(
        request,
        against=tuple(Path(each) for each in against or ()),
        threads=_numbers(threads),
        memory=_modes(memory),
        blocks=blocks,
        runs=runs,
        seconds=seconds,
        warm_seconds=warm_up,
        within=within / 100,
        tell=tell / 100,
        allowed=tuple(allow or ()),
    )
    found = bench(asked, CliProgress(ui))
    document = json.dumps(as_dict(found), indent=1, allow_nan=False, ensure_ascii=True)
    path = found.folder / "bench.json"
    try:
        write_text(document + "\n", path)
    except OSError as error:
        raise disk_error(path, error) from None
    close(found.folder)
    note_run(found.folder, history)
    console = out(ui)
    for device in found.devices:
        for line in _head(found, device):
            console.print(Text(printable(line)), soft_wrap=True)
        console.print(_table(device))
        for line in _tail(device):
            console.print(Text(printable(line)), soft_wrap=True)
    for uri, failure in found.failed.items():
        console.print(Text(printable(f"ERROR  {uri}: {failure.code}: {failure.message}")), soft_wrap=True)
    console.print(Text(f"{found.verdict}  everything is in {printable(str(found.folder))}"), soft_wrap=True)
    if ui.json:
        print_json(document)
    if found.verdict.exit_code:
        raise typer.Exit(found.verdict.exit_code)


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


def _head(found: BenchResult, device: MeasuredDevice) -> list[str]:
    asked, told = found.asked, device.capture.device
    shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in device.case.inputs.items())
    lines = [f"{asked.request.model.name}  on  {device.uri}  case {device.case.name} ({shapes[:300]})"]
    if told is not None:
        lines.append(
            f"{told.cpu or told.arch}, {told.cores} cores, MNN {told.mnn}, threads {told.facts.get('threads')}"
        )
    return [
        *lines,
        f"{device.good} of {device.rounds} rounds: in each, every setting once in a process of its own, warmed up "
        f"until it is at rest, then at least {asked.runs} inferences and {asked.seconds:g} s",
    ]


def _table(device: MeasuredDevice) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("setting", "p50 ms", "+-", "p90", "p99", "min", "CPU ms", "load", "first", "peak MB", "valid"):
        table.add_column(name, justify="left" if name in ("setting", "valid") else "right", no_wrap=name != "setting")
    for each in device.judged.settings:
        p50 = each.ms.get("p50")
        half = None if p50 is None else p50.half
        table.add_row(
            printable(each.title), _ms(p50), "" if half is None else f"{half:.1%}", _ms(each.ms.get("p90")),
            _ms(each.ms.get("p99")), milliseconds(each.spread.get("min")), _ms(each.cpu_ms), _ms(each.load),
            _ms(each.first), "" if each.peak_kb is None else f"{each.peak_kb * 1.024e-3:.1f}",
            Text("yes") if each.valid else Text("NO", style="bold red"),
        )  # fmt: skip
    return table


def _ms(estimate: Estimate | None) -> str:
    return "" if estimate is None else milliseconds(estimate.value)


def _tail(device: MeasuredDevice) -> list[str]:
    lines = ["+-: half of the 95 % interval of p50, from block to block; load, first, CPU: means of the blocks"]
    for each in device.judged.settings:
        lines += [f"not valid: {each.name}: {code}: {message}" for code, message in each.why_invalid]
    lines += [said(each) for each in device.judged.compared]
    for finding in device.judged.findings:
        lines += [f"{finding.severity}  {finding.code}: {finding.message}", f"  -> {finding.remedy}"]
    return lines


def said(each: Compared) -> str:
    """A comparison in words."""
    found = each.ratio
    interval = "" if found.low is None or found.high is None else f" (99 %: {found.low:.3f} to {found.high:.3f})"
    words = {
        "slower": "takes longer than",
        "faster": "is faster than",
        "same": "takes as long as",
        "unclear": "cannot be told from",
    }[each.says]
    return f"{each.name} {words} {each.base}: {found.value:.3f} times{interval}, {each.rounds} rounds beside each other"


def as_dict(found: BenchResult) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.bench/1``)."""
    asked = found.asked
    return {
        "schema": "edgequant.bench/1",
        "model": str(asked.request.model),
        "verdict": str(found.verdict),
        "blocks": asked.blocks,
        "runs": asked.runs,
        "seconds_each": asked.seconds,
        "within": asked.within,
        "tell": asked.tell,
        "allowed": list(asked.allowed),
        "seconds": round(found.seconds, 3),
        "failed": {uri: error.as_dict() for uri, error in found.failed.items()},
        "devices": [_device(each) for each in found.devices],
    }


def _device(device: MeasuredDevice) -> dict[str, Any]:
    told = device.capture.device
    return {
        "uri": device.uri,
        "facts": None if told is None else told.model_dump(mode="json"),
        "verdict": str(device.judged.verdict),
        "case": device.case.name,
        "shapes": {name: list(array.shape) for name, array in device.case.inputs.items()},
        "rounds": device.rounds,
        "rounds_good": device.good,
        "settings": [_setting(each) for each in device.judged.settings],
        "findings": [finding.model_dump(mode="json") for finding in device.judged.findings],
        "compared": [
            {
                "base": each.base, "name": each.name, "says": each.says, "rounds": each.rounds,
                "ratio": each.ratio.value, "low": each.ratio.low, "high": each.ratio.high,
            }
            for each in device.judged.compared
        ],
    }  # fmt: skip


def _setting(each: Measured) -> dict[str, Any]:
    return {
        "name": each.title,
        "valid": each.valid,
        "verdict": str(each.verdict),
        "why_invalid": [{"code": code, "message": message} for code, message in each.why_invalid],
        "ms": {name: _estimate(estimate) for name, estimate in each.ms.items()},
        "spread": dict(each.spread),
        "cpu_ms": _estimate(each.cpu_ms),
        "load_ms": _estimate(each.load),
        "first_ms": _estimate(each.first),
        "rss_peak_kb": each.peak_kb,
        "blocks": [
            {
                "round": block.round + 1,
                "used": block.round in each.used,
                "n": 0 if block.timing is None else len(block.timing.samples_ms),
                "warmup": 0 if block.timing is None else block.timing.warmup,
                "doubts": [{"code": doubt.code, "message": doubt.message} for doubt in block.doubts],
                "failure": None if block.capture.failure is None else block.capture.failure.code,
            }
            for block in each.blocks
        ],
    }


def _estimate(found: Estimate | None) -> dict[str, float | None] | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}
