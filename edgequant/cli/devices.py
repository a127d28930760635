"""`edgequant devices ...`."""

from __future__ import annotations

import json

import typer
from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.deadline import Deadline
from edgequant.devices import registry
from edgequant.devices.checks import Check
from edgequant.devices.store import Store
from edgequant.errors import EXIT_ERROR, EXIT_PASS
from edgequant.lab.doctor import examine
from edgequant.lab.session import DeviceOptions
from edgequant.plain import printable


def list_devices(ui: Ui) -> None:
    """Show what could be used."""
    found = list(registry.list_devices())
    table = Table("device", "what", box=None, pad_edge=False, header_style="bold")
    for uri, what in found:
        table.add_row(Text(printable(uri)), Text(printable(what)))
    console = out(ui)
    console.print(table)
    if not ui.quiet:
        console.print("Any other SSH host: ssh://user@host:port.  Try one: edgequant devices probe URI", style="dim")
    if ui.json:
        listed = [{"uri": uri, "what": what} for uri, what in found]
        print_json(json.dumps({"schema": "edgequant.devices/1", "devices": listed}, indent=2))


def doctor(uri: str, options: DeviceOptions, ui: Ui) -> None:
    """Show every check; exit 3 where the device cannot be used."""
    checks = examine(uri, options, CliProgress(ui))
    console = out(ui)
    style = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
    for check in checks:
        console.print(Text(f"{check.status:<8}", style=style[check.status]) + Text(_line(check)), soft_wrap=True)
        if check.fix:
            console.print(Text(f"         -> {printable(check.fix)}"), soft_wrap=True)
    usable = all(check.status != "fail" for check in checks)
    console.print(f"{printable(uri)} {'can be used' if usable else 'cannot be used'}", markup=False)
    if ui.json:
        listed = [check.__dict__ for check in checks]
        document = {"schema": "edgequant.doctor/1", "uri": uri, "usable": usable, "checks": listed}
        print_json(json.dumps(document, indent=2))
    raise typer.Exit(EXIT_PASS if usable else EXIT_ERROR)


def _line(check: Check) -> str:
    return f"{check.name}: {printable(check.message)}"


def clean(uri: str, options: DeviceOptions, ui: Ui) -> None:
    """Empty the work directory."""
    with registry.make_device(uri, accept_new_host_key=options.accept_new_host_key) as device:
        device.open(Deadline(60))
        # Not prepared first: that would claim a directory only to empty it.
        freed = Store(device, options.work_dir).clean(Deadline(300))
    out(ui).print(f"{printable(uri)}: removed {freed / 1e6:.1f} MB", markup=False)
    if ui.json:
        print_json(json.dumps({"schema": "edgequant.clean/1", "uri": uri, "freed_bytes": freed}))
