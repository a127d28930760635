"""`edgequant pack ...`."""

from __future__ import annotations

import json

from rich.table import Table
from rich.text import Text

from edgequant.cli.console import CliProgress, out, print_json
from edgequant.cli.options import Ui
from edgequant.pack import Pack, PackOptions, build_pack, clean_packs, default_cache, list_packs
from edgequant.plain import printable


def build(options: PackOptions, ui: Ui) -> None:
    """Build the pack, or show the one that is there."""
    pack = build_pack(options, progress=CliProgress(ui))
    console = out(ui)
    console.print(Text(printable(str(pack.archive))), soft_wrap=True)
    console.print(_contents(pack), markup=False, soft_wrap=True)
    console.print(f"SHA-256 {pack.sha256}", soft_wrap=True)
    if pack.needs:
        console.print(f"The device itself must have: {', '.join(pack.needs)}", markup=False, soft_wrap=True)
    if not pack.precompiled:
        console.print("It carries Python sources, so it starts slowly.")
    if ui.json:
        print_json(json.dumps({"schema": "edgequant.pack-build/1", **pack.as_dict()}, indent=2))


def list_built(ui: Ui) -> None:
    """Show what has been built."""
    # Two ways to build one, such as pinned and --relock, may give the same bytes: it is one pack.
    packs = list({pack.sha256: pack for pack in reversed(list_packs())}.values())[::-1]
    console = out(ui)
    if packs:
        table = Table("pack", "contents", box=None, pad_edge=False, header_style="bold")
        for pack in packs:
            table.add_row(pack.sha256[:12], Text(printable(_contents(pack))))
        console.print(table)
    elif not ui.quiet:
        console.print("No pack has been built yet: edgequant pack build", style="dim")
    if ui.json:
        listed = [pack.as_dict() for pack in packs]
        print_json(json.dumps({"schema": "edgequant.pack-list/1", "packs": listed}, indent=2))


def clean(ui: Ui) -> None:
    """Remove packs, and everything that was fetched for them."""
    cache = default_cache()
    freed = clean_packs()
    out(ui).print(f"removed {freed / 1e6:.1f} MB from {cache}", markup=False, soft_wrap=True)
    if ui.json:
        print_json(json.dumps({"schema": "edgequant.pack-clean/1", "cache": str(cache), "freed_bytes": freed}))


def _contents(pack: Pack) -> str:
    return (
        f"{pack.arch}, Python {pack.python}, MNN {pack.mnn}, NumPy {pack.numpy}, {pack.size / 1e6:.1f} MB, "
        f"{pack.unpacked_size / 1e6:.1f} MB on the device"
    )
