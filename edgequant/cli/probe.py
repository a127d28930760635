"""`edgequant devices probe`."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.cli.run_main import show_error
from edgequant.devices.facts_cpu import many, ranges
from edgequant.devices.facts_model import Cluster, DeviceFacts
from edgequant.lab.identify import Probed, probe
from edgequant.lab.session import DeviceOptions
from edgequant.plain import printable

_NOT_ASKED = "MNN could not be asked"
_GROUPS = {
    "device": ("model", "manufacturer", "soc", "os", "build", "kernel", "hostname", "uptime_s", "selinux"),
    "CPU": ("arch", "abis", "userland_bits", "cpu", "cores", "clusters", "features", "governor"),
    "MNN": ("mnn", "mnn_kernels", "python", "numpy", "usable_cores"),
    "memory": ("ram_mb", "page_size", "work_dir", "free_mb"),
    "power and heat": ("battery", "thermal"),
}
_LABELS = {
    "soc": "SoC", "os": "system", "uptime_s": "uptime", "selinux": "SELinux", "arch": "architecture", "abis": "ABI",
    "userland_bits": "programs", "cpu": "CPU", "mnn": "MNN", "mnn_kernels": "kernels", "python": "Python",
    "numpy": "NumPy", "ram_mb": "RAM", "work_dir": "work directory", "free_mb": "free there",
}  # fmt: skip
_OPTIONAL = ("build",)
"""Facts that only some systems have; the report in JSON has the reason for the others."""


def run(uri: str, options: DeviceOptions, ui: Ui) -> None:
    """Show what a device is; exit 3 where MNN there could not be asked."""
    found = probe(uri, options, CliProgress(ui))
    known = as_dict(found)
    table = Table(show_header=False, box=None, pad_edge=False)
    for group, names in _GROUPS.items():
        table.add_row(Text(group, style="bold"))
        for name in names:
            if known[name] is None and name in _OPTIONAL:
                continue
            for number, line in enumerate(_shown(name, known, found.facts)):
                label = "" if number else _LABELS.get(name, name.replace("_", " "))
                table.add_row(Text(f"  {label}"), line)
    console = out(ui)
    console.print(table, soft_wrap=not console.is_terminal)
    if ui.json:
        # ASCII: what a device calls itself must not reach a terminal as control characters.
        print_json(json.dumps({"schema": "edgequant.probe/1", **known}, indent=2, allow_nan=False, ensure_ascii=True))
    if found.error is not None:
        show_error(found.error, as_json=False, verbose=ui.verbose)
        raise typer.Exit(found.error.exit_code)


def as_dict(found: Probed) -> dict[str, Any]:
    """The JSON document (schema ``edgequant.probe/1``)."""
    facts = found.facts.model_dump(mode="json")
    why = dict(facts.pop("why_null"))
    asked = {
        "mnn": found.hello and found.hello.mnn,
        "mnn_kernels": found.runner and found.runner.mnn_kernels,
        "python": found.hello and found.hello.python,
        "numpy": found.hello and found.hello.numpy,
        "usable_cores": found.runner and found.runner.usable_cores,
    }
    reason = f"{_NOT_ASKED}: {found.error.code}" if found.error is not None else "the runner does not tell"
    why |= {name: reason for name, value in asked.items() if value is None}
    error = None if found.error is None else found.error.as_dict()
    return {"uri": found.uri, **facts, **asked, "emulator": found.emulator, "why_null": why, "error": error}


def _shown(name: str, known: dict[str, Any], facts: DeviceFacts) -> list[Text]:
    """The lines of one fact."""
    value = known[name]
    if value is None:
        return [Text(f"not known: {printable(known['why_null'].get(name, ''))}", style="dim")]
    if name == "clusters":
        return [_text(_cluster(each)) for each in facts.clusters or []]
    if name == "thermal":
        return [_text(f"{zone.zone} {zone.celsius:.1f} C") for zone in facts.thermal or []]
    if name == "battery":
        units = {"level": " %", "status": "", "celsius": " C", "volts": " V"}
        return [_text(", ".join(f"{part}{units[key]}" for key, part in value.items() if part is not None))]
    if name == "mnn_kernels":
        return [
            _text(", ".join(f"{kernel} {'on' if on else 'off'}" for kernel, on in value.items()) or "it names none")
        ]
    if name == "features":
        return [_text(" ".join(value) or "none that matters here")]
    if name == "uptime_s":
        return [_text(_duration(value))]
    if isinstance(value, list):
        return [_text(" ".join(map(str, value)))]
    unit = {"ram_mb": " MiB", "free_mb": f" MB of {known['storage_mb']} MB", "page_size": " bytes"}.get(name, "")
    return [_text(f"{value}-bit" if name == "userland_bits" else f"{value}{unit}")]


def _text(line: str) -> Text:
    return Text(printable(line))


def _cluster(cluster: Cluster) -> str:
    parts = [many(cluster.name or "unknown", len(cluster.cores)), f"cores {ranges(cluster.cores)}"]
    if cluster.max_mhz:
        held = f", now at most {cluster.limit_mhz}" if cluster.limit_mhz and cluster.limit_mhz < cluster.max_mhz else ""
        parts.append(f"up to {cluster.max_mhz} MHz{held}")
    if cluster.capacity is not None:
        parts.append(f"capacity {cluster.capacity}")
    if cluster.governor:
        parts.append(cluster.governor)
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, hours, days = int(seconds) // 60 % 60, int(seconds) // 3600 % 24, int(seconds) // 86400
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
