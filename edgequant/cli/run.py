"""`edgequant run`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.cli.request import make_request
from edgequant.errors import InputError
from edgequant.jobs.run import RunOnce, save_outputs
from edgequant.jobs.run import run as run_request
from edgequant.plain import milliseconds, printable
from edgequant.report.write import as_plain
from edgequant.spec import RunOptions


def run(model: str, device: str, typed: Mapping[str, Any], *, output: str | None, ui: Ui) -> None:
    """Run, save, show."""
    if output is not None and not Path(output).parent.is_dir():
        parent = Path(output).parent
        hint = f"Make it first: mkdir -p {shlex.quote(str(parent))}"
        raise InputError("OUTPUT_INVALID", f"{output}: there is no folder {parent}", hint=hint)
    request = make_request(model, {**typed, "devices": [device]})
    saved = None if output is None else Path(output)
    found = run_request(request, CliProgress(ui), output=saved)
    if saved is not None:
        save_outputs(found, saved)
    _show(found, model, device, output, ui)
    if ui.json:
        document = as_plain(_as_dict(found, model, device, request.options))
        # ASCII: what a device calls itself must not reach a terminal as control characters.
        print_json(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=True))


def _show(found: RunOnce, model: str, device: str, output: str | None, ui: Ui) -> None:
    console = out(ui)
    console.print(
        f"{printable(model)} on {printable(device)} (MNN {printable(found.hello.mnn)}, memory {found.memory_mode}, "
        f"threads {found.threads})",
        markup=False,
        soft_wrap=True,
    )
    for case in found.cases:
        table = Table(
            Column(Text(f"case {printable(case.name)}")), "type", "shape", "min", "mean", "max", "NaN/Inf",
            box=None, pad_edge=False, header_style="bold",
        )  # fmt: skip
        for name, array in found.outputs[case.name].items():
            low, mean, high, bad = _range(array)
            shape = "x".join(map(str, array.shape)) or "scalar"
            table.add_row(
                Text(printable(name), overflow="fold"), array.dtype.name, shape, low, mean, high,
                Text(str(bad), style="bold red" if bad else ""),
            )  # fmt: skip
        console.print(table)
    latency = found.latency
    if latency is not None and latency.n:
        shown = [
            f"{key} {milliseconds(value)}"
            for key in ("p50", "p90", "p99")
            if (value := getattr(latency, key)) is not None
        ]
        why = f"  not valid: {'; '.join(map(printable, latency.why_invalid))}" if not latency.valid else ""
        console.print(
            f"latency of '{printable(latency.case or '')}' in ms: {', '.join(shown)} "
            f"(n {latency.n}, model load {milliseconds(latency.load)}, first {milliseconds(latency.first)}){why}",
            markup=False,
            soft_wrap=True,
        )
    parts = [("before", found.capture.before.rss), ("loaded", found.capture.loaded.rss), ("peak", found.peak.rss_peak)]
    shown = [f"{name} {kib * 1.024e-3:.1f} MB" for name, kib in parts if kib is not None]
    console.print(f"RSS: {', '.join(shown) or 'the device does not tell'}", markup=False)
    if output is not None:
        console.print(f"outputs: {printable(output)}", markup=False, soft_wrap=True)


def _range(array: np.ndarray) -> tuple[str, str, str, int]:
    if not array.size:
        return "-", "-", "-", 0
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    bad = values.size - finite.size
    if not finite.size:
        return "-", "-", "-", bad
    return f"{finite.min():.4g}", f"{finite.mean():.4g}", f"{finite.max():.4g}", bad


def _as_dict(found: RunOnce, model: str, device: str, options: RunOptions) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.run/1``)."""
    return {
        "schema": "edgequant.run/1",
        "model": model,
        "device": {
            "uri": device,
            "mnn": found.hello.mnn,
            **(found.facts.of_device if found.device is None else found.device.model_dump(mode="json")),
            "mnn_kernels": found.facts.mnn_kernels,
            "usable_cores": found.facts.usable_cores,
        },
        "options": {**options.model_dump(), "memory": found.memory_mode, "threads": found.threads},
        "cases": [
            {
                "name": case.name,
                "source": case.source,
                "inputs": {name: list(array.shape) for name, array in case.inputs.items()},
                "outputs": {
                    name: {
                        "dtype": array.dtype.name,
                        "shape": list(array.shape),
                        "nonfinite": int(array.size - np.isfinite(array).sum()) if array.size else 0,
                    }
                    for name, array in found.outputs[case.name].items()
                },
                "ms": found.first_ms[case.name],
            }
            for case in found.cases
        ],
        "latency_ms": found.latency,
        "latency_case": None if found.latency is None else found.latency.case,
        "memory_kb": {
            "before": found.capture.before.model_dump(),
            "loaded": found.capture.loaded.model_dump(),
            "peak": found.peak.model_dump(),
        },
    }  # fmt: skip
