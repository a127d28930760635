"""`edgequant cache ...`.  Imports nothing but Typer until a command runs: see commands.py."""

from __future__ import annotations

import typer

from edgequant.cli import options as opt

cache_app = typer.Typer(
    help="Models that were made before, so that they need not be made again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache_app.command("list", short_help="What is kept.")
def cache_list(json: opt.Json = False, verbose: opt.Verbose = False, quiet: opt.Quiet = False) -> None:
    """Show the models that are kept, the last used first, and how much room they and searches take.

    Models take up to 2048 MB, or EDGEQUANT_CACHE_MB; those that were not used
    for longest go first.  EDGEQUANT_NO_CACHE=1 does without them.
    """
    from rich.table import Table
    from rich.text import Text

    from edgequant.cli.console import out
    from edgequant.quantize.cache import kept, search_folder, size_of
    from edgequant.report.plain import printable

    ui = opt.Ui(json, verbose, quiet)
    cache = kept()
    entries, searches = cache.entries(), size_of(search_folder())
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
    total = sum(entry.size for entry in entries)
    if not ui.quiet:
        text = (
            f"{total / 1e6:.1f} MB of models, at most {cache.limit / 1e6:.0f} MB, in {printable(str(cache.folder))}; "
        )
        console.print(f"{text}{searches / 1e6:.1f} MB of searches", markup=False, soft_wrap=True)
    if ui.json:
        _print(
            {
                "schema": "edgequant.cache-list/1",
                "cache": str(cache.folder),
                "bytes": total,
                "limit_bytes": cache.limit,
                "search_bytes": searches,
                "entries": [entry.as_dict() for entry in entries],
            }
        )


@cache_app.command("clean", short_help="Remove all of it.")
def cache_clean(json: opt.Json = False, verbose: opt.Verbose = False, quiet: opt.Quiet = False) -> None:
    """Remove every model that is kept, and what searches have measured."""
    from edgequant.cli.console import out
    from edgequant.quantize.cache import clean_cache, conversions_folder
    from edgequant.report.plain import printable

    ui = opt.Ui(json, verbose, quiet)
    folder, freed = conversions_folder(), clean_cache()
    out(ui).print(f"removed {freed / 1e6:.1f} MB from {printable(str(folder.parent))}", markup=False, soft_wrap=True)
    if ui.json:
        _print({"schema": "edgequant.cache-clean/1", "cache": str(folder), "freed_bytes": freed})


def _print(document: dict[str, object]) -> None:
    import json

    from edgequant.cli.console import print_json

    print_json(json.dumps(document, indent=2))
