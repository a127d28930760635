"""`edgequant cache ...`."""

from __future__ import annotations

import json

from rich.table import Table
from rich.text import Text

from edgequant.cli.console import out, print_json
from edgequant.cli.options import Ui
from edgequant.plain import printable
from edgequant.quantize.cache import clean_cache, conversions_folder, kept, search_folder, size_of


def list_kept(ui: Ui) -> None:
    """Show the models that are kept, and how much room they and searches take."""
    cache = kept()
    entries, searches, total = cache.entries(), size_of(search_folder()), size_of(cache.folder)
    console = out(ui)
    if entries:
        table = Table("source", "model", "MNN", "MB", "last used", box=None, pad_edge=False, header_style="bold")
        for entry in entries:
            what = entry.variant if entry.label is None else f"{entry.variant}, made as {entry.label}"
            used = f"{entry.used.astimezone():%Y-%m-%d %H:%M}"
            row = (entry.source_sha256[:12], printable(what), entry.mnn, f"{entry.size / 1e6:.1f}", used)
            table.add_row(*map(Text, row))
        console.print(table)
    elif not ui.quiet:
        console.print("No model is kept.", style="dim")
    if not ui.quiet:
        most, folder = cache.limit / 1e6, printable(str(cache.folder.parent))
        text = f"{total / 1e6:.1f} MB of models and {searches / 1e6:.1f} MB of searches, of {most:.0f} MB, in {folder}"
        console.print(text, markup=False, soft_wrap=True)
    if ui.json:
        document = {
            "schema": "edgequant.cache-list/1",
            "cache": str(cache.folder),
            "bytes": total,
            "limit_bytes": cache.limit,
            "search_bytes": searches,
            "entries": [entry.as_dict() for entry in entries],
        }
        print_json(json.dumps(document, indent=2))


def clean(ui: Ui) -> None:
    """Remove every model that is kept, and what searches have measured."""
    folder, freed = conversions_folder(), clean_cache()
    out(ui).print(f"removed {freed / 1e6:.1f} MB from {printable(str(folder.parent))}", markup=False, soft_wrap=True)
    if ui.json:
        print_json(json.dumps({"schema": "edgequant.cache-clean/1", "cache": str(folder), "freed_bytes": freed}))
